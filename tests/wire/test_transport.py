"""What can go wrong on the wire becomes one of two things, and ends the hold by what is known of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import socket
import zlib
from typing import Any

import pytest
from wire_rig import CHAT, KEY, MODEL, Act, Raw, after, ask, head, make, missing, reply, served, then_close, then_reset

from ratelimit.errors import BadSettings, HostNotTrusted, NotAnswered, RateLimitError
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.wire.messages import request
from ratelimit.wire.retry import Policy
from ratelimit.wire.transport import Bounds, Endpoint, NoAnswer, Transport, Unsent

ONCE = Policy(attempts=1)
QUICK = Bounds(connect=5, first_byte=20, between_bytes=10, reply=60, body=100_000)
HINT = "If this persists, look at the network, the base URL and the time-outs"
SLOW = (Limit("requests", 10, DAY), Limit("tokens", 60, MINUTE))  # filling so slowly that what was taken shows
ESTIMATE = {"RPD": 1, "TPM": 18}  # one request, two bytes and a message, and the 16 of output that once were charged
USED = {"RPM": 1, "TPM": 30}
NOTHING = {"RPD": 0, "TPM": 0}
RAW = json.dumps(CHAT).encode()
OK = b"HTTP/1.1 200 OK\r\n"


async def failure(*acts: bytes | Act, **options: Any) -> tuple[str, dict[str, float], int]:
    """The message of a single attempt's failure, what is missing from the buckets right after, and the time it took."""
    async with served(*acts, policy=ONCE, bounds=QUICK, limits=SLOW, **options) as (server, client):
        start = asyncio.get_running_loop().time()
        with pytest.raises(RateLimitError) as caught:
            await client.send(ask())
        took = asyncio.get_running_loop().time() - start
        assert len(server.requests) == 1
        assert caught.value.__cause__ is None
        assert KEY not in repr(caught.value)
        return str(caught.value).replace(str(server.port), "PORT"), missing(client), round(took)


async def test_a_reply_is_a_reply() -> None:
    async with served(reply(headers={"x-request-id": "req_1"})) as (server, client):
        answer = await client.send(ask())
        assert (answer.status, answer.text, answer.request_id, answer.body) == (200, "hello there", "req_1", RAW)
        assert missing(client) == USED
        line, headers, body = server.requests[0]
        assert line == "POST /v1/chat/completions HTTP/1.1"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["content-type"] == "application/json"
        assert json.loads(body) == ask()


async def test_the_bytes_of_a_body_are_sent_as_they_came() -> None:
    body = b' {"model" : "gpt-4o-mini",\n "messages": [{"role":"user","content":"\xc3\xa4\\u00e4"}], "x": 1.50 } '
    async with served(reply()) as (server, client):
        for form in (body, body.decode(), bytearray(body), memoryview(body), request(body)):
            await client.send(form)  # type: ignore[arg-type]  # some are more than is promised
        assert [sent for _, _, sent in server.requests] == [body] * 5


