"""Write docs/cli.md from the parser: `python docs/make/commands.py`; with `--check`, see that it says the same."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ratelimit.cli import COMMANDS, cli

PAGE = Path(__file__).parents[1] / "cli.md"

_HEAD = """\
# The command line

`ratelimit COMMAND`, or `python -m ratelimit COMMAND`. `--help` (`-h`) describes any command, `--version` says which
version this is. This page is made from the same texts: `python docs/make/commands.py`.

Settings that are no option of a command come from variables and files: see [settings](settings.md).

| exit code | meaning |
|---|---|
| 0 | all done |
| 1 | some requests failed, the service could not be reached, or standard output takes no more |
| 2 | wrong usage, bad input, bad settings; nothing was sent |
| 3 | stopped with work left (quota, budget, key, deadline); the same command continues |
| 130 | interrupted |
| 141 | whoever read the output has stopped reading |

What goes wrong is one line on standard error that begins with `ratelimit:`. It has a colour on a terminal and none in a
pipe, nor where `NO_COLOR` is set; the same goes for panels and tables. `run --no-progress` shows no panel.

More on [batch jobs](batch-jobs.md), [the Batch API](batch-queue.md), [the mock server](mock-server.md) and
[tiers](tiers.md).
"""


def page() -> str:
    """Return the whole document."""
    return "\n".join([_HEAD, *_contents(), *(line for name in COMMANDS for line in _command(name))]).rstrip() + "\n"


def _contents() -> Iterator[str]:
    for group in dict.fromkeys(group for _, group, _ in COMMANDS.values()):
        names = [f"[{name}](#ratelimit-{name})" for name, (_, where, _) in COMMANDS.items() if where == group]
        yield f"- {group}: {', '.join(names)}"


def _command(name: str) -> Iterator[str]:
    context = click.Context(cli, info_name="ratelimit")
    command = cli.get_command(context, name)
    if command is None:
        raise LookupError(f"no command is called {name}; COMMANDS names it and its module does not have it")
    own = click.Context(command, info_name=name, parent=context)
    arguments = [each.make_metavar(own) for each in command.params if isinstance(each, click.Argument)]
    yield from ("", f"## ratelimit {name}", "", f"`{' '.join([f'ratelimit {name}', '[OPTIONS]', *arguments])}`", "")
    yield from _prose(inspect.cleandoc(command.help or ""))
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield from ("", "| option | what it does |", "|---|---|")
    for each in options:
        yield f"| {_names(each, own)} | {_escaped(each.help or '')}{_default(each)} |"


def _prose(text: str) -> Iterator[str]:
    r"""Yield paragraphs, and those that begin with \b as they stand, for what is on their lines are commands."""
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        title, *lines = paragraph.removeprefix("\b\n").splitlines()
        yield title
        if not paragraph.startswith("\b\n"):
            yield from lines
            continue
        yield ""
        yield from (f"    {line.strip()}" if line.startswith("  ") else f"\n{line}\n" for line in lines)


def _names(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {_escaped(option.make_metavar(context))}"


def _default(option: click.Option) -> str:
    if option.is_flag or option.default is None or not option.show_default:
        return ""
    return f" Default: `{option.default}`."


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<").replace("*", r"\*")


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is as it should be."""
    if "--check" not in arguments:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PAGE} is not what the parser says; run python docs/make/commands.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
