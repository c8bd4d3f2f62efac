"""Stops and moves: who is told not to wait any more, and where those go who wait on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sdk_stub import BODY, Watched, answer, trouble

from ratelimit.admission.blocking import Background
from ratelimit.limits.bucket import Limit
from ratelimit.wire import sdk_desk
from ratelimit.wire.messages import Reply
from ratelimit.wire.messages import request as checked
from ratelimit.wire.transport import Unsent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


async def test_a_stop_reaches_those_who_wait_with_the_same_key_only() -> None:
    # Six a minute: of twenty, a few leave and the others wait.
    watched = Watched(lambda: trouble(401), rpm=6)
    loop = asyncio.get_running_loop()
    replies = await asyncio.gather(*(watched.send() for _ in range(20)))
    assert {reply.status_code for reply in replies} == {401}
    assert loop.time() < 1
    assert len(watched.script.seen) <= 6
    sent = len(watched.script.seen)
    assert (await watched.send()).headers["x-ratelimit-error"] == "JobStopped"
    assert len(watched.script.seen) == sent
    watched.script.answers = [answer()]
    assert (await watched.send(key="two")).status_code == 200
    await asyncio.sleep(sdk_desk.HALT)
    assert (await watched.send()).status_code == 200


async def test_who_waits_to_retry_is_stopped_too() -> None:
    watched = Watched(lambda: trouble(500), retries=5)
    retrying = asyncio.create_task(watched.send())
    await asyncio.sleep(0)
    watched.script.answers = [trouble(401)]
    assert (await watched.send()).status_code == 401
    assert (await retrying).status_code == 401
    assert len(watched.script.seen) == 2


async def test_all_that_are_under_way_when_one_is_stopped_end_by_their_own_replies() -> None:
    gate = asyncio.Event()
    watched = Watched(answer())

    async def slow(request: Any) -> Any:
        watched.script.seen.append(request)
        await gate.wait()
        return trouble(401) if request.headers["authorization"] == "bad" else answer()

    watched.script.handle_async_request = slow  # type: ignore[method-assign]  # this script waits
    under_way = [asyncio.create_task(watched.send(key=key)) for key in ("bad", "good", "bad")]
    await asyncio.sleep(1)
    gate.set()
    assert [(await each).status_code for each in under_way] == [401, 200, 401]


async def test_who_learns_of_a_stop_on_the_way_is_not_sent_again() -> None:
    watched = Watched(answer(), retries=5)
    await watched.send()  # the first goes alone

    async def slow(request: Any) -> Any:
        watched.script.seen.append(request)
        late = len(watched.script.seen) > 2
        await asyncio.sleep(2 if late else 1)
        return trouble(500) if late else trouble(401)

    watched.script.handle_async_request = slow  # type: ignore[method-assign]  # this script waits
    first, second = (asyncio.create_task(watched.send()) for _ in range(2))
    assert [(await each).status_code for each in (first, second)] == [401, 401]
    assert len(watched.script.seen) == 3


async def test_who_is_stopped_between_grant_and_departure_does_not_leave() -> None:
    class Granting:
        """A sender that grants a turn in the moment in which another request is stopped."""

        async def send(self, _: object, exchange: Any, **__: object) -> None:
            desk._halt(1, Reply(401, {}, b""))
            with pytest.raises(Unsent, match=r"^interrupted on the way out$"):
                await exchange()
            await asyncio.sleep(1)

    async def leave() -> Reply:
        raise AssertionError("it has left")

    sender: Any = Granting()
    desk = sdk_desk.Desk(sender, asyncio.get_running_loop())
    with pytest.raises(sdk_desk.Halted) as caught:
        await desk.send(checked(BODY), leave, lambda: 1, priority=0, deadline=None)
    assert caught.value.reply.status == 401


async def test_what_was_spent_is_read_while_another_thread_adds_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(answer())
    await watched.send()
    ((origin, desk),) = watched.limiter._desks.items()
    scheduler = desk.sender.gate.scheduler
    monkeypatch.setitem(vars(scheduler), "_limits", lambda _: (Limit("requests", 60, 60.0),))
    ledger = scheduler.lane("gpt-4o-mini").ledger
    missing = ledger.missing

    def meanwhile() -> dict[str, float]:
        scheduler.lane("another")
        return dict(missing())

    monkeypatch.setattr(ledger, "missing", meanwhile)
    for user in list(watched.limiter._users):
        watched.limiter.leave(user)
    assert set(watched.limiter._spent[origin]) == {"gpt-4o-mini"}


@pytest.mark.real_time
async def test_who_waits_moves_along_when_a_second_loop_comes() -> None:
    watched = Watched(answer, rpm=600)
    calls = [asyncio.create_task(watched.send()) for _ in range(30)]
    await asyncio.sleep(0)
    ((origin, old),) = watched.limiter._desks.items()
    another = Background()
    try:
        new = watched.limiter.desk(origin, another.loop)
        assert (new.loop, old.loop) == (sdk_desk.background(), asyncio.get_running_loop())
        assert {(await call).status_code for call in calls} == {200}
    finally:
        another.close()
    assert len(watched.script.seen) == 30
    assert old.sender.count.succeeded + new.sender.count.succeeded == 30
    assert new.sender.count.succeeded > 20