async def test_a_large_body_goes_out_whole() -> None:
    async with served(reply(), policy=ONCE) as (server, client):
        await client.send(ask("x" * 300_000, metadata={"note": "y" * 3_000_000}))
        assert len(server.requests[0][2]) > 3_300_000
        assert server.requests[0][1]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (then_reset(), "the exchange with 127.0.0.1 broke off: [Errno 104] Connection reset by peer"),
        (then_close(), "the exchange with 127.0.0.1 broke off: Server disconnected"),
        (then_reset(OK + head({"Content-Length": "900"})), "the exchange with 127.0.0.1 broke off: "),
        (then_reset(OK + head({"Content-Length": "900"}) + RAW[:100]), "the exchange with 127.0.0.1 broke off: "),
        (then_close(OK + head({"Content-Length": "900"}) + RAW[:100]), "the exchange with 127.0.0.1 broke off: "),
        (then_close(OK + head({"Transfer-Encoding": "chunked"}) + b"5\r\nhel"), "the exchange with 127.0.0.1 broke "),
        (then_close(OK + head({"Transfer-Encoding": "chunked"}) + b"zz\r\nhello\r\n0\r\n\r\n"), "the exchange with "),
        (then_close(OK + head({"Transfer-Encoding": "chunked"}) + b"-5\r\nhello\r\n0\r\n\r\n"), "the exchange with "),
        (then_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "the exchange with 127.0.0.1 broke off: "),
        (then_close(b"HTTP/1.1 twohundred OK\r\n\r\n"), "the exchange with 127.0.0.1 broke off: "),
        (then_close(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), "the exchange with 127.0.0.1 broke "),
        (then_close(OK + b"x: " + b"y" * 200_000 + b"\r\n\r\n"), "the exchange with 127.0.0.1 broke off: "),
        (reply(RAW, headers={"Content-Encoding": "gzip"}), "the exchange with 127.0.0.1 broke off: "),
        (reply(gzip.compress(RAW)[20:], headers={"Content-Encoding": "gzip"}), "the exchange with 127.0.0.1 broke "),
    ],
)
async def test_what_breaks_off_may_have_been_billed(act: bytes | Act, said: str) -> None:
    message, buckets, took = await failure(act)
    assert message.startswith(said)
    assert message.endswith(f"; it may have been billed. {HINT}")
    assert (buckets, took) == (ESTIMATE, 0)


@pytest.mark.parametrize("packed", [gzip.compress(RAW)[:-30], gzip.compress(RAW)[:40] + b"lies"])
async def test_a_compressed_reply_that_ends_early_is_broken(packed: bytes) -> None:
    message, buckets, _ = await failure(reply(packed, headers={"Content-Encoding": "gzip"}))
    assert message.startswith(("the service answered 500 broken_reply: ", "the exchange with 127.0.0.1 broke off: "))
    assert buckets == ESTIMATE


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip", gzip.compress(RAW)), ("deflate", zlib.compress(RAW)), ("identity", RAW)]
)
async def test_compressed_replies_are_read(coding: str, packed: bytes) -> None:
    async with served(reply(packed, headers={"Content-Encoding": coding})) as (_, client):
        assert (await client.send(ask())).body == RAW


async def test_http_1_0_ends_with_the_connection() -> None:
    async with served(then_close(b"HTTP/1.0 200 OK\r\n\r\n" + RAW[:50], RAW[50:], pause=0.1)) as (server, client):
        assert (await client.send(ask())).text == "hello there"
        assert (await client.send(ask())).text == "hello there"
        assert server.connections == 2


async def test_nothing_is_read_of_a_bomb_but_its_beginning() -> None:
    block = zlib.compressobj(9, wbits=31)
    bomb = b"".join(block.compress(bytes(1_000_000)) for _ in range(300)) + block.flush()
    assert len(bomb) < 400_000
    message, buckets, _ = await failure(reply(bomb, headers={"Content-Encoding": "gzip"}))
    assert message == (
        "the service answered 200 reply_too_large: the reply is larger than 100,000 bytes; raise max_body_bytes if "
        "that is expected"
    )
    assert buckets == ESTIMATE


