"""Streams: bytes as they came, judged like any reply, retried only while nothing was handed on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from wire_rig import CHAT, STREAM, Act, ask, head, make, missing, reply, served, then_close, then_reset

from ratelimit.errors import DeadlinePassed, KeyRejected, NotAnswered, QuotaExhausted, RateLimitError, RequestFailed
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.testing.mock import MockServer
from ratelimit.wire.client import Client
from ratelimit.wire.retry import Policy
from ratelimit.wire.transport import Bounds

RESPONSES = "/v1/responses"
SLOW = (Limit("requests", 10, DAY), Limit("tokens", 600, MINUTE))
EVENTS = b"HTTP/1.1 200 OK\r\n" + head({"Content-Type": "text/event-stream", "Connection": "close"})
FAILED = {"message": "The model failed", "code": "server_error"}
QUICK = Bounds(first_byte=20, between_bytes=10)


CHUNKED = b"HTTP/1.1 200 OK\r\n" + head({"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})


def chunk(raw: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def events(*data: object) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in data)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def streamed(*pieces: bytes, pause: float = 0) -> Act:
    return then_close(EVENTS, *pieces, pause=pause)


async def read(
    client: Client, path: str = "/v1/chat/completions", **options: Any
) -> tuple[bytes, RateLimitError | None]:
    """What a stream handed on, and what it raised."""
    body = ask(stream=True) if "chat" in path else {"model": "gpt-4o-mini", "input": "hi", "stream": True}
    found = b""
    try:
        async with client.stream(body, path, **options) as stream:
            async for piece in stream:
                found += piece
    except RateLimitError as error:
        return found, error
    return found, None


async def test_bytes_come_as_they_were_sent_and_usage_is_read() -> None:
    async with served(streamed(STREAM[:50], STREAM[50:51], STREAM[51:], pause=1), limits=SLOW) as (_, client):
        assert await read(client) == (STREAM, None)
        assert (client.count.succeeded, client.count.input_tokens, client.count.output_tokens) == (1, 10, 20)


async def test_pieces_are_handed_on_when_they_come() -> None:
    parts = [events(delta("a")), events(delta("b")), b"data: [DONE]\n\n"]
    async with served(streamed(*parts, pause=3)) as (_, client):
        clock = asyncio.get_running_loop().time
        async with client.stream(ask(stream=True)) as stream:
            assert stream.reply.status == 200
            came = [(round(clock()), piece) async for piece in stream]
    assert came == [(3, parts[0]), (6, parts[1]), (9, parts[2])]


@pytest.mark.parametrize("path", ["/v1/chat/completions", RESPONSES])
async def test_the_mock_streams_and_is_settled_by_usage(path: str) -> None:
    async with MockServer(output_tokens=20) as mock, make(mock.base_url, limits="tier-1") as client:
        raw, error = await read(client, path)
        assert error is None
        assert raw.endswith(b"data: [DONE]\n\n") == ("chat" in path)
        assert (client.count.succeeded, mock.stats.arrived) == (1, 1)


@pytest.mark.parametrize(
    "first",
    [
        reply({"error": {"message": "?"}}, 500),
        reply({"error": {"message": "?", "code": "rate_limit_exceeded"}}, 429, {"Retry-After": "1"}),
        then_reset(),
        then_reset(EVENTS),
        then_reset(EVENTS, events({"type": "response.created", "response": {"status": "queued"}})),
        streamed(b""),
        streamed(b": keep-alive\n\n"),
        streamed(b"<html>Bad gateway</html>"),
        streamed(events({"error": FAILED})),
        streamed(events({"error": "upstream"})),
        streamed(events({"type": "error", "code": "server_error", "message": "?", "param": None})),
        streamed(events({"type": "error", "code": 500, "message": None})),
        streamed(events({"type": "response.created"}, {"type": "response.failed", "response": {"error": FAILED}})),
        streamed(events({"type": "response.failed", "response": {"error": None}})),
        reply({"error": FAILED}),
        reply([1, 2]),
    ],
)
async def test_a_stream_that_fails_at_once_is_asked_for_again(first: bytes | Act) -> None:
    async with served(first, streamed(STREAM)) as (server, client):
        assert await read(client) == (STREAM, None)
        assert (len(server.requests), client.count.succeeded, client.count.retried) == (2, 1, 1)


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (
            streamed(events({"error": {"message": "?", "code": "insufficient_quota"}})),
            QuotaExhausted,
            "the account's quota",
        ),
        (
            streamed(events({"error": {"message": "?", "code": "invalid_api_key"}})),
            KeyRejected,
            "the service rejected the",
        ),
        (reply({}, 401), KeyRejected, "the service rejected the API key (401)"),
        (
            streamed(events({"error": {"message": "?", "type": "invalid_request_error"}})),
            RequestFailed,
            "the service answered 400",
        ),
        (reply({}, 404), RequestFailed, "the service answered 404: {}"),
    ],
)
async def test_what_is_final_is_final_in_a_stream(act: bytes | Act, kind: type[RateLimitError], said: str) -> None:
    async with served(act) as (server, client):
        raw, error = await read(client)
        assert (raw, type(error), len(server.requests)) == (b"", kind, 1)
        assert str(error).startswith(said)
        assert client.count.failed == 1


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"error": FAILED}, "the service answered 500 server_error: The model failed"),
        (
            {"type": "response.failed", "response": {"error": FAILED}},
            "the service answered 500 server_error: The model failed",
        ),
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "x"},
            "the service answered 429 rate_limit_exceeded: x",
        ),
    ],
)
async def test_a_failure_in_mid_stream_is_raised_after_its_bytes(last: object, said: str) -> None:
    raw = events(delta("a"), last)
    async with served(streamed(raw[:30], raw[30:], pause=0.1)) as (server, client):
        found, error = await read(client)
        assert (found, str(error), len(server.requests)) == (raw, said, 1)
        assert isinstance(error, RequestFailed)
        assert (client.count.failed, client.count.succeeded) == (1, 0)


async def test_the_mocks_failing_response_is_raised_after_its_bytes() -> None:
    async with MockServer() as mock, make(mock.base_url, limits="tier-1") as client:
        mock.fail_next("response_failed")
        raw, error = await read(client, RESPONSES)
        assert b"response.failed" in raw or mock.stats.arrived == 2
        assert error is None or isinstance(error, RequestFailed)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (then_reset(CHUNKED, chunk(events(delta("a")))), "the exchange with 127.0.0.1 broke off: "),
        (then_close(CHUNKED, chunk(events(delta("a")))), "the exchange with 127.0.0.1 broke off: "),
        (then_close(EVENTS + events(delta("a")), b"", pause=11), "127.0.0.1 was silent for too long"),
        (streamed(events(delta("a"))), "the stream stopped before its end"),
    ],
)
async def test_a_stream_that_breaks_off_raises_and_keeps_its_estimate(end: Act, said: str) -> None:
    async with served(end, bounds=QUICK, limits=SLOW) as (server, client):
        found, error = await read(client)
        assert (found, len(server.requests)) == (events(delta("a")), 1)
        assert isinstance(error, NotAnswered)
        assert str(error).startswith(said)
        assert "it may have been billed" in str(error)
        assert missing(client)["RPD"] == 1


async def test_a_connection_lost_after_the_last_word_is_no_failure() -> None:
    async with served(then_reset(CHUNKED, chunk(STREAM))) as (_, client):
        assert await read(client) == (STREAM, None)
        assert client.count.succeeded == 1


async def test_a_last_line_may_lack_its_end() -> None:
    last = {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    raw = events(delta("a"), last).rstrip(b"\n")
    async with served(streamed(raw)) as (_, client):
        assert await read(client) == (raw, None)
        assert client.count.output_tokens == 4


async def test_a_whole_answer_to_a_request_for_a_stream_is_an_answer() -> None:
    async with served(reply()) as (_, client):
        raw, error = await read(client)
        assert (json.loads(raw), error, client.count.output_tokens) == (CHAT, None, 20)


async def test_leaving_early_keeps_the_estimate() -> None:
    endless = streamed(*(events(delta("a")) for _ in range(10_000)), pause=1)
    async with served(endless, limits=SLOW) as (_, client):
        async with client.stream(ask(stream=True)) as stream:
            async for _ in stream:
                break
        assert missing(client)["RPD"] == 1
        assert (client.count.succeeded, client.count.failed) == (0, 0)


async def test_leaving_after_the_last_word_is_not_early() -> None:
    async with served(streamed(STREAM, b"", pause=5), limits=SLOW) as (_, client):
        async with client.stream(ask(stream=True)) as stream:
            async for piece in stream:
                if b"[DONE]" in piece:
                    break
        assert (client.count.succeeded, client.count.output_tokens) == (1, 20)
        assert missing(client)["TPM"] == 30 - 18  # the estimate has come back meanwhile; what it missed is taken now


async def test_a_stream_may_not_be_read_at_all() -> None:
    async with served(streamed(STREAM), limits=SLOW) as (_, client):
        async with client.stream(ask(stream=True)):
            pass
        assert missing(client)["RPD"] == 1


async def test_a_stream_is_read_once() -> None:
    async with served(streamed(STREAM)) as (_, client), client.stream(ask(stream=True)) as stream:
        assert b"".join([piece async for piece in stream]) == STREAM
        assert [piece async for piece in stream] == []


async def test_a_callers_own_errors_and_pauses_are_its_own() -> None:
    async with served(streamed(events(delta("a")), STREAM, pause=1), bounds=QUICK) as (_, client):
        for mine in (TimeoutError("mine"), ConnectionError("mine")):

            async def raise_mine(error: Exception = mine) -> None:
                async with client.stream(ask(stream=True)) as stream:
                    async for _ in stream:
                        await asyncio.sleep(1000)  # longer than any bound
                        raise error

            with pytest.raises(type(mine), match="mine") as caught:
                await raise_mine()
            assert caught.value is mine


async def test_the_deadline_counts_to_the_last_byte() -> None:
    async with served(streamed(*(events(delta("a")) for _ in range(100)), pause=5)) as (_, client):
        found, error = await read(client, deadline=33)
        assert isinstance(error, DeadlinePassed)
        assert str(error) == (
            "no answer within the deadline of 33 s: the stream has not ended; allow more time or send less at once"
        )
        assert found == events(delta("a")) * 6
        assert asyncio.get_running_loop().time() == pytest.approx(33)


async def test_attempts_of_streams_are_counted() -> None:
    async with served(streamed(events({"error": FAILED})), policy=Policy(attempts=3)) as (server, client):
        raw, error = await read(client)
        assert (raw, str(error)) == (b"", "the service answered 500 server_error: The model failed")
        assert (len(server.requests), client.count.failed) == (3, 1)


async def test_a_cancelled_stream_ends_its_turn() -> None:
    async with served(streamed(*(events(delta("a")) for _ in range(100)), pause=5), limits=SLOW) as (_, client):
        task = asyncio.create_task(read(client))
        await asyncio.sleep(12)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert missing(client)["RPD"] == 1
