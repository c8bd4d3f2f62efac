"""The table that ships, figure by figure where it is the reference, and how a model is found in it by its names."""

from __future__ import annotations

import itertools
import pickle
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from ratelimit.errors import ModelNotInTier, UnknownModel, UnknownTier
from ratelimit.limits import tiers
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import TIERS, Model, Prices, Source, Table, TierLimits, load, shipped_path

NONE = None

# The two model pages this project is checked against: RPM, RPD, TPM, batch queue.
REFERENCE = {
    "gpt-4o-mini": {
        "free": TierLimits(3, 200, 40_000, NONE),
        "tier-1": TierLimits(500, 10_000, 200_000, 2_000_000),
        "tier-2": TierLimits(5_000, NONE, 2_000_000, 20_000_000),
        "tier-3": TierLimits(5_000, NONE, 4_000_000, 40_000_000),
        "tier-4": TierLimits(10_000, NONE, 10_000_000, 1_000_000_000),
        "tier-5": TierLimits(30_000, NONE, 150_000_000, 15_000_000_000),
    },
    "o4-mini": {
        "free": None,
        "tier-1": TierLimits(1_000, NONE, 100_000, 1_000_000),
        "tier-2": TierLimits(2_000, NONE, 2_000_000, 2_000_000),
        "tier-3": TierLimits(5_000, NONE, 4_000_000, 40_000_000),
        "tier-4": TierLimits(10_000, NONE, 10_000_000, 1_000_000_000),
        "tier-5": TierLimits(30_000, NONE, 150_000_000, 15_000_000_000),
    },
}

NAMES = """
gpt-4o-mini o4-mini gpt-4o o1 o1-pro o3 o3-pro gpt-5-pro gpt-4.1 gpt-4.1-long-context gpt-4.1-mini
gpt-4.1-mini-long-context gpt-4.1-nano gpt-4.1-nano-long-context o3-mini gpt-5 gpt-5.1 gpt-5.2 gpt-5.4 gpt-5.6-sol
gpt-6-astra gpt-5.6-terra gpt-5-mini gpt-5.4-mini gpt-5.6-luna gpt-5-nano gpt-5-chat-latest gpt-5.1-chat-latest
gpt-5.2-chat-latest gpt-5.3-chat-latest chat-latest text-embedding-3-small text-embedding-3-large
text-embedding-ada-002 gpt-4-turbo gpt-4 gpt-3.5-turbo omni-moderation
"""
FAMILIES = NAMES.split()

# One model of each published table, and a second where several share one: RPM, RPD, TPM, batch queue.
PUBLISHED = [
    ("gpt-4o", "tier-1", (500, NONE, 30_000, 90_000)),
    ("gpt-4o", "tier-2", (5_000, NONE, 450_000, 1_350_000)),
    ("gpt-4o", "tier-3", (5_000, NONE, 800_000, 50_000_000)),
    ("o3", "tier-4", (10_000, NONE, 2_000_000, 200_000_000)),
    ("gpt-5-pro", "tier-5", (10_000, NONE, 30_000_000, 5_000_000_000)),
    ("gpt-4.1", "free", (3, 200, 10_000, NONE)),
    ("gpt-4.1", "tier-1", (500, NONE, 30_000, 90_000)),
    ("gpt-4.1-long-context", "tier-1", (100, NONE, 200_000, 2_000_000)),
    ("gpt-4.1-long-context", "tier-4", (1_000, NONE, 5_000_000, 100_000_000)),
    ("gpt-4.1-mini", "free", (3, 200, 60_000, NONE)),
    ("gpt-4.1-mini", "tier-1", (500, 10_000, 200_000, 2_000_000)),
    ("gpt-4.1-nano", "tier-5", (30_000, NONE, 150_000_000, 15_000_000_000)),
    ("gpt-4.1-mini-long-context", "tier-1", (200, NONE, 400_000, 5_000_000)),
    ("gpt-4.1-nano-long-context", "tier-5", (8_000, NONE, 20_000_000, 2_000_000_000)),
    ("o3-mini", "tier-2", (2_000, NONE, 200_000, 2_000_000)),
    ("gpt-5", "tier-1", (500, NONE, 500_000, 1_500_000)),
    ("gpt-6-astra", "tier-5", (15_000, NONE, 40_000_000, 15_000_000_000)),
    ("gpt-5.6-terra", "tier-3", (5_000, NONE, 2_000_000, 100_000_000)),
    ("gpt-5-mini", "tier-1", (500, NONE, 500_000, 5_000_000)),
    ("gpt-5.6-luna", "tier-5", (30_000, NONE, 180_000_000, 15_000_000_000)),
    ("gpt-5-nano", "tier-1", (500, NONE, 200_000, 2_000_000)),
    ("chat-latest", "tier-1", (500, NONE, 30_000, 50_000)),
    ("gpt-5.2-chat-latest", "tier-3", (5_000, NONE, 800_000, 100_000_000)),
    ("text-embedding-3-small", "free", (100, 2_000, 40_000, NONE)),
    ("text-embedding-3-large", "tier-4", (10_000, NONE, 5_000_000, 500_000_000)),
    ("gpt-4-turbo", "tier-5", (10_000, NONE, 2_000_000, 300_000_000)),
    ("gpt-4", "tier-1", (500, 10_000, 10_000, 100_000)),
    ("gpt-4", "tier-2", (5_000, NONE, 40_000, NONE)),
    ("gpt-3.5-turbo", "tier-2", (5_000, NONE, 2_000_000, 5_000_000)),
    ("omni-moderation", "tier-3", (1_000, NONE, 50_000, NONE)),
]


