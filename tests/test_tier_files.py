"""Files of limits over the shipped table: what they change and what they leave."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from ratelimit.limits.tiers import TIERS, Model, Prices, Source, Table, TierLimits, load

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "tiers.md").read_text(), re.DOTALL)
MINI = load().find("gpt-4o-mini")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ratelimit.toml"


def over(file: Path, text: str) -> Table:
    file.write_text(text, encoding="utf-8")
    return load(file)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[settings]\ntier = 5\nanything = [1]\n", "[models]\n"])
def test_a_file_that_says_nothing_of_models_changes_nothing(file: Path, text: str) -> None:
    assert over(file, text) == load()


def test_a_mark_of_the_byte_order_and_windows_line_ends_are_nothing_wrong(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[models.gpt-4o-mini.tiers.tier-1]\r\nrpm = 600\r\n")
    assert load(file).on("gpt-4o-mini", "tier-1").rpm == 600


def test_one_figure_changes_and_the_others_stay(file: Path) -> None:
    table = over(file, "[models.gpt-4o-mini.tiers.tier-1]\nrpm = 600\n")
    assert table.on("gpt-4o-mini", "tier-1") == TierLimits(600, 10_000, 200_000, 2_000_000)
    assert table.on("gpt-4o-mini", "tier-2") == MINI.tiers["tier-2"]
    changed = table.find("gpt-4o-mini")
    assert (changed.prices, changed.snapshots) == (MINI.prices, MINI.snapshots)
    assert {name: each for name, each in table.models.items() if name != "gpt-4o-mini"} == {
        name: each for name, each in load().models.items() if name != "gpt-4o-mini"
    }


def test_the_shipped_table_is_not_touched_by_a_file_over_it(file: Path) -> None:
    over(file, "[models.gpt-4o-mini.tiers.tier-1]\nrpm = 600\n")
    assert load().on("gpt-4o-mini", "tier-1").rpm == 500


def test_a_changed_group_says_which_file_changed_it_and_the_others_keep_their_source(file: Path) -> None:
    sources = over(file, "[models.gpt-4o-mini]\nmax_output = 8_000\nlimits = { rpm = 9 }\n").find("gpt-4o-mini").sources
    before = MINI.sources["limits"]
    changed = Source(f"{before.text}; changed in ratelimit.toml", before.as_of, before.grade)
    assert sources == {"limits": changed, "sizes": changed, "prices": MINI.sources["prices"]}


def test_none_takes_a_limit_away(file: Path) -> None:
    table = over(file, '[models.gpt-4o-mini.tiers]\ntier-1 = { rpd = "none", batch_queue = "none" }\n')
    assert table.on("gpt-4o-mini", "tier-1") == TierLimits(500, None, 200_000, None)


def test_not_supported_and_back(file: Path) -> None:
    table = over(file, '[models.gpt-4o-mini.tiers]\nfree = "not supported"\n[models.o4-mini.tiers]\nfree.rpm = 3\n')
    assert table.find("gpt-4o-mini").tiers["free"] is None
    assert table.on("o4-mini", "free") == TierLimits(3)


def test_tiers_stand_in_their_order_whichever_came_first(file: Path) -> None:
    assert tuple(over(file, "[models.gpt-5.tiers.free]\nrpm = 3\n").find("gpt-5").tiers) == TIERS


def test_limits_for_every_tier_leave_those_without_the_model_without_it(file: Path) -> None:
    table = over(file, "[models.o4-mini]\nlimits.rpm = 7\ntiers.tier-5.rpm = 8\n[models.new]\nlimits.tpm = 9\n")
    assert [each and each.rpm for each in table.find("o4-mini").tiers.values()] == [None, 7, 7, 7, 7, 8]
    assert table.on("o4-mini", "tier-1") == TierLimits(7, None, 100_000, 1_000_000)
    assert table.find("new").tiers == dict.fromkeys(TIERS, TierLimits(tpm=9))


def test_a_model_that_is_new(file: Path) -> None:
    table = over(
        file,
        """
        [sources.us]
        text = "our account"
        as_of = 2027-03-02
        grade = "observed"
        [models.m]
        snapshots = ["m-0301"]
        aliases = ["n"]
        context_window = 10
        max_output = 5
        endpoints = ["chat/completions"]
        reasoning = true
        prices = { input = 1, output = 2.5 }
        sources = { limits = "us" }
        notes = ["hm"]
        tiers.tier-2 = { rpm = 1 }
        tiers.tier-1 = { rpm = "none" }
        """,
    )
    assert table.find("ft:m-0301:org::id") == Model(
        name="m",
        snapshots=("m-0301",),
        aliases=("n",),
        context_window=10,
        max_output=5,
        prices=Prices(1.0, None, 2.5),
        endpoints=("chat/completions",),
        reasoning=True,
        tiers={"tier-1": TierLimits(), "tier-2": TierLimits(1)},
        sources={
            "limits": Source("our account", date(2027, 3, 2), "observed"),
            "sizes": Source("ratelimit.toml"),
            "prices": Source("ratelimit.toml"),
        },
        notes=("hm",),
    )
    assert list(table.find("n").tiers) == ["tier-1", "tier-2"]


def test_one_price_changes_and_the_others_stay(file: Path) -> None:
    table = over(file, '[models.gpt-4o-mini.prices]\ninput = 0\ncached_input = "none"\n')
    assert table.find("gpt-4o-mini").prices == Prices(0.0, None, 0.60, 0.5, 0.30, 1.20, 0.30)


def test_lists_are_replaced_so_that_a_snapshot_can_become_a_model_of_its_own(file: Path) -> None:
    table = over(
        file,
        """
        [models.gpt-4o]
        snapshots = ["gpt-4o-2024-08-06"]
        [models.gpt-4o-2024-05-13]
        limits.rpm = 5
        """,
    )
    assert table.find("gpt-4o-2024-08-06").name == "gpt-4o"
    assert table.find("gpt-4o-2024-05-13").name == "gpt-4o-2024-05-13"


def test_a_fine_tuned_model_with_limits_of_its_own(file: Path) -> None:
    table = over(file, '[models."ft:gpt-4o-mini:org::id".limits]\nrpm = 5\n')
    assert table.on("ft:gpt-4o-mini:org::id", "tier-1") == TierLimits(5)
    assert table.find("ft:gpt-4o-mini:org::other").name == "gpt-4o-mini"


def test_a_provider_and_its_later_address(file: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.toml"
    later.write_text('[providers.groq]\nbase_url = "http://localhost:8080/v1"\n')
    table = over(
        file,
        """
        [models.l]
        provider = "groq"
        limits.rpm = 1
        [providers.groq]
        base_url = "https://api.groq.com/openai/v1/"
        """,
    )
    assert (table.find("l").provider, table.find("l").base_url) == ("groq", "https://api.groq.com/openai/v1")
    assert table.find("gpt-4o").base_url is None
    assert load(file, later).find("l").base_url == "http://localhost:8080/v1"


def test_the_later_file_counts(file: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.toml"
    later.write_text("[models.gpt-4o-mini.tiers.tier-1]\nrpm = 7\n")
    file.write_text("[models.gpt-4o-mini.tiers.tier-1]\nrpm = 6\nrpd = 60\n")
    assert load(file, later).on("gpt-4o-mini", "tier-1") == TierLimits(7, 60, 200_000, 2_000_000)
    assert load(later, file).on("gpt-4o-mini", "tier-1") == TierLimits(6, 60, 200_000, 2_000_000)


def test_the_long_part_of_a_model_follows_it_unless_told_otherwise(file: Path) -> None:
    table = over(
        file,
        """
        [models."gpt-4.1"]
        max_output = 11
        prices.output = 99
        [models."gpt-4.1-mini-long-context"]
        max_output = 12
        """,
    )
    long = table.find("gpt-4.1-long-context")
    assert (long.max_output, long.prices and long.prices.output) == (11, 99.0)
    assert table.find("gpt-4.1-mini-long-context").max_output == 12
    assert table.find("gpt-4.1-mini").max_output == 32_768


def test_the_document_has_blocks() -> None:
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("block", BLOCKS)
def test_the_blocks_of_the_document_are_files_that_work(file: Path, block: str) -> None:
    assert len(over(file, block).models) >= len(load().models)
