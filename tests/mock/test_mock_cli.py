"""`ratelimit mock` as a user meets it, and its document."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratelimit.cli import COMMANDS, main
from ratelimit.cli.mock import announcement, mock
from ratelimit.testing.mock import Limits, MockServer
from ratelimit.testing.mock.faults import KINDS, SELECTORS
from ratelimit.testing.mock.sabotage import ABSURD

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "mock-server.md").read_text(encoding="utf-8")


WARNING = "warning: 0.0.0.0 is not this machine's own address; anybody who reaches it can use this server\n"


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", ""), ("0.0.0.0", WARNING)])
def test_it_serves_until_it_is_interrupted_and_says_what_it_counted(tmp_path: Path, host: str, warned: str) -> None:
    log = tmp_path / "log.jsonl"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from ratelimit.cli import main; sys.exit(main())",
            "mock",
            "--tier",
            "free",
            "--model",
            "gpt-4o-mini",
            "--port",
            "0",
            "--host",
            host,
            "--log",
            str(log),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    found = re.fullmatch(r"mock server on (http://[\d.]+:\d+/v1), statistics on \S+/_mock/\n", first)
    assert found is not None
    body = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}'
    statuses = []
    for _ in range(4):
        asked = urllib.request.Request(found[1] + "/chat/completions", body, {"Authorization": "Bearer sk-any"})
        try:
            with urllib.request.urlopen(asked) as reply:
                statuses.append(reply.status)
        except urllib.error.HTTPError as refused:
            statuses.append(refused.code)
            refused.close()
    process.send_signal(signal.SIGINT)
    rest, complaint = process.communicate(timeout=20)
    assert statuses == [200, 200, 200, 429]
    assert rest.endswith("\n4 requests arrived, 3 admitted, 1 refused\n")
    assert (process.returncode, complaint) == (0, warned)
    assert len(log.read_text().splitlines()) == 4


def test_it_announces_where_it_is_its_limits_and_a_recipe() -> None:
    models = {f"m{number:02}": Limits(rpm=1000 + number, tpm=50_000) for number in range(14)}
    server = MockServer(models={**models, "free": Limits()})
    *lines, export, curl = announcement(server)
    assert lines[0] == "mock server on http://127.0.0.1:0/v1, statistics on http://127.0.0.1:0/_mock/"
    assert lines[1] == "  m00: 1,000 rpm, 50,000 tpm"
    assert lines[-2:] == ["  and 3 more: GET http://127.0.0.1:0/v1/models", "try it:"]
    assert export == "  export OPENAI_BASE_URL=http://127.0.0.1:0/v1 OPENAI_API_KEY=sk-any"
    assert curl == (
        '  curl -i $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        '-d \'{"model": "m00", "messages": [{"role": "user", "content": "hi"}]}\''
    )
    assert "no limits" in next(line for line in announcement(MockServer(models={"m": Limits()})) if "m:" in line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enforce", "leaky"], "--enforce cannot be 'leaky': choose one of bucket, sliding, fixed, quantised"),
        (
            ["--echo", "--output-tokens", "5"],
            "--output-tokens cannot be '5': --echo decides how long answers are; drop one",
        ),
        (["--key", "sk-secret"], "--key cannot be '***': write KEY=ORGANIZATION or KEY=ORGANIZATION/PROJECT"),
        (
            ["--key", "sk-a=org/one", "--project-limit", "two:rpm=1"],
            "--project-limit cannot be 'two': no --key belongs to this project; add one or drop the limit",
        ),
        (
            ["--project-limit", "one:rps=1"],
            "--project-limit cannot be 'one:rps=1': write PROJECT:rpm=10,tpm=1000 with rpm, rpd, tpm or tpd",
        ),
        (["--rpm", "0"], "rpm cannot be 0: give a whole number of at least 1, or leave it out for no limit"),
        (
            ["--port", "70000"],
            "Invalid value for '--port': 70000 is not in the range 0<=x<=65535; see ratelimit mock --help",
        ),
    ],
)
def test_what_cannot_be_ends_with_two_and_the_remedy(
    capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["mock", *arguments]) == 2
    assert capfd.readouterr().err == f"ratelimit: {message}\n"


def test_a_port_that_is_taken_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import socket,sys; s=socket.create_server(('127.0.0.1',0)); "
                "print(s.getsockname()[1], flush=True); sys.stdin.read()"
            ),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        port = other.stdout.readline().strip()
        assert main(["mock", "--model", "gpt-4o-mini", "--port", port]) == 2
        other.communicate("")
    assert capfd.readouterr().err.startswith(f"ratelimit: --port cannot be {port}: ")


def test_the_command_is_in_the_table_and_every_flag_in_the_document_and_the_help() -> None:
    assert "mock" in COMMANDS
    shown = CliRunner().invoke(mock, ["--help"]).output
    flags = [each for option in mock.params for each in option.opts if each.startswith("--")]
    assert len(flags) > 25
    for flag in flags:
        assert f"`{flag}`" in DOCUMENT, flag
        assert flag in shown


def test_every_fault_selector_and_variant_is_in_the_document() -> None:
    for name in (*KINDS, *ABSURD):
        assert f"`{name}`" in DOCUMENT, name
    for name in SELECTORS:
        assert f"`{name}=" in DOCUMENT, name


def test_every_public_method_is_in_the_document() -> None:
    for name in vars(MockServer):
        if not name.startswith("_"):
            assert f"`{name}" in DOCUMENT, name


def test_a_log_and_a_host_that_cannot_be_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "missing" / "log"
    for words, told in (
        (("--log", str(log)), f"--log cannot be '{log}': No such file or directory; name a file that can be made"),
        (
            ("--host", "1.2.3.4.5"),
            "--host cannot be '1.2.3.4.5': Name or service not known; give an address of this machine",
        ),
    ):
        assert main(["mock", "--port", "0", *words]) == 2
        assert capsys.readouterr().err == f"ratelimit: {told}\n"