async def test_an_endless_reply_is_left_at_the_bound() -> None:
    written = 0

    async def flood(_server: Raw, writer: asyncio.StreamWriter) -> bool:
        nonlocal written
        writer.write(OK + b"\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 10_000)
            written += 10_000
            await writer.drain()
        return False

    message, _, _ = await failure(flood)
    assert "reply_too_large" in message
    assert written < 20_000_000  # what the kernel's buffers take, and not for ever more


@pytest.mark.parametrize(
    ("act", "seconds"),
    [
        (after(1000, reply()), 25),  # connect and first byte
        (then_close(OK + head({"Content-Length": "900"}), RAW, pause=11), 10),
        (then_close(OK + head({"Content-Length": "900"}) + RAW[:9], RAW[9:], pause=11), 10),
        (then_close(OK + head({"Content-Length": "900"}), *(b"{" for _ in range(99)), pause=9), 60),
    ],
)
async def test_four_silences_are_bounded(act: Act, seconds: int) -> None:
    message, buckets, took = await failure(act)
    assert message == f"127.0.0.1 was silent for too long; it may have been billed. {HINT}"
    assert took == seconds
    assert buckets == {"RPD": 1, "TPM": max(ESTIMATE["TPM"] - seconds, 0)}  # tokens come back meanwhile, one a second


async def test_a_slow_reply_within_the_bounds_is_a_reply() -> None:
    slow = then_close(
        OK + head({"Content-Length": str(len(RAW))}), *(RAW[n : n + 100] for n in range(0, 900, 100)), pause=5
    )
    async with served(slow, bounds=QUICK) as (_, client):
        assert (await client.send(ask())).text == "hello there"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/v1", "no connection to 127.0.0.1: Cannot connect to host 127.0.0.1:1 ssl:default "),
        ("http://nowhere.invalid/v1", "no connection to nowhere.invalid: Cannot connect to host nowhere.invalid:80 "),
    ],
)
async def test_without_a_connection_nothing_was_sent(url: str, said: str) -> None:
    async with make(url, policy=ONCE, limits=SLOW) as client:
        with pytest.raises(NotAnswered) as caught:
            await client.send(ask())
        assert str(caught.value).startswith(said)
        assert str(caught.value).endswith(f"; it was not sent. {HINT}")
        assert not caught.value.sent
        assert missing(client) == NOTHING


async def test_a_connection_that_is_not_accepted_is_unsent() -> None:
    with socket.socket() as full:  # the kernel takes one connection for it, and no more
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        with socket.create_connection(full.getsockname()):
            async with Transport(Endpoint(url), Bounds(connect=3)) as transport:
                with pytest.raises(Unsent) as caught:
                    await transport.post(request(ask()))
    assert str(caught.value) == f"no connection to 127.0.0.1: Connection timeout to host {url}/chat/completions"


async def test_a_redirect_is_refused() -> None:
    there = "https://elsewhere.example/v1"
    message, _, _ = await failure(reply(b"", 307, {"Location": there}))
    assert message == (
        f"127.0.0.1 is not to be trusted with the key: it redirects to {there}; check the base URL and the proxy"
    )


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_the_key_goes_nowhere_else(status: int) -> None:
    async with Raw(reply()) as other:
        away = reply(b"", status, {"Location": other.url})
        async with served(away, policy=ONCE) as (server, client):
            with pytest.raises(HostNotTrusted):
                await client.send(ask())
            with pytest.raises(HostNotTrusted):
                await client.send(ask())
            async with make(server.url, policy=ONCE) as another:
                with pytest.raises(HostNotTrusted):
                    async with another.stream(ask(stream=True)):
                        pass
            assert (len(server.requests), other.requests) == (2, [])


@pytest.mark.parametrize("path", ["@other.example/x", ".other.example/x", "80/x", "//other.example/x", "/v1@other/x"])
def test_no_path_leads_to_another_host(path: str) -> None:
    asked = request(ask(), "/v1/chat/completions")
    object.__setattr__(asked, "path", path)
    assert (
        Endpoint("http://127.0.0.1:80").url(asked).origin()
        == Endpoint("http://127.0.0.1:80").url(request(ask())).origin()
    )


