"""`ratelimit limits`: the figures as they are published, for eyes, pipes and programs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit.cli import main
from ratelimit.cli.limits import Sheet, _lines, _short, _show
from ratelimit.limits.tiers import TIERS, load

GPT_4O_MINI = """\
| Tier | RPM | RPD | TPM | Batch queue limit |
| Free | 3 | 200 | 40,000 | - |
| Tier 1 | 500 | 10,000 | 200,000 | 2,000,000 |
| Tier 2 | 5,000 | - | 2,000,000 | 20,000,000 |
| Tier 3 | 5,000 | - | 4,000,000 | 40,000,000 |
| Tier 4 | 10,000 | - | 10,000,000 | 1,000,000,000 |
| Tier 5 | 30,000 | - | 150,000,000 | 15,000,000,000 |
"""
O4_MINI = """\
| Tier | RPM | TPM | Batch queue limit |
| Free | Not supported |
| Tier 1 | 1,000 | 100,000 | 1,000,000 |
| Tier 2 | 2,000 | 2,000,000 | 2,000,000 |
| Tier 3 | 5,000 | 4,000,000 | 40,000,000 |
| Tier 4 | 10,000 | 10,000,000 | 1,000,000,000 |
| Tier 5 | 30,000 | 150,000,000 | 15,000,000,000 |
"""
MINE = """\
[models.my-model]
notes = ["a [red]note[/red]"]
tiers.tier-2.rpm = 7
tiers.tier-2.tpm = 1_250_000
"""


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("RATELIMIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    return Shown(capsys)


class Shown:
    """Runs the command and returns what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert main(["limits", *arguments]) == code
        captured = self._capsys.readouterr()
        assert bool(captured.err) == bool(code)
        return captured.err or captured.out


def _rows(text: str) -> list[list[str]]:
    """The cells of the first table in columns."""
    return [re.split(r" {2,}", line.strip()) for line in text.split("\n\n")[1].splitlines()]


def _published(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize(("model", "table"), [("gpt-4o-mini", GPT_4O_MINI), ("o4-mini", O4_MINI)])
def test_a_model_is_shown_as_it_is_published(model: str, table: str, shown: Shown) -> None:
    assert _rows(shown(model)) == _published(table)


def test_the_whole_page_of_a_model(shown: Shown) -> None:
    source = load().find("o4-mini").sources["limits"]
    assert shown("o4-mini") == (
        "o4-mini\n"
        "\n"
        "Tier       RPM          TPM  Batch queue limit\n"
        "Free    Not supported\n"
        "Tier 1   1,000      100,000          1,000,000\n"
        "Tier 2   2,000    2,000,000          2,000,000\n"
        "Tier 3   5,000    4,000,000         40,000,000\n"
        "Tier 4  10,000   10,000,000      1,000,000,000\n"
        "Tier 5  30,000  150,000,000     15,000,000,000\n"
        "\n"
        "Also known as o4-mini-2025-04-16.\n"
        f"Source of limits, sizes, prices: {source.text} (as of {source.as_of}, {source.grade})\n"
    )


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:org::id"])
def test_any_name_of_a_model_will_do(name: str, shown: Shown) -> None:
    assert shown(name) == shown("gpt-4o-mini")


def test_every_model_shows_its_source_and_date(shown: Shown) -> None:
    for name, model in load().models.items():
        page = shown(name)
        assert f"{model.sources['limits'].text} (as of {model.sources['limits'].as_of}, " in page
        assert all(note in page for note in model.notes)


def test_one_tier_of_a_model(shown: Shown) -> None:
    rows = _published(GPT_4O_MINI)
    assert _rows(shown("gpt-4o-mini", "--tier", "tier-1")) == [rows[0], rows[2]]
    assert _rows(shown("gpt-4o-mini", "--tier", "Tier 2")) == [
        ["Tier", "RPM", "TPM", "Batch queue limit"],
        ["Tier 2", "5,000", "2,000,000", "20,000,000"],
    ]


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_tier_that_cannot_use_the_model(extra: list[str], shown: Shown) -> None:
    assert shown("o4-mini", "--tier", "free", *extra, code=2) == (
        "ratelimit: o4-mini cannot be used on free; the lowest tier that can is tier-1: choose it, or give this tier's "
        "limits in ratelimit.toml under [models.o4-mini.tiers.free]\n"
    )


def test_what_is_not_known(shown: Shown) -> None:
    assert shown("gpt-4o-mini", "--tier", "gold", code=2) == (
        "ratelimit: --tier cannot be 'gold': write one of free, tier-1, tier-2, tier-3, tier-4, tier-5\n"
    )
    assert shown("--tiers-file", "gone.toml", code=2) == (
        "ratelimit: --tiers-file cannot be 'gone.toml': write the path of a TOML file that exists\n"
    )
    assert shown("gpt-4o-mimi", code=2).startswith(
        'ratelimit: no table has limits for the model "gpt-4o-mimi"; did you mean gpt-4o-mini'
    )


def test_all_models_on_one_tier(shown: Shown) -> None:
    text = shown("--tier", "free")
    assert text.startswith("Limits on Free\n\n")
    rows = _rows(text)
    assert rows[0] == ["Model", "RPM", "RPD", "TPM", "Batch queue limit"]
    assert [row[0] for row in rows[1:]] == list(load().models)
    assert ["gpt-4o-mini", "3", "200", "40,000", "-"] in rows
    assert ["o4-mini", "Not supported"] in rows
    assert "\nFigures as of 2026-" in text


def test_all_models_on_all_tiers(shown: Shown) -> None:
    rows = _rows(shown())
    assert rows[0] == ["Model", "Free", "Tier 1", "Tier 2", "Tier 3", "Tier 4", "Tier 5"]
    assert [row[0] for row in rows[1:]] == list(load().models)
    assert ["gpt-4o-mini", "3/40k", "500/200k", "5k/2M", "5k/4M", "10k/10M", "30k/150M"] in rows
    assert ["o4-mini", "no", "1k/100k", "2k/2M", "5k/4M", "10k/10M", "30k/150M"] in rows


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "-"),
        (3, "3"),
        (999, "999"),
        (1000, "1k"),
        (1001, "1001"),
        (1250, "1.25k"),
        (450_000, "450k"),
        (1_350_000, "1.35M"),
        (1_355_000, "1355k"),
        (15 * 10**9, "15B"),
    ],
)
def test_short_figures_are_exact(amount: int | None, text: str) -> None:
    assert _short(amount) == text


