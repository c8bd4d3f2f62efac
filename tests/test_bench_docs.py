"""Figures in documents are those in `bench/results/`, and every kept result is a whole record."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench import caps, cells, docs, plots, record, tables
from bench.__main__ import BENCHES, main
from bench.peers import driver, scenarios
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import load

ROOT = Path(__file__).parent.parent
RESULTS = sorted(record.RESULTS.glob("*.json"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The documents and the results, to be spoilt."""
    (tmp_path / "docs").mkdir()
    for page in docs.documents(ROOT):
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    shutil.copytree(record.RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("quick"))
    for file, text in docs.pages(tmp_path, tmp_path / "results").items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def test_documents_say_what_the_results_say() -> None:
    assert docs.differing() == []


def test_a_figure_that_changes_is_noticed_in_every_document(copy: Path) -> None:
    assert docs.differing(copy, copy / "results") == []
    file = copy / "results" / "caps-virtual.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    for row in raw["rows"]:
        row["utilisation"] = 0.5
    file.write_text(json.dumps(raw), encoding="utf-8")
    made = ["README.md", "docs/benchmarks.md", "docs/plots/counting.svg"]
    assert docs.differing(copy, copy / "results") == [copy / name for name in made]


def test_a_figure_changed_by_hand_is_noticed(copy: Path) -> None:
    page = copy / "README.md"
    page.write_text(page.read_text("utf-8").replace(" of the cap used", "% of the cap used"), encoding="utf-8")
    assert docs.differing(copy, copy / "results") == [page]


def test_the_check_says_what_to_do(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "differing", lambda: [ROOT / "README.md"])
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md does not say what bench/results does; run python -m bench docs\n"


def test_prose_has_no_figure_of_a_result_outside_the_markers() -> None:
    for page in docs.documents(ROOT):
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- bench") == text.count("<!-- /bench -->") > 0


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_kept_result_says_where_it_comes_from(file: Path) -> None:
    kept = record.Record.read(file)
    assert kept.rows
    assert kept.command.startswith(("python ", "bench/"))
    assert kept.machine
    assert kept.versions["python"]


def test_every_result_has_a_place_in_the_document() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in docs.documents(ROOT))
    placed = [file.stem for file in RESULTS if not file.stem.startswith("caps-virtual-")]
    assert [name for name in placed if f"<!-- bench:{name} -->" not in text] == []


def test_a_table_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no table is called 'speed'; choose one of caps-other, caps-virtual, "):
        docs.filled("<!-- bench:speed -->\n<!-- /bench -->", {})


