"""Scripts of their own form are run through the one door and kept in the one form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import record, scale, scripts, soak


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts, and where their results go."""
    monkeypatch.setattr(scripts, "HERE", tmp_path)
    monkeypatch.setattr(scripts, "RESULTS", tmp_path / "results")
    return tmp_path


def write(folder: Path, source: str) -> None:
    (folder / "one.py").write_text("import json, pathlib, sys\n" + source, encoding="utf-8")


@pytest.mark.parametrize(("code", "passed"), [(0, True), (1, False)])
def test_a_printed_object_is_kept_with_its_verdict(
    folder: Path, code: int, passed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, f"print('noise')\nprint(json.dumps(dict(ratio=2, target=1), indent=1))\nsys.exit({code})")
    assert scripts.run_script("one", ["--rounds", "3"]) == code
    kept = record.Record.read(folder / "results" / "one.json")
    assert kept.rows == [{"ratio": 2}]
    assert kept.passed is passed
    assert kept.command == "python -m bench one --rounds 3"
    assert ("one misses its target: {'target': 1}" in capsys.readouterr().out) is not passed


def test_an_object_written_by_the_script_itself_is_kept(folder: Path) -> None:
    (folder / "results").mkdir()
    write(folder, f"pathlib.Path({str(folder / 'results' / 'one.json')!r}).write_text('{{\"ratio\": 3}}')")
    assert scripts.run_script("one", []) == 0
    assert record.Record.read(folder / "results" / "one.json").rows == [{"ratio": 3}]


def test_an_old_result_is_not_taken_for_a_new_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.Record("one", [{"ratio": 3}], {}, passed=True, command="python").write(folder / "results" / "one.json")
    write(folder, "print('nothing')")
    assert scripts.run_script("one", []) == 1
    assert capsys.readouterr().err == "one.py printed no result; it ended with 0\n"


def test_a_script_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts.run_script("two", []) == 2
    assert capsys.readouterr().err == "there is no two.py beside this file; it is not part of this checkout\n"


def test_growth_is_from_the_fewest_to_the_most() -> None:
    rows = [{"what": "requests", "us_per_request": cost} for cost in (100.0, 500.0, 150.0)]
    assert scale.growth(rows) == 1.5


def test_growth_in_time_leaves_out_the_first_quarter() -> None:
    assert soak.Looks.growth([1.0, 10.0, 99.0, 20.0]) == 2.0
