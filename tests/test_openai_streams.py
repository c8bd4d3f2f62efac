"""Streams through the drop-in: handed on as they come, and known to have ended."""

from __future__ import annotations

import asyncio
import gc
import zlib
from pathlib import Path

import pytest
from sdk_stub import DATA, LAST, STREAM, Pieces, Response, Watched, answer, read, trouble


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


async def test_a_stream_is_handed_on_piece_by_piece() -> None:
    body = Pieces(DATA, DATA, LAST)
    watched = Watched(Response(200, stream=body))
    response = await watched.send(STREAM)
    pieces = [piece async for piece in response.stream]
    assert pieces == [DATA, DATA, LAST]
    await response.stream.aclose()
    await response.stream.aclose()
    assert (watched.ends, body.closed) == (["used"], 2)


TOLD = b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,"output_tokens":4}}}\n\n'
FAILED = b'data: {"error":{"message":"wrong","type":"invalid_request_error"}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ([DATA], ["unknown"]),
        ([DATA, DATA], ["unknown"]),
        ([DATA + DONE], ["used"]),
        ([DATA, DONE], ["used"]),
        ([DATA, TOLD], ["used"]),
        ([DATA, FAILED], ["failed"]),
    ],
)
async def test_a_stream_left_early_is_known_if_it_had_told_all(pieces: list[bytes], ends: list[str]) -> None:
    watched = Watched(Response(200, stream=Pieces(*pieces, b"more")))
    response = await watched.send(STREAM)
    stream = aiter(response.stream)
    assert [await anext(stream) for _ in pieces] == pieces
    await response.stream.aclose()
    assert watched.ends == ends
    (desk,) = watched.limiter._desks.values()
    assert desk.sender.count.succeeded == (ends == ["used"])


async def test_a_stream_left_early_still_teaches_what_its_headers_say() -> None:
    told = {
        "x-ratelimit-limit-requests": "6000",
        "x-ratelimit-remaining-requests": "1000",
        "x-ratelimit-reset-requests": "50s",
    }
    watched = Watched(Response(200, headers=told, stream=Pieces(DATA, DATA)))
    response = await watched.send(STREAM)
    await response.stream.aclose()
    (desk,) = watched.limiter._desks.values()
    (lane,) = desk.sender.gate.scheduler.snapshot()
    assert lane.limits[0].level < 1001


async def test_a_stream_nobody_wants_gives_its_slot_back() -> None:
    watched = Watched(lambda: Response(200, stream=Pieces(DATA, LAST)))
    await watched.send(STREAM)
    gc.collect()
    assert watched.ends == []  # not from within the collector
    await asyncio.sleep(0)
    assert watched.ends == ["unknown"]


async def test_a_failure_in_the_middle_is_handed_on_and_noted() -> None:
    failed = b'data: {"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}\n\n'
    watched = Watched(Response(200, stream=Pieces(DATA, failed)))
    response = await watched.send(STREAM)
    assert [piece async for piece in response.stream] == [DATA, failed]
    assert watched.ends == ["refused"]


async def test_credits_that_end_in_the_middle_stop_nobody_for_ever() -> None:
    failed = b'data: {"error":{"message":"none left","code":"insufficient_quota"}}\n\n'
    watched = Watched(Response(200, stream=Pieces(DATA, failed)), answer())
    await read(await watched.send(STREAM))
    assert (await watched.send()).status_code == 200


async def test_a_stream_that_fails_at_once_for_good_is_handed_on_whole() -> None:
    failed = b'data: {"error":{"message":"wrong","type":"invalid_request_error"}}\n\n'
    body = Pieces(failed[:20], failed[20:], b"data: more\n\n")
    watched = Watched(Response(200, stream=body))
    response = await watched.send(STREAM)
    assert (response.status_code, await read(response)) == (200, failed + b"data: more\n\n")
    assert body.closed == 1


async def test_a_stream_that_is_refused_is_read_whole() -> None:
    watched = Watched(trouble(400))
    response = await watched.send(STREAM)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "no")


async def test_a_compressed_stream_is_not_listened_to() -> None:
    raw = zlib.compress(DATA + LAST, wbits=31)
    watched = Watched(answer(200, raw, **{"content-encoding": "gzip"}))
    assert await read(await watched.send(STREAM)) == raw
    assert watched.ends == ["used"]