@pytest.fixture(scope="module")
def table() -> Table:
    return load()


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_tables_are_there_figure_by_figure(table: Table, name: str) -> None:
    assert table.find(name).tiers == REFERENCE[name]


def test_the_reference_models_sizes_and_prices(table: Table) -> None:
    mini, o4 = table.find("gpt-4o-mini"), table.find("o4-mini")
    assert (mini.context_window, mini.max_output, mini.reasoning) == (128_000, 16_384, False)
    assert mini.prices == Prices(0.15, 0.075, 0.60, 0.5, 0.30, 1.20, 0.30)
    assert mini.snapshots == ("gpt-4o-mini-2024-07-18",)
    assert mini.endpoints == ("chat/completions", "responses", "batch", "fine-tuning")
    assert (o4.context_window, o4.max_output, o4.reasoning) == (200_000, 100_000, True)
    assert o4.prices == Prices(1.10, 0.275, 4.40, 0.5)
    assert o4.snapshots == ("o4-mini-2025-04-16",)


def test_every_family_is_there_and_no_other(table: Table) -> None:
    assert sorted(table.models) == sorted(FAMILIES)
    assert {name: model.name for name, model in table.models.items()} == {name: name for name in FAMILIES}


@pytest.mark.parametrize(("name", "tier", "figures"), PUBLISHED)
def test_published_figures(
    table: Table, name: str, tier: str, figures: tuple[int | None, int | None, int | None, int | None]
) -> None:
    assert table.on(name, tier) == TierLimits(*figures)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_group_of_figures_says_where_it_is_from_and_as_of_when(table: Table, name: str) -> None:
    model = table.find(name)
    groups = {"limits"}
    groups |= {"sizes"} if model.context_window or model.max_output else set()
    groups |= {"prices"} if model.prices else set()
    assert set(model.sources) == groups
    for source in model.sources.values():
        assert source.text
        assert source.as_of is not None
        assert date(2024, 1, 1) < source.as_of < date(2027, 1, 1)
        assert source.grade in {"documented", "observed", "inferred"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_higher_tier_allows_no_less(table: Table, name: str) -> None:
    known = [limits for tier in TIERS[1:] if (limits := table.find(name).tiers.get(tier))]
    for lower, higher in itertools.pairwise(known):
        assert (higher.rpm or 0) >= (lower.rpm or 0)
        assert (higher.tpm or 0) >= (lower.tpm or 0)


def test_the_first_and_the_last_paid_tier_are_known_for_every_model(table: Table) -> None:
    for model in table.models.values():
        assert model.tiers["tier-1"] is not None, model.name
        assert model.tiers["tier-5"] is not None, model.name


@pytest.mark.parametrize(
    ("asked", "family"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-05-13", "gpt-4o"),
        ("gpt-4o-audio-preview", "gpt-4o"),
        ("gpt-4o-audio-preview-2025-06-03", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-turbo-preview", "gpt-4-turbo"),
        ("gpt-5.6", "gpt-5.6-sol"),
        ("omni-moderation-latest", "omni-moderation"),
        ("gpt-5-2031-01-31", "gpt-5"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:org:mine:id:ckpt-step-100", "gpt-4o-mini"),
        ("ft:gpt-4o-mini:org::id", "gpt-4o-mini"),
        ("ft:gpt-4o-mini", "gpt-4o-mini"),
        ("ft:gpt-4.1-nano-2030-01-01:org::id", "gpt-4.1-nano"),
    ],
)
def test_a_model_is_found_by_all_its_names(table: Table, asked: str, family: str) -> None:
    assert table.find(asked).name == family


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "gpt-4o-mimi",
            (
                'no table has limits for the model "gpt-4o-mimi"; did you mean gpt-4o-mini or gpt-5.4-mini or '
                "gpt-4.1-mini? If not, give its limits in ratelimit.toml under [models.gpt-4o-mimi.tiers.tier-1], "
                "such as rpm = 500"
            ),
        ),
        (
            "llama-3.3/70b",
            (
                'no table has limits for the model "llama-3.3/70b"; give its limits in ratelimit.toml under '
                '[models."llama-3.3/70b".tiers.tier-1], such as rpm = 500'
            ),
        ),
        (
            'a\x1b[31m"\\',
            (
                'no table has limits for the model "a\\x1b[31m"\\"; give its limits in ratelimit.toml under '
                '[models."a\\x1b[31m\\"\\\\".tiers.tier-1], such as rpm = 500'
            ),
        ),
        (
            "ft:gpt-9:org::id",
            (
                'no table has limits for the model "ft:gpt-9:org::id"; '
                "did you mean gpt-5 or gpt-4 or gpt-4o? If not, give its "
                'limits in ratelimit.toml under [models."ft:gpt-9:org::id".tiers.tier-1], such as rpm = 500'
            ),
        ),
        (
            "",
            (
                'no table has limits for the model ""; give its limits in ratelimit.toml under '
                '[models."".tiers.tier-1], such as rpm = 500'
            ),
        ),
    ],
)
def test_a_model_in_no_table_is_refused_with_what_it_may_be(table: Table, asked: str, message: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        table.find(asked)
    assert str(refused.value) == message
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "asked", ["gpt-4o-mini-2024", "gpt-4o-2024-05-13-x", "gpt-4o-mini-", "xgpt-4o", "ft:", "ft::gpt-4o", "gpt-4o:org"]
)
def test_a_name_that_only_begins_or_ends_like_a_models_is_not_that_model(table: Table, asked: str) -> None:
    with pytest.raises(UnknownModel):
        table.find(asked)


