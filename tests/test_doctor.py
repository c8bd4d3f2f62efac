"""The doctor: one finding a look, what each says, and what the exit code says of them all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from ratelimit.cli import main
from ratelimit.doctor import Finding, alike, ask, cheapest, examine
from ratelimit.limits.headers import parse
from ratelimit.limits.tiers import load
from ratelimit.settings import load_settings
from ratelimit.testing.mock import Account, MockServer

KEY = "sk-never-shown"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


async def listed(findings: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {each.what: each async for each in findings}


async def test_all_is_well_and_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with MockServer(tier="tier-1") as mock:
        found = await listed(examine(load_settings(base_url=mock.base_url)))
        admitted = mock.stats.admitted
    assert {each.state for each in found.values()} == {"ok"}
    assert found["setting"].said == f"base_url = {mock.base_url}, by --base-url"
    assert found["key"].said == "there is one (not shown), by OPENAI_API_KEY in the environment"
    assert found["tables"].said.startswith(f"{len(load().models)} models, figures of 20")
    assert found["service"].said.endswith("ms, and takes the key")
    assert KEY not in repr(found)
    assert admitted == 0, "looking costs nothing"


async def test_a_refused_key_and_a_service_that_is_not_there() -> None:
    async with MockServer(tier="tier-1", keys={"sk-other": Account("org-a", "proj_a")}) as mock:
        refused = await listed(examine(load_settings(base_url=mock.base_url, api_key=KEY)))
    gone = await listed(examine(load_settings(base_url=mock.base_url)))
    assert refused["service"].state == gone["service"].state == "wrong"
    assert refused["service"].said.endswith("ms, and refuses the key (401); give one that it takes")
    assert gone["service"].said.endswith("; check base_url, network and proxy")
    assert gone["key"] == Finding("key", "note", "there is none; this service may want none")


async def test_a_base_url_without_its_end_is_said() -> None:
    async with MockServer(tier="tier-1") as mock:
        found = await listed(examine(load_settings(base_url=mock.root_url, api_key=KEY)))
    assert found["service"].said.endswith(
        " ms, and has no list of models there (404); if requests fail, too, end base_url in /v1"
    )


@pytest.mark.parametrize(
    ("tier", "state", "said"),
    [
        ("tier-1", "ok", "tier-1, and the service says the same"),
        (
            "tier-3",
            "note",
            "tier-1 has 500 RPM, 10,000 RPD, 200,000 TPM; it looks like tier-3; set tier to that",
        ),
    ],
)
async def test_one_request_tells_the_tier(tier: str, state: str, said: str) -> None:
    async with MockServer(tier=tier) as mock:
        settings = load_settings(base_url=mock.base_url, api_key=KEY)
        found = await listed(ask(settings, load().find("gpt-4o-mini")))
        assert mock.stats.arrived == 1
    assert found["limits"].said.startswith("the service claims ")
    assert found["tier"] == Finding("tier", state, said)  # type: ignore[arg-type]


async def test_limits_of_no_tier_and_none_at_all() -> None:
    async with MockServer(tier="tier-1", rpd=777, faults=["no_headers:at=2"]) as mock:
        settings = load_settings(base_url=mock.base_url, api_key=KEY)
        odd = await listed(ask(settings, load().find("gpt-4o-mini")))
        silent = await listed(ask(settings, load().find("gpt-4o-mini")))
    assert "no tier of the table has these limits" in odd["tier"].said
    assert silent == {"limits": Finding("limits", "note", "the reply names none; those of the table are kept to")}


def test_a_tier_is_told_from_headers_and_the_cheapest_model_from_prices() -> None:
    model = load().find("gpt-4o-mini")
    assert alike(model, parse({"x-ratelimit-limit-tokens": "200000"})) == ["tier-1"]
    assert alike(model, parse({"x-ratelimit-limit-tokens": "200000", "x-ratelimit-limit-requests": "1"})) == []
    assert alike(model, parse({})) == []
    found = cheapest(load_settings(), load())
    assert (found.name, found.endpoints[0]) == ("gpt-4.1-nano", "chat/completions")


def test_without_a_key_the_exit_code_is_1_and_json_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--ask"]) == 1
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["key"]["state"] == "wrong"
    assert found["service"]["said"] == "https://api.openai.com/v1 was not asked: there is no key"
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\nWRONG  key        api.openai.com wants an API key and none was found; set OPENAI_API_KEY, or" in shown


def test_a_wrong_setting_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RATELIMIT_TEIR", "tier-1")
    assert main(["doctor"]) == 2
    said = "ratelimit: RATELIMIT_TEIR in the environment is no setting: did you mean RATELIMIT_TIER?\n"
    assert capsys.readouterr().err == said