def test_a_table_of_ones_own(shown: Shown) -> None:
    Path("mine.toml").write_text(MINE, "utf-8")
    assert ["my-model", "?", "?", "7/1.25M", "?", "?", "?"] in _rows(shown("--tiers-file", "mine.toml"))
    assert shown("my-model", code=2).startswith('ratelimit: no table has limits for the model "my-model"')
    Path("ratelimit.toml").write_text("[settings]\nrpm = 1\n" + MINE, "utf-8")
    text = shown("my-model")
    assert _rows(text)[1:4] == [["Free", "No figures"], ["Tier 1", "No figures"], ["Tier 2", "7", "1,250,000", "-"]]
    assert "\na [red]note[/red]\n" in text


def test_text_from_elsewhere_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("b", "c", "d")
    sheet = Sheet("a\x1b[2J", columns, (("e\x1b[2J", "[red]f\x1b[2J", "1"), ("g\r", "no\x1b[2J")), ("[red]h\n",))
    assert list(_lines(sheet)) == [
        r"a\x1b[2J",
        "",
        r"b                     c  d",
        r"e\x1b[2J  [red]f\x1b[2J  1",
        r"g\r       no\x1b[2J",
        "",
        r"[red]h\n",
    ]
    _show(sheet)
    text = capsys.readouterr().out
    assert all(each in text for each in (r"a\x1b[2J", r"[red]f\x1b[2J", r"g\r", r"no\x1b[2J", r"[red]h\n"))
    assert not {"\x1b", "\r"} & set(text)


def test_json_of_a_model(shown: Shown) -> None:
    value = json.loads(shown("o4-mini", "--json"))
    assert list(value) == ["model", "names", "tiers", "sources", "notes"]
    assert (value["model"], list(value["tiers"])) == ("o4-mini", list(TIERS))
    assert value["tiers"]["free"] is None
    assert value["tiers"]["tier-1"] == {"rpm": 1000, "rpd": None, "tpm": 100_000, "batch_queue": 1_000_000}
    assert set(value["sources"]["limits"]) == {"text", "as_of", "grade"}
    assert list(json.loads(shown("o4-mini", "--json", "--tier", "tier-1"))["tiers"]) == ["tier-1"]


def test_json_of_all_models(shown: Shown) -> None:
    values = json.loads(shown("--json"))
    assert [value["model"] for value in values] == list(load().models)
    assert values[0] == json.loads(shown("gpt-4o-mini", "--json"))


@pytest.mark.parametrize(
    ("width", "arguments"),
    [
        (60, []),
        (80, []),
        (120, []),
        (80, ["--tier", "free"]),
        (80, ["o4-mini"]),
        (80, ["gpt-4.1"]),
        (120, ["gpt-4.1"]),
    ],
)
def test_a_terminal_shows_whole_figures_in_its_width(arguments: list[str], width: int) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    command = [sys.executable, "-m", "ratelimit", "limits", *arguments]
    with subprocess.Popen(command, stdout=slave, env=environment) as process:
        os.close(slave)
        output = b""
        try:
            while piece := os.read(master, 65536):
                output += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait() == 0
    os.close(master)
    assert b"\x1b[1m" in output
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r", "").split("\n")
    assert max(map(len, lines)) <= width
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = _rows(piped)
    boxed = [re.split(r" {2,}", line.strip()) for line in lines[2 : 3 + len(rows)] if "───" not in line]
    assert [row[1:] for row in boxed] == [row[1:] for row in rows]
