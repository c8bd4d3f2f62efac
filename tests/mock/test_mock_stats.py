"""What the mock says of what arrived: peaks, seconds, duplicates, the log, and the control endpoints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mock_http import CHAT, HI, MODELS, Json, post

from ratelimit.testing.mock import Limits, MockServer, stats
from ratelimit.testing.mock.stats import Notes


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=60), st.booleans())
def test_peaks_are_the_most_in_any_window(steps: list[tuple[int, int]], often: bool) -> None:
    notes, at, seen = Notes(), 0.0, list[tuple[float, int]]()
    for pause, tokens in steps:
        at += pause / 4
        notes.weigh(at, tokens)
        seen.append((at, tokens))
        if often:
            notes.peaks()
    for window in notes.peaks():
        inside = [[t for at, t in seen if end - window.seconds < at <= end] for end, _ in seen]
        assert window.requests == max(map(len, inside), default=0)
        assert window.tokens == max(map(sum, inside), default=0)


def test_notes_that_no_window_needs_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_UNSEEN", 100)
    monkeypatch.setattr(stats, "_SECONDS_KEPT", 1000)
    weighed, plain = Notes(), Notes()
    for second in range(5000):
        weighed.weigh(float(second), 2)
        plain.add(float(second))
    for notes in (weighed, plain):
        assert [window.requests for window in notes.peaks()] == [1, 60]
        assert len(notes._at) < 400
        assert len(notes.seconds()[0]) == 1000
    assert [window.tokens for window in weighed.peaks()] == [2, 120]


async def test_statistics_count_what_arrived(http: aiohttp.ClientSession) -> None:
    async with MockServer(models={"gpt-4o-mini": Limits(rpm=3)}) as mock:
        for _ in range(4):
            await post(http, mock, CHAT, HI)
        await asyncio.sleep(20)
        mock.fail_next("500")
        await post(http, mock, CHAT, HI)
        async with http.get(mock.root_url + "/_mock/stats") as reply:
            found = await reply.json()
        assert repr(mock) == f"<MockServer {mock.base_url}: 5 arrived, 0 in flight>"
        assert found == {
            "arrived": 5,
            "admitted": 4,
            "tokens": 12,
            "refused": {"rpm": 1},
            "statuses": {"200": 3, "429": 1, "500": 1},
            "faults": {"500": 1},
            "models": {"gpt-4o-mini": 4},
            "in_flight": 0,
            "most_in_flight": 1,
            "duplicates": 0,
            "answered_twice": 0,
            "peaks": {
                "1s": {"arrived": 4, "admitted": 3, "tokens": 9},
                "60s": {"arrived": 5, "admitted": 4, "tokens": 12},
            },
            "timeline": [
                {"second": 0, "arrived": 4, "admitted": 3, "refused": 1, "failed": 0, "tokens": 9},
                {"second": 20, "arrived": 1, "admitted": 1, "refused": 0, "failed": 1, "tokens": 3},
            ],
        }
        async with http.post(mock.root_url + "/_mock/reset") as reply:
            assert await reply.json() == {"reset": True}
        assert mock.stats.arrived == 0


async def test_many_wait_at_once_and_are_counted() -> None:
    async with (
        MockServer(models=MODELS, latency=10) as mock,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": "Bearer sk-x"}
        ) as http,
    ):
        begun = mock.service.elapsed()
        answers = await asyncio.gather(*(post(http, mock, CHAT, HI) for _ in range(300)))
        assert {status for status, _ in answers} == {200}
        assert mock.stats.most_in_flight == 300
        assert mock.service.elapsed() - begun == pytest.approx(10)


async def test_the_log_has_a_line_for_each_request_and_no_key(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    async with MockServer(models={"gpt-4o-mini": Limits(rpm=1)}, log=log) as mock:
        await post(http, mock, CHAT, {**HI, "metadata": {"custom_id": "r1"}})
        await post(http, mock, CHAT, HI)
        async with http.get(mock.base_url + "/models"):
            pass
        first, second, third = [json.loads(line) for line in log.read_text().splitlines()]
    assert "sk-test" not in log.read_text()
    size = len(json.dumps({**HI, "metadata": {"custom_id": "r1"}}))
    assert first == {
        "number": 1,
        "at": 0.0,
        "method": "POST",
        "path": "/v1/chat/completions",
        "organization": "org-mock",
        "project": "proj_mock",
        "model": "gpt-4o-mini",
        "custom_id": "r1",
        "size": size,
        "charge": 3,
        "status": 200,
        "refused": None,
        "fault": None,
        "seconds": 0.0,
    }
    assert (second["status"], second["refused"]) == (429, "rpm")
    assert (third["path"], third["status"]) == ("/v1/models", 200)


async def test_faults_and_limits_are_controlled_over_http(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        where = mock.root_url + "/_mock"

        async def control(method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
            async with http.request(method, where + path, json=body) as reply:
                return reply.status, await reply.json()

        status, shown = await control("POST", "/faults", {"kind": "500", "times": 2})
        assert status == 200
        assert shown == {"next": [{"kind": "500", "spec": "500 times=2", "times": 2}], "standing": []}
        assert [(await post(http, mock, CHAT, HI))[0] for _ in range(3)] == [500, 500, 200]
        _, shown = await control("POST", "/faults", {"spec": "502:every=2"})
        assert shown == {"next": [], "standing": [{"kind": "502", "spec": "502:every=2", "times": None}]}
        assert await control("GET", "/faults") == (200, shown)
        assert await control("DELETE", "/faults") == (200, {"next": [], "standing": []})
        assert await control("POST", "/limits", {"rpm": 1}) == (200, {"limits": {"rpm": 1}})
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            assert reply.headers["x-ratelimit-limit-requests"] == "1"
        status, body = await control("POST", "/limits", {"rpm": -1})
        assert (status, body["error"]["message"]) == (
            400,
            "rpm cannot be -1: give a whole number of at least 1, or leave it out for no limit",
        )
        status, body = await control("POST", "/limits", {"rps": 1})
        assert status == 400
        status, body = await control("POST", "/faults", {"spec": "melt"})
        assert status == 400
        assert body["error"]["message"].startswith("--fault cannot be 'melt': its kind is one of 500, 502")
        status, body = await control("GET", "/fault")
        assert (status, body["error"]["message"]) == (
            404,
            (
                "No GET /_mock/fault here; there are GET /_mock/, GET /_mock/stats, POST /_mock/reset, "
                "GET /_mock/faults, POST /_mock/faults, DELETE /_mock/faults, POST /_mock/limits"
            ),
        )
        async with http.get(where + "/") as reply:
            assert (reply.status, reply.content_type) == (200, "text/html")
            assert "/_mock/stats" in await reply.text()
