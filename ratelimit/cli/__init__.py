"""The command line: which command, which exit code, and nothing else.

A command's module is imported when the command is used. So `ratelimit --help`, and a mistyped word, take a tenth of a
second, whatever the commands themselves need.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import click

from ratelimit import __version__
from ratelimit.errors import RateLimitError, printable

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "mock": ("ratelimit.cli.mock:mock", "Serve a local API that limits, answers and fails like the real one."),
    "limits": ("ratelimit.cli.limits:limits", "Show what each model allows on each tier."),
    "plan": ("ratelimit.cli.plan:command", "Say how long a file of requests takes and what it costs."),
    "status": ("ratelimit.cli.status:status", "Show the batches of a job."),
    "cancel": ("ratelimit.cli.cancel:cancel", "Cancel the batches of a job, and keep what they answered."),
    "run": ("ratelimit.cli.run:run", "Send a file of requests; the same command again continues."),
}
"""Every command: where it is, and the line that `--help` has for it."""

INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141  # as for a program that SIGPIPE ended, which is what shells and `set -o pipefail` know
_LONGEST: Final = 2000  # characters of a message
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


class Lazy(click.Group):
    """A group that imports a command when it is used, and lists those it has without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments; `--help` and `--version` answer here."""
        with _writing():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        with _writing():
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        return result


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="ratelimit %(version)s")
def cli() -> None:
    """Use an OpenAI-compatible API at exactly the speed your usage tier allows."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is one line on stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with it closed; what is opened next must not take its place
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the end
    try:
        code = cli.main(arguments, prog_name="ratelimit", standalone_mode=False)
    except RateLimitError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        _complain(
            f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'ratelimit'} --help"
        )
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


@contextmanager
def _writing() -> Iterator[None]:
    """See to it that output which nobody takes is no traceback; a reader who has seen enough is no error of ours."""
    try:
        yield
    except BrokenPipeError:
        _forget_stdout()
        raise click.exceptions.Exit(_PIPE_CLOSED) from None
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _forget_stdout()
        _complain(f"cannot write to standard output ({error.strerror}); make room, or send it elsewhere")
        raise click.exceptions.Exit(1) from None


def _complain(message: str) -> None:
    click.echo(f"ratelimit: {printable(message, _LONGEST)}", err=True)


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere: it would complain about the same once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
