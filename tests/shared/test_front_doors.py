"""Whoever sends shares, whatever he sends with, and leaves nothing behind in the store when he closes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
from sdk_stub import BODY, AsyncHttp, Http, Request, Script, Sdk, answer

import ratelimit
from ratelimit.admission.blocking import BlockingScheduler
from ratelimit.admission.shared.ledger import SharedLedger
from ratelimit.admission.shared.sqlite import SqliteStore
from ratelimit.admission.shared.store import LaneSeen
from ratelimit.compose import make_scheduler, make_table
from ratelimit.openai import rate_limited
from ratelimit.settings import load_settings
from ratelimit.sharing import group_of, microseconds, state_file
from ratelimit.testing.mock import MockServer

pytestmark = pytest.mark.real_time

Sends = Callable[[asyncio.Event], Coroutine[None, None, None]]
"""Sends one request, and closes at the event."""


@pytest.fixture(autouse=True)
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with MockServer(tier="tier-1") as mock:
        monkeypatch.chdir(tmp_path)
        for name, text in {
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": mock.base_url,
            "RATELIMIT_SHARED": "file",
            "RATELIMIT_TIER": "tier-1",
            "XDG_STATE_HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, text)
        yield mock.base_url


async def drop_in(leave: asyncio.Event) -> None:
    client = rate_limited(Sdk(AsyncHttp(Script(answer()))))
    await client.asend(Request(BODY))
    await leave.wait()
    await client._client._transport.aclose()


async def drop_in_of_threads(leave: asyncio.Event) -> None:
    client = rate_limited(Sdk(Http(Script(answer()))))
    await asyncio.to_thread(client.send, Request(BODY))
    await leave.wait()
    await asyncio.to_thread(client._client._transport.close)


async def two_drop_ins_in_one_line(leave: asyncio.Event) -> None:
    client = rate_limited(Sdk(AsyncHttp(Script(answer()))))
    other = rate_limited(Sdk(Http(Script(answer()))), share=client)
    await client.asend(Request(BODY))
    await client._client._transport.aclose()
    await asyncio.to_thread(other.send, Request(BODY))
    await leave.wait()
    with other._client._transport:
        pass


async def blocking_client(leave: asyncio.Event) -> None:
    def send() -> None:
        with ratelimit.BlockingClient(ratelimit.open()) as client:
            client.chat("gpt-4o-mini", "hi")
            sent.set()
            closing.wait()

    sent, closing = threading.Event(), threading.Event()
    sending = asyncio.create_task(asyncio.to_thread(send))
    await asyncio.to_thread(sent.wait)
    await leave.wait()
    closing.set()
    await sending


async def blocking_scheduler(leave: asyncio.Event) -> None:
    settings = load_settings()
    scheduler = BlockingScheduler(lambda: make_scheduler(settings, make_table(settings)))

    def send() -> None:
        with scheduler.reserve("gpt-4o-mini") as turn:
            turn.used()

    await asyncio.to_thread(send)
    await leave.wait()
    scheduler.close()
    scheduler.close()


async def client(leave: asyncio.Event) -> None:
    async with ratelimit.open() as client:
        await client.chat("gpt-4o-mini", "hi")
        await leave.wait()


async def are_there(many: int) -> None:
    """Wait until so many programs are in the store."""
    while sum([len(lane.holders) for lane in await seen()]) < many:  # noqa: ASYNC110 - others tell it
        await asyncio.sleep(0.01)


async def seen() -> list[LaneSeen]:
    store = SqliteStore(state_file(), microseconds)
    try:
        return await store.peek()
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    "door",
    [drop_in, drop_in_of_threads, two_drop_ins_in_one_line, blocking_client, blocking_scheduler, client],
    ids=lambda door: door.__name__,
)
async def test_each_takes_part_and_gives_everything_back(door: Sends, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ratelimit")
    leave, other_leaves = asyncio.Event(), asyncio.Event()
    other = asyncio.create_task(client(other_leaves))
    await are_there(1)
    sending = asyncio.create_task(door(leave))
    await are_there(2)
    assert "sharing gpt-4o-mini tier-1 with 1 other program" in caplog.text
    leave.set()
    await sending
    assert [len(lane.holders) for lane in await seen()] == [1]
    other_leaves.set()
    await other
    assert [lane.holders for lane in await seen()] == [[]]


async def test_a_line_that_was_closed_goes_on_from_what_was_spent() -> None:
    limited = rate_limited(Sdk(AsyncHttp(Script(answer()))), shared="off", rpm=5)
    await limited.asend(Request(BODY))
    limiter = limited._client._transport.limiter
    await limited._client._transport.aclose()
    assert repr(limiter) == "<Limiter unused>"
    idle = rate_limited(Sdk(AsyncHttp(Script(answer()))), share=limited)
    await idle._client._transport.aclose()  # which had asked for nothing
    again = rate_limited(Sdk(AsyncHttp(Script(answer()))), share=limited)
    await again.asend(Request(BODY))
    (desk,) = limiter._desks.values()
    assert desk.sender.gate.scheduler.spent()["gpt-4o-mini"]["RPM"] == pytest.approx(2, abs=0.1)


async def test_who_waits_when_a_line_is_closed_goes_on_in_the_next() -> None:
    limited = rate_limited(Sdk(AsyncHttp(Script(answer()))), rpm=5)
    await limited.asend(Request(BODY))
    limiter = limited._client._transport.limiter
    (before,) = limiter._desks.values()
    waiting = [asyncio.create_task(limited.asend(Request(BODY))) for _ in range(9)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await limited._client._transport.aclose()
    async with asyncio.timeout(5):
        while not limiter._desks:  # noqa: ASYNC110 - they come by themselves
            await asyncio.sleep(0.01)
    (after,) = limiter._desks.values()
    assert after is not before
    assert not before._waiting
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_when_a_scheduler_is_closed_is_told_so() -> None:
    settings = load_settings(rpm=5)
    scheduler = make_scheduler(settings, make_table(settings))

    async def send() -> None:
        async with scheduler.reserve("gpt-4o-mini", tokens=10) as turn:
            turn.used()

    sending = [asyncio.create_task(send()) for _ in range(9)]
    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
    await scheduler.aclose()
    ended, waiting = await asyncio.wait(sending, timeout=5)
    assert not waiting
    said = {str(each.exception()) for each in ended if isinstance(each.exception(), RuntimeError)}
    assert "the limits of gpt-4o-mini tier-1 are closed; open a new client or scheduler" in said


async def test_what_ends_after_closing_asks_nobody() -> None:
    settings = load_settings()
    scheduler = make_scheduler(settings, make_table(settings))
    async with scheduler.reserve("gpt-4o-mini", tokens=10) as turn:
        await scheduler.aclose()
        turn.used(tokens=5)
    ledger = scheduler.lane("gpt-4o-mini").ledger
    assert isinstance(ledger, SharedLedger)
    assert ledger._caller._timer is None


class Account(Sdk):
    """A client that was told where and as whom to send, whatever the environment says."""

    api_key = "sk-mine"
    base_url = "https://mine.example/v1/"
    organization = "org-mine"
    project = None


async def test_a_drop_in_shares_with_whoever_sends_where_and_as_whom_its_client_does() -> None:
    limiter = rate_limited(Account(AsyncHttp(Script())))._client._transport.limiter

    def group_at(host: bytes) -> str:
        desk = limiter.desk(("https", host), asyncio.get_running_loop())
        ledger = desk.sender.gate.scheduler.lane("gpt-4o-mini").ledger
        assert isinstance(ledger, SharedLedger)
        return ledger._member.group

    def group_of_client(base_url: str) -> str:
        same = load_settings(base_url=base_url, api_key="sk-mine", organization="org-mine")
        return group_of(same, "gpt-4o-mini")

    assert group_at(b"mine.example") == group_of_client("https://mine.example/v1")
    assert group_at(b"other.example:8443") == group_of_client("https://other.example:8443")
