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
from typing import TYPE_CHECKING, Any, Final, cast

import click

from ratelimit import __version__
from ratelimit.cli.complaints import complain
from ratelimit.errors import RateLimitError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

JOBS: Final = "A file of requests"
LOOKING: Final = "Before anything is sent"
AROUND: Final = "Servers and shells"

COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "plan": ("ratelimit.cli.plan:command", JOBS, "Say how long a file of requests takes and what it costs."),
    "run": ("ratelimit.cli.run:run", JOBS, "Send a file of requests; the same command again continues."),
    "status": ("ratelimit.cli.status:status", JOBS, "Show the batches of a job."),
    "cancel": ("ratelimit.cli.cancel:cancel", JOBS, "Cancel the batches of a job, and keep what they answered."),
    "doctor": (
        "ratelimit.cli.doctor:doctor",
        LOOKING,
        "Say what is amiss with settings, key, tables or service.",
    ),
    "limits": ("ratelimit.cli.limits:limits", LOOKING, "Show what each model allows on each tier."),
    "mock": ("ratelimit.cli.mock:mock", AROUND, "Serve a local API that limits, answers and fails like the real one."),
    "top": ("ratelimit.cli.top:top", AROUND, "Show which programs share limits, and what each holds."),
    "completion": ("ratelimit.cli.completion:completion", AROUND, "Print what lets a shell complete these commands."),
}
"""Every command, in the order of `--help`: where it is, the group it stands in, and its line."""

INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141  # as for a program that SIGPIPE ended, which is what shells and `set -o pipefail` know
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


class Lazy(click.Group):
    """A group that imports a command when it is used, and lists those it has without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, group by group."""
        del ctx
        width = max(map(len, COMMANDS))
        for group in dict.fromkeys(group for _, group, _ in COMMANDS.values()):
            with formatter.section(group):
                formatter.write_dl(
                    [(f"{name:<{width}}", line) for name, (_, where, line) in COMMANDS.items() if where == group]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that a word may become, importing none."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - a shell asks for it, nobody else

        found = [
            CompletionItem(name, help=line) for name, (_, _, line) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments; `--help` and `--version` answer here."""
        extra.setdefault("terminal_width", _width())
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
    """Use an OpenAI-compatible API at exactly the speed your usage tier allows.

    \b
    Examples:
      ratelimit doctor                               is everything in place?
      ratelimit plan requests.jsonl --all-tiers      how long, how much?
      ratelimit run requests.jsonl -o results.jsonl  again to continue
      ratelimit run requests.jsonl -o results.jsonl --via batch
      ratelimit mock --tier tier-1                   to try it on, without a key
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is one line on stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with it closed; what is opened next must not take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    try:
        code = cli.main(arguments, prog_name="ratelimit", standalone_mode=False)
    except RateLimitError as error:
        complain(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        complain(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'ratelimit'} --help")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _width() -> int:
    """Return how wide a help text may be: click asks the library for it that unpacks archives, and nothing small."""
    told = os.environ.get("COLUMNS", "")
    try:
        columns = (told.isdecimal() and int(told)) or os.get_terminal_size().columns
    except OSError:
        columns = 80
    return min(max(columns - 2, 50), 78)


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
        complain(f"cannot write to standard output ({error.strerror}); make room, or send it elsewhere")
        raise click.exceptions.Exit(1) from None


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere: it would complain about the same once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
