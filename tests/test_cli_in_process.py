"""The commands once more within this process, where what they run through is measured."""

from __future__ import annotations

import gc
import io
import json
from contextlib import nullcontext
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.live import Live

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.store import NO_BURST, HolderSeen, LaneSeen, LimitKept, StoreAway
from ratelimit.cli import limits, main, plan, run, status, top
from ratelimit.errors import BadSettings
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import load
from ratelimit.wire.sender import Count

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}]}


def said(command: click.Command, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(words), standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return (result.return_value or result.exit_code), result.output


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    Path("requests.jsonl").write_text("".join(json.dumps(BODY) + "\n" for _ in range(20)), encoding="utf-8")
    return "requests.jsonl"


def test_plan_for_one_tier_and_for_all(requests: str) -> None:
    for words in ((), ("--all-tiers",), ("--deadline", "6h"), ("--json",)):
        code, text = said(plan.command, requests, *words)
        assert (code, "20" in text) == (0, True)


def test_a_plan_is_read_on_a_narrow_terminal_too() -> None:
    titles = ("Tier", "Model", "Time", "Limited by", "Cost", "By Batch API")
    row = ("tier-1", "gpt-4o-mini", "1 min 02 s", "RPM", "$0.0914 (0.0012 to 0.0931)", "$0.0457, 1 batch in 1 round")
    shown = []
    for width in (40, 200):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
        with console.capture() as captured:
            plan.show(titles, [row], console)
        shown.append(captured.get())
    assert shown[0] == (
        "tier-1 gpt-4o-mini\n  time 1 min 02 s, limited by RPM, cost\n  $0.0914 (0.0012 to 0.0931), by batch\n"
        "  API $0.0457, 1 batch in 1 round\n"
    )
    assert [line.split() for line in shown[1].splitlines()] == [" ".join(titles).split(), " ".join(row).split()]


def test_plan_of_rows_in_a_template(requests: str) -> None:
    Path("rows.csv").write_text("name\nAda\nGrace\n", encoding="utf-8")
    Path("prompt.txt").write_text("Greet {name}.", encoding="utf-8")
    code, text = said(plan.command, "rows.csv", "--template", "prompt.txt", "--model", "gpt-4o-mini")
    assert (code, "2" in text) == (0, True)
    with pytest.raises(click.UsageError, match="--template needs --model: rows name none"):
        said(plan.command, "rows.csv", "--template", "prompt.txt")


def test_run_refuses_what_goes_with_another_route(requests: str) -> None:
    with pytest.raises(click.UsageError):
        said(run.run, requests, "-o", "out.jsonl", "--via", "batch", "--max-cost", "1")
    with pytest.raises(click.UsageError):
        said(run.run, requests, "-o", "out.jsonl", "--system", "Be brief.")


@pytest.mark.parametrize("wrong", [None, BadSettings("here", "is wrong", "mend it")])
def test_a_run_has_the_collector_look_rarely_and_leaves_it_as_it_was(
    requests: str, wrong: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def instead(*_: object, **__: object) -> Summary:
        seen.append((gc.get_threshold(), gc.get_freeze_count() > 0))
        if wrong:
            raise wrong
        return summarise(Tally(load()), Count(), (), None, in_doubt=0, failed_before=0, interrupted=False)

    monkeypatch.setattr("ratelimit.cli.run.jobs.run", instead)
    before, own = gc.get_threshold(), (701, 11, 12)
    gc.set_threshold(*own)
    with pytest.raises(BadSettings) if wrong else nullcontext():
        said(run.run, requests, "-o", "out.jsonl", "--quiet")
    assert seen == [((50_000, 20, 50), True)]
    assert (gc.get_threshold(), gc.get_freeze_count()) == (own, 0)
    gc.set_threshold(*before)


def test_who_shares_is_read_on_a_narrow_terminal_too() -> None:
    limit = LimitKept(
        unit="tokens",
        window=60.0,
        scope="",
        amount=1e12,
        share=1.0,
        reserve=0,
        burst=NO_BURST,
        top=0,
        missing=0,
        closed=0,
        corrected=0,
        taken=0,
        held=0,
    )
    holder = HolderSeen("ratelimit 12345@machine", 1, 0, ["requests", "tokens"], [12, 345_678], [30, 1_234_567], [0, 0])
    lane = LaneSeen("gpt-4o-mini tier-1", [limit], [holder])
    shown = []
    for width in (60, 200):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(top._panel([lane], {}, console))
        shown.append([line.rstrip() for line in captured.get().splitlines()])
    assert shown[0] == [
        "gpt-4o-mini tier-1",
        "  1,000,000,000,000 TPM: 1,000,000,000,000 left",
        "  ratelimit 12345@machine",
        "    weight 1  priority 0  holds 12 requests, 345,678 tokens",
        "    waits for 30 requests, 1,234,567 tokens",
    ]
    assert shown[1][2].split() == ["program", "weight", "priority", "holds", "waits", "for", "per", "second"]
    assert len(shown[1]) == 4


async def test_who_watches_watches_on_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Store(MemoryStore):
        looks = 0

        async def check(self) -> None: ...

        async def peek(self) -> list[LaneSeen]:
            self.looks += 1
            if self.looks in {2, 3}:
                raise StoreAway("\x1b[31mConnectionError")
            if self.looks == 5:
                raise KeyError
            return []

    monkeypatch.setattr(top, "make_store", lambda _: Store(lambda: 0))
    shown: list[str] = []
    monkeypatch.setattr(Live, "update", lambda _self, seen, refresh: shown.append(str(seen)))
    with pytest.raises(KeyError):
        await top._watch("file", once=False, as_json=False)
    assert [each.startswith("the store does not answer (\\x1b[31mConnectionError)") for each in shown] == [
        True,
        True,
        False,
    ]


def test_brackets_in_names_are_brackets(requests: str) -> None:
    Path("tiers.toml").write_text('[models."m[/x]".tiers]\ntier-1 = { rpm = 5, tpm = 1000 }\n', encoding="utf-8")
    Path(requests).write_text(json.dumps({**BODY, "model": "m[/x]"}) + "\n", encoding="utf-8")
    code, text = said(plan.command, requests, "--tiers-file", "tiers.toml", "--tier", "tier-1")
    assert (code, text.splitlines()[2].split()[:2]) == (0, ["tier-1", "m[/x]"])


def test_nobody_shares_yet(requests: str) -> None:
    code, text = said(top.top, "--once", "--shared", "file")
    assert code == 0
    assert text.strip()


def test_a_job_without_batches(requests: str) -> None:
    from ratelimit.errors import RateLimitError  # noqa: PLC0415 - for this one

    with pytest.raises(RateLimitError):
        said(status.status, "out.jsonl")


def test_limits_of_one_model(requests: str) -> None:
    code, text = said(limits.limits, "gpt-4o-mini")
    assert (code, "10,000" in text) == (0, True)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", "cannot use .: it is a directory; name a file, such as results.jsonl"),
        (".", "cannot use .: it is a directory; name a file, such as results.jsonl"),
        ("/", "cannot use /: it is a directory; name a file, such as results.jsonl"),
        ("..", "cannot use ..: it is a directory; name a file, such as results.jsonl"),
        ("o" * 300, f"cannot use {'o' * 300}: File name too long; choose another output"),
        ("loop", "cannot use loop: Too many levels of symbolic links; choose another output"),
        ("requests.jsonl/o", "cannot use requests.jsonl/o: there is no directory requests.jsonl; create it first"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--via", "batch")])
def test_what_can_be_no_output_is_said_in_words(
    requests: str, capsys: pytest.CaptureFixture[str], output: str, told: str, more: tuple[str, ...]
) -> None:
    Path("loop").symlink_to("loop")
    assert main(["run", requests, "-o", output, *more]) == 2
    assert capsys.readouterr().err == f"ratelimit: {told}\n"


def test_a_directory_that_is_gone_is_said(
    requests: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for more in ((), ("--via", "batch")):
        assert main(["run", str(tmp_path / requests), "-o", "o.jsonl", *more]) == 2
        assert capsys.readouterr().err == (
            "ratelimit: cannot use o.journal.jsonl: No such file or directory; choose another output\n"
        )


def test_a_job_without_a_name_has_no_batches(requests: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "cancel"):
        assert main([command, ""]) == 2
        assert capsys.readouterr().err == (
            "ratelimit: cannot use .: it is a directory; name a file, such as results.jsonl\n"
        )