def test_a_very_long_name_is_refused_in_no_time_and_few_words(table: Table) -> None:
    with pytest.raises(UnknownModel) as refused:
        table.find("gpt-4o" * 100_000)
    assert len(str(refused.value)) < 500


def test_what_a_strange_name_is_near_to_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for = []

    def counted(name: str, *_: object, **__: object) -> list[str]:
        looked_for.append(name)
        return []

    monkeypatch.setattr("difflib.get_close_matches", counted)
    fresh = Table({})
    for name in ["gpt-9", "gpt-9", "ft:gpt-9:org", "x" * 1_000, "x" * 2_000, *map(str, range(2_000))]:
        with pytest.raises(UnknownModel):
            fresh.find(name)
    assert looked_for == ["gpt-9", "x" * 100, *map(str, range(2_000))]
    assert len(fresh._near) == 1_000


def test_limits_are_the_rates_and_not_the_batch_queue(table: Table) -> None:
    assert table.limits("ft:gpt-4o-mini-2024-07-18:org::id", "tier-1") == (
        Limit("requests", 500, MINUTE),
        Limit("requests", 10_000, DAY),
        Limit("tokens", 200_000, MINUTE),
    )
    assert table.limits("o4-mini", "tier-2") == (Limit("requests", 2_000, MINUTE), Limit("tokens", 2_000_000, MINUTE))


