"""How the service charges is learnt once for all who share a lane."""

from __future__ import annotations

import asyncio

from sharing import wall_clock
from wire_rig import ask

from ratelimit.compose import make_client, make_sender, make_table
from ratelimit.limits.charge import Formula
from ratelimit.limits.charging import Charging
from ratelimit.limits.content import CHAT_PATH, measure
from ratelimit.settings import load_settings
from ratelimit.testing.mock import MockServer

LONG = ask("The quick brown fox jumps over the lazy dog. " * 20, max_tokens=500)


async def test_a_program_reserves_by_what_another_was_charged() -> None:
    store = wall_clock()
    async with MockServer(charge="chat_2025") as mock:
        settings = load_settings(base_url=mock.base_url, api_key="sk-test", tier="tier-1")
        gate = make_sender(settings, make_table(settings), store=store).gate
        async with gate.turn(LONG) as turn:
            turn.used()  # it says nothing of tokens
        assert gate.turn(LONG).cost["tokens"] == 726  # the careful guess
        await asyncio.sleep(1)  # what no service has seen has come back
        async with make_client(settings, store=store) as client:
            await client.send(LONG)
            await asyncio.sleep(1)
        async with gate.turn(LONG) as turn:
            turn.unsent()
        await asyncio.sleep(1)
        assert gate.turn(LONG).cost["tokens"] == 227
        await gate.scheduler.aclose()


def test_a_formula_that_is_not_known_here_and_one_that_is_given_are_left_alone() -> None:
    size = measure(LONG, CHAT_PATH)
    given: Formula = "exact_plus_cap"
    for charging, told, formulas in (
        (Charging(), "of_the_future", Charging().formulas),
        (Charging(), "of_the_future documented", ("documented",)),
        (Charging(given), "documented", (given,)),
    ):
        charging.adopt(told)
        assert charging.formulas == formulas
        assert charging.estimate(size, None) > 0
