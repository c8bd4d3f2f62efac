"""The command line as a whole: what loads when, what is said when something goes wrong, and what is documented."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from docs.make import commands
from ratelimit import __version__
from ratelimit import cli as module
from ratelimit.cli import COMMANDS, cli, main
from ratelimit.errors import JobStopped, RateLimitError

HEAVY = (
    "aiohttp",
    "aiolimiter",
    "bpe_openai",
    "msgspec",
    "pydantic",
    "pydantic_settings",
    "rich",
    "tenacity",
    "asyncio",
)


def run(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    # Buffered, as users have it: what is left in a buffer is written when the interpreter ends.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "ratelimit", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environment)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put a command of the test's own in the table."""

    def put(function: Callable[[], object]) -> None:
        monkeypatch.setattr(sys.modules[__name__], "tried", click.command("try")(function), raising=False)
        monkeypatch.setitem(sys.modules, "cli_under_test", sys.modules[__name__])
        monkeypatch.setattr(module, "COMMANDS", {"try": ("cli_under_test:tried", "Tests", "Try.")})

    return put


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["limitz"]])
def test_nothing_heavy_loads_for_help(arguments: list[str]) -> None:
    code = (
        "import sys; from ratelimit.cli import main; code = main(sys.argv[1:]); "
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_version() -> None:
    assert run("--version").stdout == f"ratelimit {__version__}\n"


def test_help_lists_every_command_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for group in {group for _, group, _ in COMMANDS.values()}:
        section = shown.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        listed = re.findall(r"^  (\w+) +(\S.*)$", section, re.MULTILINE)
        assert [name for name, _ in listed] == [name for name, (_, where, _) in COMMANDS.items() if where == group]
    text = " ".join(shown.split())
    assert all(line in text for _, _, line in COMMANDS.values())
    assert "\n    ratelimit run requests.jsonl -o results.jsonl " in shown, "examples keep their lines"


def test_without_a_command_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: ratelimit [OPTIONS] COMMAND [ARGS]...\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["limitz"], "ratelimit: No such command 'limitz'; see ratelimit --help\n"),
        (["limits", "--foo"], "ratelimit: No such option '--foo'; see ratelimit limits --help\n"),
        (
            ["limits", "a", "b\x1b[2J"],
            "ratelimit: Got unexpected extra argument (b\\x1b[2J); see ratelimit limits --help\n",
        ),
        (["limits", "--teir", "x"], None),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err == (message or captured.err)


@pytest.mark.parametrize(("kind", "code"), [(RateLimitError, 1), (JobStopped, 3)])
def test_our_errors_are_one_line_and_their_exit_code(
    kind: type[RateLimitError],
    code: int,
    command: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise kind("no\nwith \x1b]0;title\x07 in it")

    command(fail)
    assert main(["try"]) == code
    assert capsys.readouterr() == ("", "ratelimit: no\\nwith \\x1b]0;title\\x07 in it\n")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_what_a_command_returns_is_the_exit_code(
    result: object, code: int, command: Callable[[Callable[[], object]], None]
) -> None:
    command(lambda: result)
    assert main(["try"]) == code


def test_an_interrupt_has_its_own_exit_code(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    command(interrupted)
    assert main(["try"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_faults_of_ours_are_not_hidden(command: Callable[[Callable[[], object]], None]) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    command(broken)
    with pytest.raises(ZeroDivisionError):
        main(["try"])


def test_a_reader_who_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("limits", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [["limits"], ["limits", "--json"], ["--help"], ["--version"]])
def test_a_full_disk_is_no_traceback(arguments: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run(*arguments, stdout=full)
    finally:
        os.close(full)
    assert (done.returncode, done.stderr) == (
        1,
        "ratelimit: cannot write to standard output (No space left on device); make room, or send it elsewhere\n",
    )


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "a.jsonl"), OSError(111, "refused")])
def test_other_faults_of_the_system_are_not_taken_for_it(
    error: OSError, command: Callable[[Callable[[], object]], None]
) -> None:
    def broken() -> None:
        raise error

    command(broken)
    with pytest.raises(OSError, match=re.escape(str(error))):
        main(["try"])


@pytest.mark.parametrize(("arguments", "code"), [("limits", 0), ("limits nope", 2), ("--help", 0)])
def test_closed_outputs_are_no_traceback(arguments: str, code: int) -> None:
    line = f'"$0" -m ratelimit {arguments} {{}}'
    for closing in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", line.format(closing), sys.executable], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_an_interrupt_of_the_process_is_no_traceback() -> None:
    code = (
        "import sys, signal, ratelimit.cli.limits as limits, ratelimit.cli as cli\n"
        "limits.load_settings = lambda **_: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.main(['limits']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield f"{path} {name}", found
        if isinstance(found, click.Group):
            yield from _commands(found, f"{path} {name}")


def test_the_page_of_commands_is_what_the_parser_says() -> None:
    assert commands.PAGE.read_text("utf-8") == commands.page()


@pytest.mark.parametrize("path", [path for path, _ in _commands(cli, "ratelimit")])
def test_examples_in_help_texts_keep_their_lines(path: str) -> None:
    shown = run(*path.split()[1:], "--help").stdout  # as wide as where there is no terminal: 80
    assert "\b" not in shown
    assert "\\b" not in shown
    assert "Example" not in shown or re.search(rf"^    (eval .*)?{path}", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80


def test_every_command_says_what_it_does() -> None:
    for path, found in _commands(cli, "ratelimit"):
        assert found.help, path
        for each in found.params:
            assert not isinstance(each, click.Option) or each.help, f"{path} {each.name}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    assert "_RATELIMIT_COMPLETE" in run("completion", shell).stdout


def test_commands_are_completed_without_loading_any() -> None:
    code = (
        "import atexit, sys; from ratelimit.cli import main; sys.argv = ['ratelimit']; "
        f"atexit.register(lambda: print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])); main()"
    )
    asked = {"_RATELIMIT_COMPLETE": "bash_complete", "COMP_WORDS": "ratelimit ca", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert done.stdout == "plain,cancel\nLOADED []\n"


@pytest.mark.parametrize(
    ("environment", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_errors_are_in_colour_on_a_terminal_whose_user_wants_any(
    environment: dict[str, str], colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.openpty()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    command = [sys.executable, "-m", "ratelimit", "limitz"]
    done = subprocess.run(command, stderr=writing, check=False, env={**os.environ, **environment})
    os.close(writing)
    shown = os.read(reading, 1000).decode()
    os.close(reading)
    assert done.returncode == 2
    assert ("\x1b[31m" in shown) is colours
    assert "No such command 'limitz'; see ratelimit --help" in shown


@pytest.mark.real_time
def test_help_costs_little_beside_what_python_itself_does() -> None:
    """Of the processor's time, at best and in turns, so that a busy machine is busy for both."""

    def took(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    helping, nothing = zip(*((took("-m", "ratelimit", "--help"), took("-c", "pass")) for _ in range(9)), strict=True)
    assert min(helping) <= 5 * min(nothing)


def test_help_is_as_wide_as_what_it_is_read_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns, most in (("60", 58), ("80", 78), ("300", 78), ("20", 50), ("wide", 78)):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["--help"]) == 0
        lines = capsys.readouterr().out.partition("\nOptions:\n")[2].splitlines()
        assert most - 12 < max(map(len, lines)) <= most
