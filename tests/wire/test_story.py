"""What observers are told of a request that is done with, whoever sent it, and of a service that is down."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest

import ratelimit
from ratelimit.admission.events import Event, Finished, ServiceBack, ServiceDown, Stopped
from ratelimit.errors import RateLimitError
from ratelimit.testing.mock import MockServer

ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


class Hears:
    """Listens to some kinds of events only."""

    def __init__(self, *kinds: type[Event]) -> None:
        self.hears = frozenset(kinds)
        self.heard: list[Any] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)


def client(mock: MockServer, *observers: Any, **settings: Any) -> ratelimit.Client:
    return ratelimit.open(base_url=mock.base_url, api_key="sk-test", tier="tier-1", observer=observers, **settings)


async def test_an_answered_request_is_told_with_all_its_attempts() -> None:
    ends, everything = Hears(Finished), list[Event]()
    async with (
        MockServer(tier="tier-1", echo=True, latency="2", faults=["500:from=1,to=2"]) as mock,
        client(mock, ends, everything.append) as sending,
    ):
        await sending.send({**ASK, "service_tier": "flex"})
    (end,) = ends.heard
    assert [event for event in everything if isinstance(event, Finished)] == [end]
    assert [(attempt.status, attempt.error) for attempt in end.attempts] == [(500, "500"), (500, "500"), (200, None)]
    assert end.began <= end.attempts[0].began < end.attempts[0].ended < end.attempts[2].began < end.at
    assert (end.lane, end.model, end.path, end.service_tier) == ("gpt-4o-mini",) * 2 + ("/v1/chat/completions", "flex")
    assert (end.error, end.input_tokens, end.output_tokens) == (None, 7, 1)
    assert end.cost == pytest.approx((7 * 0.15 + 1 * 0.6) / 1e6)
    assert end.reply_model.startswith("gpt-4o-mini")
    assert end.reply_id.startswith("chatcmpl-")


class Sends(Hears):
    """Has something of its own by a name that means something."""

    sending = True


async def test_an_onlooker_who_has_a_name_by_chance_stops_nothing() -> None:
    async with MockServer(tier="tier-1", echo=True) as mock, client(mock, Sends(Finished), Sends()) as caller:
        assert (await caller.send(ASK)).status == 200


async def test_a_stream_is_told_when_it_ends_and_one_that_is_left_as_such() -> None:
    ends = Hears(Finished)
    body = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    async with MockServer(tier="tier-1", output_tokens=50, token_delay=0.1) as mock, client(mock, ends) as sending:
        async with sending.stream(body) as stream:
            assert ends.heard == []
            async for _ in stream:
                pass
        async with sending.stream(body) as stream:
            await anext(aiter(stream))
    whole, left = ends.heard
    assert (whole.error, whole.input_tokens, whole.output_tokens) == (None, 7, 50)
    assert (left.error, left.input_tokens) == ("cancelled", 0)


async def test_a_request_that_failed_is_told_by_its_cause() -> None:
    ends = Hears(Finished)
    async with MockServer(tier="tier-1") as mock, client(mock, ends) as sending:
        for body in ({**ASK, "messages": []}, {**ASK, "messages": [{"role": "user", "content": "x " * 300_000}]}):
            with suppress(RateLimitError):
                await sending.send(body)
    assert [(end.error, len(end.attempts), end.cost) for end in ends.heard] == [
        ("400", 1, 0.0),
        ("input_too_long", 0, 0.0),
    ]


async def test_an_outage_is_told_and_logged_at_its_beginning_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ratelimit")
    turns = Hears(ServiceDown, ServiceBack)
    async with MockServer(tier="tier-1", faults=["503:between=0-60"]) as mock, client(mock, turns) as sending:
        async for result in sending.map([ASK] * 60):
            result.unwrap()
    assert [type(event) for event in turns.heard] == [ServiceDown, ServiceBack]
    assert caplog.messages == [
        (
            "gpt-4o-mini: the service seems to be down: single requests ask now and then whether it is back; the "
            "service answered 503 server_error: The engine is currently overloaded, please try again later"
        ),
        "gpt-4o-mini: the service answers again",
    ]


async def test_no_credits_are_told() -> None:
    stops = Hears(Stopped)
    async with MockServer(tier="tier-1", faults=["insufficient_quota:rate=1"]) as mock, client(mock, stops) as sending:
        with pytest.raises(RateLimitError):
            await sending.send(ASK)
    assert [str(stop.error)[:35] for stop in stops.heard] == ["the account's quota is used up (ins"]
