"""Settings become objects: what each lane may do, where requests go, and who they say they are from."""

from __future__ import annotations

import pytest

from ratelimit.admission.scheduler import LimitStatus, Scheduler
from ratelimit.compose import (
    limits_of,
    make_client,
    make_endpoint,
    make_scheduler,
    make_sender,
    make_table,
    open_client,
)
from ratelimit.errors import ModelNotInTier, NoKey
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.secret import Secret
from ratelimit.settings import Settings

KEYED = Settings(api_key=Secret("sk-canary"))


def test_a_lane_may_do_what_its_tier_documents() -> None:
    limits = limits_of(Settings(tier="tier-1"), make_table(Settings()))
    assert set(limits("gpt-4o-mini")) == {
        Limit("requests", 500, MINUTE),
        Limit("requests", 10_000, DAY),
        Limit("tokens", 200_000, MINUTE),
    }


def test_a_cap_of_ones_own_takes_the_place_of_the_tables_and_is_marked_so() -> None:
    limits = limits_of(Settings(rpm=600, tpm=1000), make_table(Settings()))
    assert set(limits("o4-mini")) == {
        Limit("requests", 600, MINUTE, own=True),
        Limit("tokens", 1000, MINUTE, own=True),
    }


def test_a_daily_cap_of_ones_own_comes_on_top_where_the_table_has_none() -> None:
    assert Limit("requests", 50, DAY, own=True) in limits_of(Settings(rpd=50), make_table(Settings()))("o4-mini")


def test_a_model_outside_the_tier_is_an_error_before_anything_is_sent() -> None:
    with pytest.raises(ModelNotInTier):
        list(limits_of(Settings(tier="free"), make_table(Settings()))("o4-mini"))


def test_the_key_and_the_organization_go_into_headers() -> None:
    endpoint = make_endpoint(Settings(api_key=Secret("sk-canary"), organization="org-a", project="proj_b"))
    assert dict(endpoint.headers) == {
        "Authorization": "Bearer sk-canary",
        "OpenAI-Organization": "org-a",
        "OpenAI-Project": "proj_b",
    }
    assert not endpoint.query
    assert not endpoint.deployments
    assert "canary" not in repr(endpoint)


def test_azure_has_its_own_header_and_path() -> None:
    endpoint = make_endpoint(
        Settings(api_key=Secret("k"), base_url="https://a.example/openai", azure_api_version="2024-10-21")
    )
    assert dict(endpoint.headers) == {"api-key": "k"}
    assert dict(endpoint.query) == {"api-version": "2024-10-21"}
    assert endpoint.deployments


def test_the_public_service_is_not_asked_without_a_key() -> None:
    with pytest.raises(NoKey) as raised:
        make_endpoint(Settings())
    assert str(raised.value) == (
        "api.openai.com wants an API key and none was found; set OPENAI_API_KEY, or --base-url to a server of yours"
    )
    assert not make_endpoint(Settings(base_url="http://127.0.0.1:1/v1")).headers


async def test_what_an_earlier_process_spent_is_not_spent_again() -> None:
    settings = Settings(tier="tier-1")
    spent = {"gpt-4o-mini": {"RPD": 400.0, "RPM": 300.0}}
    scheduler = make_scheduler(settings, make_table(settings), spent=spent, elapsed=12.0)
    levels = {limit.name: limit.level for limit in _status(scheduler, "gpt-4o-mini")}
    rate = 10_000 / DAY
    assert levels["RPM"] == pytest.approx(500 - 500 / 60 - (300 - 12 * 500 / 60))
    assert levels["RPD"] == pytest.approx(10_000 - rate - (400 - 12 * rate))


@pytest.mark.parametrize(("words", "lane"), [(100, "gpt-4.1"), (127_000, "gpt-4.1"), (130_000, "gpt-4.1-long-context")])
async def test_a_long_input_counts_against_limits_of_its_own(words: int, lane: str) -> None:
    body = {"model": "gpt-4.1-2025-04-14", "messages": [{"role": "user", "content": "hello" + " hello" * (words - 1)}]}
    settings = Settings(tier="tier-5")
    table = make_table(settings)
    gate = make_sender(settings, table).gate
    assert gate.turn(body).lane.name == lane


async def test_a_client_is_made_of_settings_alone() -> None:
    assert repr(make_client(KEYED)) == "<Client <Scheduler no lanes yet>>"


async def test_the_public_way_in_reads_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    client = open_client(tier="tier-2")
    limits = {limit.name: limit.limit for limit in _status(client.sender.gate.scheduler, "gpt-4o-mini")}
    assert limits == {"RPM": 5000, "TPM": 2_000_000}


def _status(scheduler: Scheduler, name: str) -> tuple[LimitStatus, ...]:
    scheduler.lane(name)
    return next(lane for lane in scheduler.snapshot() if lane.name == name).limits