@pytest.mark.parametrize(
    ("name", "tier", "message"),
    [
        (
            "o4-mini-2025-04-16",
            "free",
            (
                "o4-mini cannot be used on free; the lowest tier that can is tier-1: choose it, or give this tier's "
                "limits in ratelimit.toml under [models.o4-mini.tiers.free]"
            ),
        ),
        (
            "gpt-5.4",
            "free",
            (
                "nobody has said what free allows for gpt-5.4; "
                "the lowest tier with figures is tier-1: choose it, or give "
                'this tier\'s limits in ratelimit.toml under [models."gpt-5.4".tiers.free]'
            ),
        ),
        (
            "shut",
            "tier-1",
            (
                "shut cannot be used on tier-1; no tier can: give this tier's limits in ratelimit.toml under "
                "[models.shut.tiers.tier-1]"
            ),
        ),
    ],
)
def test_a_tier_without_the_model_names_the_lowest_that_has_it(
    table: Table, name: str, tier: str, message: str
) -> None:
    known = Table({**table.models, "shut": Model("shut", tiers={"tier-1": None})})
    with pytest.raises(ModelNotInTier) as refused:
        known.limits(name, tier)
    assert str(refused.value) == message
    assert refused.value.exit_code == 2


def test_a_tier_that_does_not_exist_is_refused(table: Table) -> None:
    with pytest.raises(UnknownTier) as refused:
        table.limits("gpt-4o", "tier\n6")
    assert str(refused.value) == (
        'there is no usage tier "tier\\n6"; choose one of free, tier-1, tier-2, tier-3, tier-4, tier-5'
    )
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("asked", "tokens", "family"),
    [
        ("gpt-4.1", 128_000, "gpt-4.1"),
        ("gpt-4.1", 128_001, "gpt-4.1-long-context"),
        ("gpt-4.1-nano-2025-04-14", 500_000, "gpt-4.1-nano-long-context"),
        ("gpt-4.1-long-context", 5, "gpt-4.1-long-context"),
        ("gpt-5.4", 900_000, "gpt-5.4"),
    ],
)
def test_long_requests_count_against_limits_of_their_own(table: Table, asked: str, tokens: int, family: str) -> None:
    assert table.for_input(asked, tokens).name == family


def test_a_long_context_family_is_the_same_model(table: Table) -> None:
    base, long = table.find("gpt-4.1"), table.find("gpt-4.1-long-context")
    assert (long.long_context_of, long.long_context_over) == ("gpt-4.1", 128_000)
    assert (long.context_window, long.max_output, long.prices) == (1_047_576, 32_768, base.prices)
    assert (long.endpoints, long.reasoning) == (base.endpoints, base.reasoning)


def test_the_file_is_read_once() -> None:
    assert load() is load()


def test_a_table_can_be_sent_to_another_process(table: Table) -> None:
    assert pickle.loads(pickle.dumps(table)) == table


def test_a_source_without_more_is_the_users() -> None:
    assert Source("mine") == Source("mine", None, "yours")


def test_the_names_of_a_model_start_with_its_own() -> None:
    assert Model("m", ("m-1",), ("n",)).names == ("m", "n", "m-1")


def test_the_table_is_found_inside_a_package_that_carries_it_and_beside_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "ratelimit" / "limits" / "tiers.py"
    monkeypatch.setattr(tiers, "__file__", str(module))
    assert shipped_path() == tmp_path / "config" / "tiers.toml"
    module.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parent.parent / "config" / "tiers.toml", tmp_path / "ratelimit" / "tiers.toml")
    assert shipped_path() == tmp_path / "ratelimit" / "tiers.toml"


def test_plain_values_come_without_pydantic() -> None:
    code = "import sys; import ratelimit.limits.tiers; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
