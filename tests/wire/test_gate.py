"""One turn at the gate: what is reserved for a request, what its reply teaches, and how it is settled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire_rig import MODEL, ask, make, missing, reply, served

from ratelimit.admission.gate import Gate, Settling
from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import AlreadySettled, InputTooLong, NeverFits, UnknownModel
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.charge import FORMULAS, Formula
from ratelimit.limits.charging import CAREFUL, Charging
from ratelimit.limits.content import CHAT_PATH, measure
from ratelimit.limits.headers import parse
from ratelimit.limits.tiers import load
from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.charges import Profile
from ratelimit.wire.client import Client

TABLE = load()
# So much per second comes back that nothing lingers from one request to the next.
LIMITS = (Limit("requests", 500, MINUTE), Limit("tokens", 200_000, MINUTE))
LONG = "The quick brown fox jumps over the lazy dog. " * 20  # 900 bytes, 200 tokens


def gate(limits: tuple[Limit, ...] = LIMITS, formula: Formula | None = None, charges: Settling = "headers") -> Gate:
    return Gate(Scheduler(lambda _: limits), TABLE.find, formula=formula, charges=charges)


def formulas(client: Client) -> tuple[Formula, ...]:
    (charging,) = client.sender.gate._charging.values()
    return charging.formulas


@pytest.mark.parametrize(
    ("profile", "options", "learnt", "next_estimate"),
    [
        # 900 bytes make 225, one message, one answer. A cap tells the formulas apart.
        ("chat_2025", {"max_tokens": 500}, ("chat_2025",), 227),
        ("chat_2024", {"max_tokens": 500}, ("chat_2024",), 726),
        ("documented", {"max_tokens": 500}, ("documented",), 500),
        ("exact", {"max_tokens": 500}, ("exact_plus_cap",), 727),
        # Without a cap, two say the same and remain.
        ("chat_2025", {}, ("chat_2025", "documented"), 227),
        ("chat_2024", {}, ("chat_2024",), 242),
    ],
)
async def test_the_first_reply_shows_what_the_server_charges(
    profile: Profile, options: dict[str, Any], learnt: tuple[Formula, ...], next_estimate: int
) -> None:
    async with MockServer(charge=profile) as mock, make(mock.base_url, limits="tier-1") as client:
        await client.send(ask(LONG, **options))
        assert formulas(client) == learnt
        turn = client.sender.gate.turn(ask(LONG, **options))
        assert turn.cost == {"requests": 1, "tokens": next_estimate}


@pytest.mark.parametrize("profile", ["chat_2025", "chat_2024", "documented", "exact"])
@pytest.mark.parametrize("options", [{}, {"max_tokens": 300}, {"max_tokens": 9}, {"n": 3, "max_tokens": 100}])
async def test_no_profile_is_ever_under_predicted_into_refusals(profile: Profile, options: dict[str, Any]) -> None:
    async with MockServer(charge=profile, tpm=20_000) as mock, make(mock.base_url, limits="tier-1") as client:
        results = [r async for r in client.map(ask(f"{n} {LONG}", **options) for n in range(150))]
        assert all(result.reply for result in results)
        assert mock.stats.refused["tokens"] <= 2


async def test_a_given_formula_is_not_unlearnt() -> None:
    async with MockServer() as mock, make(mock.base_url, limits="tier-1", formula="exact_plus_cap") as client:
        await client.send(ask(LONG, max_tokens=500))
        assert formulas(client) == ("exact_plus_cap",)


@pytest.mark.parametrize(
    ("charges", "headers", "tpm"),
    [
        ("headers", {}, 30),  # no headers: by the usage
        ("usage", {}, 30),
        ("estimate", {}, 19),  # what is reserved for the text and 16 tokens of output, whatever was used
    ],
)
async def test_what_settles_without_headers(charges: Settling, headers: dict[str, str], tpm: float) -> None:
    slow = (Limit("requests", 10, DAY), Limit("tokens", 60, MINUTE))
    async with served(reply(headers=headers), limits=slow, charges=charges) as (_, client):
        await client.send(ask("hi there"))
        assert missing(client) == {"RPD": 1, "TPM": tpm}


async def test_headers_settle_better_than_usage() -> None:
    slow = (Limit("requests", 10, DAY), Limit("tokens", 600, MINUTE))
    rows = {
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "596",
        "x-ratelimit-reset-tokens": "400ms",
    }
    async with served(reply(headers=rows), limits=slow) as (_, client):
        await client.send(ask("hi there"))
        assert missing(client)["TPM"] <= 4


async def test_a_request_is_too_large_once_two_replies_say_so() -> None:
    few = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "97", "x-ratelimit-reset-tokens": "1.8s"}
    async with served(reply(headers=few)) as (_, client):
        await client.send(ask("hi there"))
        client.sender.gate.turn(ask(LONG))
        await asyncio.sleep(1)  # the next reply's headers are read again
        await client.send(ask("hi there"))
        with pytest.raises(NeverFits):
            client.sender.gate.turn(ask(LONG))


async def test_what_can_never_pass_raises_before_anybody_waits() -> None:
    with pytest.raises(NeverFits):
        gate((Limit("tokens", 100, MINUTE),)).turn(ask("x" * 1000))
    with pytest.raises(InputTooLong):
        gate().turn(ask("word " * 200_000))
    with pytest.raises(UnknownModel):
        gate().turn(ask(model="no-such-model"))


async def test_a_careful_formula_refuses_nothing_that_may_pass() -> None:
    turn = gate((Limit("tokens", 1000, MINUTE),)).turn(ask("x" * 400, max_tokens=5000))
    assert turn.cost == {"requests": 1, "tokens": 1000}


async def test_without_a_limit_on_tokens_none_are_reserved() -> None:
    assert gate((Limit("requests", 10, MINUTE),)).turn(ask()).cost == {"requests": 1}


async def test_snapshots_and_fine_tunes_share_a_lane() -> None:
    door = gate()
    names = [MODEL, "gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:acme::abc"]
    assert {door.turn(ask(model=name)).lane.name for name in names} == {MODEL}


async def test_a_retry_keeps_its_place() -> None:
    door = gate()
    first, second = door.turn(ask()), door.turn(ask())
    again = door.turn(ask(), arrival=first.arrival)
    assert (second.arrival - first.arrival, again.arrival) == (1, first.arrival)


async def test_a_turn_ends_once_and_learns_nothing_afterwards() -> None:
    async with gate().turn(ask()) as turn:
        turn.used(tokens=5)
        with pytest.raises(AlreadySettled):
            turn.used()
        with pytest.raises(AlreadySettled):
            turn.observe(parse({}))
    assert turn.how == "used"


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("cap", [None, 40, 4000])
def test_what_a_server_charges_by_is_never_ruled_out(formula: Formula, cap: int | None) -> None:
    model = TABLE.find(MODEL)
    charging = Charging()
    for length in (1, 50, 400, 3000):
        size = measure(ask("word " * length, **({} if cap is None else {"max_tokens": cap})), CHAT_PATH)
        truth = Charging(formula).estimate(size, model)
        charging.learn(size, model, truth, 200_000)
        assert charging.estimate(size, model) >= truth or "exact_plus_cap" in charging.formulas


@pytest.mark.parametrize("formula", ["chat_2025", "chat_2024", "documented"])
@pytest.mark.parametrize("more", [0, 5, 1000])
def test_what_a_request_was_charged_at_most_rules_out_nothing_that_came_to_less(formula: Formula, more: int) -> None:
    model, charging = TABLE.find(MODEL), Charging()
    size = measure(ask(LONG, max_tokens=500), CHAT_PATH)  # 227, 726 and 500
    truth = Charging(formula).estimate(size, model)
    charging.learn(size, model, truth + more, 200_000, at_most=True)
    assert charging.estimate(size, model) >= truth
    charging.learn(size, model, truth, 200_000)
    assert charging.formulas == (formula,)


def test_what_is_known_outlasts_a_reply_to_what_was_estimated_before_it_was() -> None:
    model, charging = TABLE.find(MODEL), Charging()
    size = measure(ask(LONG, max_tokens=500), CHAT_PATH)
    charging.learn(size, model, 227, 200_000)
    assert charging.formulas == ("chat_2025",)
    assert not charging.learn(size, model, 400, 200_000, at_most=True)  # others' tokens among them
    assert charging.formulas == ("chat_2025",)


async def test_a_reply_to_one_that_was_not_alone_shows_what_it_was_charged_at_most() -> None:
    limits = (Limit("tokens", 60_000, MINUTE),)
    one = gate(limits)
    first, second = one.turn(ask(LONG, max_tokens=5000)), one.turn(ask(LONG, max_tokens=5000))
    async with first, second:
        await asyncio.sleep(3)
        assert first.charging.formulas == CAREFUL
        first.observe(parse(tokens_left(60_000 - 5226)))  # as careful as it was
        assert first.charging.formulas == CAREFUL
        first.observe(parse(tokens_left(60_000)))  # nothing at all is no charge
        assert first.charging.formulas == CAREFUL
        first.observe(parse(tokens_left(60_000 - 5000)))
        assert first.charging.formulas == ("documented",)
        first.observe(parse(tokens_left(60_000 - 227)))
        assert first.charging.formulas == ("chat_2025",)
        first.used()
        second.used()


def tokens_left(left: int) -> dict[str, str]:
    return {"x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": str(left)}


def test_hidden_input_teaches_nothing() -> None:
    charging = Charging()
    size = measure({"model": MODEL, "input": "x", "previous_response_id": "r"}, "/v1/responses")
    assert size.unseen
    assert charging.learn(size, None, 90_000, 200_000) is False
    assert charging.formulas == CAREFUL
