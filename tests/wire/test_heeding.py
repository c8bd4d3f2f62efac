"""Headers are read as often as they can tell something new, and always where something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise

import pytest

from ratelimit.admission.gate import Gate
from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.headers import Observed, parse
from ratelimit.limits.tiers import load
from ratelimit.wire import judge
from ratelimit.wire.messages import Reply, request
from ratelimit.wire.sender import Sender

BODY = b'{"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'


async def test_of_replies_in_quick_succession_some_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []
    clock = asyncio.get_running_loop().time

    def noted(headers: Mapping[str, str]) -> Observed:
        read.append(clock())
        return parse(headers)

    monkeypatch.setattr(judge, "parse", noted)
    table = load()
    limits = [Limit("requests", 60_000_000, MINUTE), Limit("tokens", 10**11, MINUTE)]
    sender = Sender(Gate(Scheduler(lambda _: limits), table.find))
    asked = request({"model": "gpt-4o-mini", "messages": []})

    async def exchange() -> Reply:
        await asyncio.sleep(0.001)
        return Reply(200, {}, BODY)

    for _ in range(100):
        await sender.send(asked, exchange)
    assert len(read) == 5
    assert all(later - earlier >= 0.02 for earlier, later in pairwise(read))


@pytest.mark.parametrize("status", [400, 429, 500])
def test_what_is_wrong_is_always_heeded(status: int) -> None:
    reply = Reply(status, {"retry-after": "7"}, b"{}")
    assert judge.judge(reply, heed=False).observed.retry_after == 7
