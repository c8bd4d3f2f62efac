"""The verdict of a bench comes of its rows and its targets, and of nothing else."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import __main__ as door
from bench import core, dropin, envs, mock_ceiling, record, scale, scenes, server, shared, soak, tables, wire
from bench.record import Record


def run(rows: list[record.Row], **targets: str) -> Record:
    return Record("core", rows, targets, "python -m bench core")


@pytest.mark.parametrize(
    ("rows", "target", "said", "passed"),
    [
        ([{"ratio": 0.9}], ">= 0.85", "ratio 0.9 (at least 0.85)", True),
        ([{"ratio": 0.85}], ">= 0.85", "ratio 0.85 (at least 0.85)", True),
        ([{"ratio": 0.8499}], ">= 0.85", "ratio 0.8499 (at least 0.85)", False),
        ([{"ratio": 2.0}], "<= 2", "ratio 2 (at most 2)", True),
        ([{"ratio": 2.001}], "<= 2", "ratio 2.001 (at most 2)", False),
        ([{"ratio": 3}, {"ratio": 1}], "<= 2", "ratio 3 (at most 2)", False),  # one row is enough
        ([{"ratio": 1}, {"other": 9}, {"ratio": None}], "<= 2", "ratio 1 (at most 2)", True),  # not judged by it
        ([{"other": 1}], "<= 2", "ratio not measured (at most 2)", False),  # which is no success
    ],
)
def test_a_target_is_met_by_every_row_or_missed(rows: list[record.Row], target: str, said: str, passed: bool) -> None:
    found = run(rows, ratio=target)
    assert found.verdicts == [(said, passed)]
    assert found.passed is passed
    assert found.missed == ([] if passed else [said])


def test_a_run_without_rows_does_not_pass() -> None:
    assert not run([]).passed


def test_the_row_that_misses_is_named_among_its_like() -> None:
    found = run([{"ratio": 3}, {"ratio": 1}], ratio="<= 2")
    assert [found.fails(row) for row in found.rows] == [True, False]


@pytest.mark.parametrize(("ratio", "code", "mark"), [(1.5, 0, "met"), (2.5, 1, "MISSED")])
def test_a_run_is_kept_and_its_exit_code_is_its_verdict(
    tmp_path: Path, ratio: float, code: int, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results" / "core.json"
    assert record.concluded(run([{"ratio": ratio}], ratio="<= 2"), file) == code
    assert Record.read(file).passed is (code == 0)
    assert capsys.readouterr().out.splitlines()[-1] == f"{mark}  ratio {ratio} (at most 2)"


def test_a_document_says_what_the_targets_say() -> None:
    row = {"what": "turn", "us": 1.0, "times": 2.5, "ratio": 2.5}
    said = tables.plain(run([row], ratio="<= 2"))
    assert "- ratio 2.5 (at most 2): **missed**" in said
    assert said.endswith("**A target was missed.**")
    assert tables.plain(run([row], ratio="<= 3")).endswith("All targets met.")


def test_quick_and_partial_runs_overwrite_nothing_that_documents_are_made_of(tmp_path: Path) -> None:
    quick = argparse.Namespace(quick=True, out=None)
    whole = argparse.Namespace(quick=False, out=None)
    assert record.place(quick, "core") == record.RESULTS / "quick" / "core.json"
    assert record.place(whole, "core", partial=True) == record.RESULTS / "quick" / "core.json"
    assert record.place(whole, "core") == record.RESULTS / "core.json"
    assert record.place(argparse.Namespace(quick=True, out=tmp_path), "core") == tmp_path


@pytest.mark.parametrize("name", sorted(door.BENCHES.keys() - {"overhead", "docs"}))
def test_every_bench_can_be_quick(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        door.main([name, "--help"])
    assert ended.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_overhead_runs_all_and_is_as_bad_as_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[str]()

    def module(name: str) -> argparse.Namespace:
        ran.append(name)
        return argparse.Namespace(main=lambda given: int(name == "bench.wire" and given == ["--quick"]))

    monkeypatch.setattr(door, "import_module", module)
    assert door.main(["overhead", "--quick"]) == 1
    assert ran == ["bench.core", "bench.admission", "bench.wire", "bench.dropin", "bench.mock_ceiling"]
    assert door.main(["overhead"]) == 0


def test_clients_are_compared_round_by_round() -> None:
    # The second round met a machine half as fast: medians of each client alone would say 0.6.
    found = {"bare": [(100.0, 10.0), (50.0, 20.0), (100.0, 10.0)], "ours": [(80.0, 12.0), (40.0, 25.0), (60.0, 12.0)]}
    bare, ours = wire.rows_of(found)
    assert (bare["per_second"], bare["lowest"], bare["highest"]) == (100, 50, 100)
    assert (ours["to_bare"], ours["cpu_us_more"]) == (0.8, 2.0)
    assert "to_sdk" not in ours  # so the run misses that target, and says "not measured"


def test_the_drop_in_is_compared_round_by_round() -> None:
    found = {dropin.BARE: [(100.0, 10.0), (50.0, 20.0)], dropin.OURS: [(90.0, 11.0), (40.0, 26.0)]}
    assert dropin.rows_of(found)[1] | {"what": ""} == {
        "what": "",
        "per_second": 65,
        "cpu_us": 18,
        "more_cpu": 0.2,
        "less_throughput": 0.15,
    }


def test_the_mock_is_compared_by_processor_time() -> None:
    def seen(cost: float) -> list[mock_ceiling.Measured]:
        return [mock_ceiling.Measured(1000.0, cost, 1.0, 900, 13)]

    mine = mock_ceiling.rows_of({"mock": seen(50.0), "handler": seen(20.0), "application": seen(30.0)})[0]
    assert (mine["to_application"], mine["to_handler"], mine["per_core_second"]) == (0.6, 0.4, 20_000)


def test_turns_are_compared_with_the_acquires_of_their_rounds() -> None:
    seen = {"acquire": [1.0, 2.0, 1.0], "reserve and settle": [1.5, 3.0, 3.0], "with sent": [4.0, 8.0, 4.0]}
    _, turn, sent = core.rows_of(seen)
    assert (turn["ratio"], turn["lowest"], turn["highest"]) == (1.5, 1.5, 3.0)
    assert sent["times"] == 4.0
    assert "ratio" not in sent  # shown, and not judged


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ERROR: Ignored the following: 1.0 Requires-Python >=3.99; 2.0 Requires-Python >=3.99\nERROR: none", ">=3.99"),
        ("noise\nERROR: No matching distribution found for x\n", "No matching distribution found for x"),
        ("Traceback\nOSError: disk full\n", "OSError: disk full"),
        ("", "no reason given"),
    ],
)
def test_an_environment_that_cannot_be_had_says_why(said: str, why: str) -> None:
    assert why in envs.reason(said)


def test_growth_is_from_the_fewest_to_the_most() -> None:
    rows = [{"what": "requests", "us_per_request": cost} for cost in (100.0, 500.0, 150.0)]
    assert scale.growth(rows) == 1.5


def test_growth_in_time_leaves_out_the_first_quarter() -> None:
    assert soak.Looks.growth([1.0, 10.0, 99.0, 20.0]) == 2.0


def test_what_sharing_costs_is_beside_what_a_ledger_costs_alone() -> None:
    rows: list[record.Row] = [{"store": "off", "cpu_us": 80.0}, {"store": "file", "cpu_us": 120.0}, {"store": "file"}]
    assert shared.compared(rows) == [
        {"store": "off", "cpu_us": 80.0},
        {"store": "file", "cpu_us": 120.0, "cpu_us_more": 40.0, "to_alone": 1.5},
        {"store": "file"},
    ]


@pytest.mark.parametrize(("bound", "amount"), [("RPM", 750), ("TPM", 300_000)])
def test_what_programs_used_together_is_of_what_their_limit_refills(bound: str, amount: float) -> None:
    scene = scenes.Scene(server.Mock("http://nowhere"), bound, {}, 9.0)
    start, end = scenes.Mark(100.0, 0, 50.0), scenes.Mark(109.0, 0, 50.0 + amount)
    assert scene.used(start, end) == pytest.approx(1.0)  # of 5,000 requests and 2,000,000 tokens a minute