@pytest.mark.parametrize("url", ["api.openai.com/v1", "ftp://h/v1", "http:///v1", "https://me:secret@h/v1", ""])
def test_a_base_url_is_an_http_url_without_a_login(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        Endpoint(url)
    assert str(caught.value) == "base_url is not one that requests can go to: an http or https URL without a login"


async def test_no_secret_is_shown() -> None:
    endpoint = Endpoint("http://127.0.0.1:1/v1", {"Authorization": f"Bearer {KEY}"}, {"key": KEY})
    transport = Transport(endpoint)
    async with transport:
        with pytest.raises(Unsent) as caught:
            await transport.post(request(ask("private words")))
        for shown in (repr(endpoint), repr(transport), repr(request(ask("private words"))), repr(caught.value)):
            assert KEY not in shown
            assert "private words" not in shown
    async with served(then_close(b"HTTP/1.1 nonsense\r\n\r\n"), policy=ONCE, query={"key": KEY}) as (_, client):
        with pytest.raises(NotAnswered) as broken:
            await client.send(ask())
        assert KEY not in str(broken.value)


async def test_a_transport_is_opened_before_it_sends() -> None:
    transport = Transport(Endpoint("http://127.0.0.1:1/v1"))
    with pytest.raises(RuntimeError, match=r"^open the client with `async with` before sending$"):
        await transport.post(request(ask()))


async def test_a_cancelled_request_keeps_its_estimate() -> None:
    async with served(after(100, reply()), limits=SLOW) as (_, client):
        task = asyncio.create_task(client.send(ask()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert missing(client) == ESTIMATE


async def test_as_many_connections_as_requests() -> None:
    # Both ends of each connection are files of this process here.
    many = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 200)
    async with served(after(5, reply()), concurrency=many) as (server, client):
        results = [result async for result in client.map(ask(f"{n}") for n in range(many))]
        assert all(result.reply for result in results)
        assert server.most_in_flight == many
        assert client.count.retried == 0


async def test_azures_paths_headers_and_query() -> None:
    options: dict[str, Any] = {"headers": {"api-key": KEY}, "query": {"api-version": "2024-10-21"}, "deployments": True}
    refused = reply({"error": {"code": "429", "message": "Please retry after 33 seconds."}}, 429, {"Retry-After": "33"})
    async with Raw(refused, reply()) as server, make(server.url.replace("/v1", "/openai"), **options) as client:
        start = asyncio.get_running_loop().time()
        assert (await client.send(ask())).text == "hello there"
        assert asyncio.get_running_loop().time() - start == pytest.approx(33)
        await client.send({"model": "gpt-4o-mini-2024-07-18", "input": "hi"}, "/v1/embeddings")
    lines = [line for line, _, _ in server.requests]
    assert lines[1:] == [
        f"POST /openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21 HTTP/1.1",
        "POST /openai/deployments/gpt-4o-mini-2024-07-18/embeddings?api-version=2024-10-21 HTTP/1.1",
    ]
    assert {headers["api-key"] for _, headers, _ in server.requests} == {KEY}
    assert "authorization" not in server.requests[0][1]


@pytest.mark.parametrize(("model", "shown"), [("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("ä b", "%C3%A4%20b")])
def test_a_deployment_is_one_part_of_the_path(model: str, shown: str) -> None:
    url = Endpoint("https://x.example/openai", deployments=True).url(request({"model": model}))
    assert str(url.raw_path) == f"/openai/deployments/{shown}/chat/completions"
    assert not url.query


def test_azure_has_responses_beside_its_deployments() -> None:
    url = Endpoint("https://x.example/openai", deployments=True).url(request({"model": "m"}, "/v1/responses"))
    assert url.path == "/openai/responses"


async def test_no_answer_and_unsent_are_told_apart() -> None:
    async with Raw(then_reset()) as server, Transport(Endpoint(server.url)) as transport:
        with pytest.raises(NoAnswer):
            await transport.post(request(ask()))
    async with Transport(Endpoint(server.url)) as transport:
        with pytest.raises(Unsent):
            await transport.post(request(ask()))


async def test_a_large_reply_is_put_together_once() -> None:
    large = reply(b'{"text":"' + b"x" * 30_000_000 + b'"}')
    async with served(large) as (_, client):
        assert len((await client.send(ask())).body) == 30_000_011
    message, _, _ = await failure(reply(b'{"text":"' + b"x" * 100_000 + b'"}'))
    assert "reply_too_large" in message