def test_a_result_nobody_has_yet_names_its_command() -> None:
    filled = docs.filled("<!-- bench:caps-real -->\nold\n<!-- /bench -->", {})
    assert filled == (
        "<!-- bench:caps-real -->\nNo run is kept; `python -m bench caps --real` makes one.\n<!-- /bench -->"
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = record.Record("x", [{"a": 1}, {"a": 2.5}], {"a": "<= 3"}, command="python -m bench x", seed=7)
    kept.write(tmp_path / "x.json")
    assert record.Record.read(tmp_path / "x.json") == kept


def test_throughput_is_counted_from_one_admission_to_another() -> None:
    admitted = [(0.0, 50.0), (59.0, 7.0), (61.0, 100.0), (62.0, 10.0), (64.0, 20.0)]
    assert cells.throughput(admitted, 60.0) == (30.0, 3.0)


def test_waiting_is_counted_from_the_fluid_bound_of_the_slowest_limit() -> None:
    limits = [Limit("requests", 60, MINUTE), Limit("tokens", 600, MINUTE)]
    # 60 requests and 600 tokens are there at once; then one request or ten tokens a second.
    admitted = [(0.5, 300.0), (1.0, 300.0), (10.0, 50.0)]
    assert cells.beyond(admitted, limits) == pytest.approx([0.5, 1.0, 5.0])


def test_every_cell_of_the_table_is_played() -> None:
    table = load()
    expected = {
        (model.name, tier, bound)
        for model in table.models.values()
        for tier, limits in model.tiers.items()
        if limits is not None
        for bound, amount in (("RPM", limits.rpm), ("TPM", limits.tpm), ("RPD", limits.rpd))
        if amount
    }
    groups = caps.alike(caps.every_cell(), apart=False)
    assert {(cell.model.name, cell.tier, cell.bound) for group in groups for cell in group} == expected
    for first, *others in groups:
        assert all(cell.amount("RPM") == first.amount("RPM") for cell in others)
        assert all(cell.amount("RPD") == first.amount("RPD") for cell in others)


@pytest.mark.parametrize("bound", ["RPM", "RPD"])
def test_a_cell_that_is_filled_uses_its_cap(bound: str) -> None:
    limits = (Limit("requests", 30, MINUTE), Limit("requests", 2000, DAY))
    setting = cells.Setting(opening=DAY, horizon=2 * DAY) if bound == "RPD" else cells.Setting(horizon=300.0)
    played = cells.play(limits, bound, setting)
    assert played is not None
    assert not record.Record("caps", [played], caps.targets("bucket"), "").missed
    assert played["refused"] == 0


@pytest.mark.parametrize(
    ("enforce", "played", "verdict"),
    [
        ("bucket", {"utilisation": 0.995, "refused": 0, "refused_late": 0}, True),
        ("bucket", {"utilisation": 0.9949, "refused": 0, "refused_late": 0}, False),
        ("bucket", {"utilisation": 1.0, "refused": 1, "refused_late": 0}, False),
        ("sliding", {"utilisation": 0.9, "refused": 5, "refused_late": 0}, True),
        ("sliding", {"utilisation": 1.0, "refused": 5, "refused_late": 1}, False),
    ],
)
def test_what_passes(enforce: str, played: dict[str, float], verdict: bool) -> None:
    assert record.Record("caps", [played], caps.targets(enforce), "").passed is verdict


def rows(*found: tuple[str, float, float, int]) -> list[record.Row]:
    return [
        {
            "scenario": "s",
            "peer": peer,
            "bound_to_wall": use,
            "refused_per_1000": refused,
            "lost": lost,
            "unfinished": 0,
            "sent_twice": 0,
        }
        for peer, use, refused, lost in found
    ]


@pytest.mark.parametrize(
    ("others", "first", "fewest"),
    [
        ([("a", 0.90, 0.0, 0)], True, True),
        ([("a", 0.909, 0.0, 0)], True, True),  # as good as equal
        ([("a", 0.95, 0.0, 0)], False, True),
        ([("a", 0.95, 0.0, 3)], True, True),  # it was fast because it gave up
        ([("a", 0.95, 9.0, 0), ("b", 0.1, 1.0, 0)], False, True),
    ],
)
def test_who_is_first(others: list[tuple[str, float, float, int]], first: bool, fewest: bool) -> None:
    found = rows(("ratelimit", 0.9, 0.5 if others[0][2] else 0.0, 0), *others)
    driver.judge(found)
    kept = record.Record("peers", found, driver.TARGETS, "")
    assert [record.meets(found[0], name, kept.targets[name]) for name in ("behind", "more_refused")] == [first, fewest]
    assert kept.passed is (first and fewest)  # the others are not judged, whatever they lose


def test_every_bench_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed"]) == 2
    assert capsys.readouterr().err == f"there is no bench 'speed'; choose one of {', '.join(BENCHES)}\n"
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in BENCHES if f"\n  {name} " not in told] == []


def test_a_percentage_is_not_rounded_up() -> None:
    assert tables.percent(0.99999) == "99.99 %"
    assert tables.percent(1.00147) == "100.14 %"


def test_text_in_plots_is_escaped() -> None:
    assert "a &lt; b" in plots.bars("a < b", {"g": {"n": 0.5}})
    assert "<circle" in plots.lines("t", "x", {"n": [(10, 1.0), (1000, 2.0)]})


def test_scenarios_say_how_long_they_take_at_best() -> None:
    found = {each.name: each for each in scenarios.scenarios()}
    assert found["rpm"].bound == 46.0  # 450 requests at ten a second, and an answer
    assert found["quantised"].bound == 46.0
    assert found["rival"].bound == pytest.approx(46.0, abs=0.1)
    assert found["short"].bound == 1.0
