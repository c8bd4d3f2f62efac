"""The drop-in without the SDK: what it limits, what it makes of errors, and what only a script can bring about."""

from __future__ import annotations

import asyncio
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from sdk_stub import (
    BODY,
    DATA,
    LAST,
    STREAM,
    AsyncByteStream,
    AsyncHttp,
    ConnectError,
    Pieces,
    ProxyError,
    ReadTimeout,
    Request,
    Response,
    Script,
    Sdk,
    SyncByteStream,
    Watched,
    answer,
    read,
    table,
    trouble,
)

from ratelimit import errors
from ratelimit.openai import rate_limited
from ratelimit.wire.sdk_exchange import at_once
from ratelimit.wire.sdk_refusals import refuse
from ratelimit.wire.sdk_requests import plain


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "request_",
    [
        Request(BODY, method="GET"),
        Request(BODY, "https://api.openai.com/v1/files"),
        Request(BODY, "https://api.openai.com/v1/chat/completions/chatcmpl-1"),
        Request(BODY, content_type="multipart/form-data; boundary=x"),
        Request(None),
        Request(b"{"),
        Request([1]),
        Request({"messages": []}),
        Request({"model": None}),
    ],
)
async def test_what_has_no_limits_is_passed_on_untouched(request_: Request) -> None:
    reply = answer()
    watched = Watched(reply)
    assert await watched.client.asend(request_) is reply
    assert watched.script.seen == [request_]
    assert watched.ends == []


@pytest.mark.parametrize("end", ["chat/completions", "responses", "embeddings", "completions", "moderations"])
async def test_five_endpoints_are_limited_wherever_they_are(end: str) -> None:
    watched = Watched(answer())
    await watched.send(url=f"http://localhost:8000/any/{end}", content_type="application/json; charset=utf-8")
    assert watched.ends == ["used"]


async def test_a_deployment_in_the_path_is_the_model() -> None:
    watched = Watched(answer())
    url = "https://x.openai.azure.com/openai/deployments/{}/chat/completions"
    await watched.send({**BODY, "model": "whatever"}, url=url.format("gpt-4o-mini"))
    assert watched.ends == ["used"]
    refused = await watched.send(url=url.format("my%20own"))
    assert refused.status_code == 404
    assert 'no table has limits for the model "my own"' in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.NeverFits("TPM", 5, 4), 429, "tokens", "rate_limit_exceeded"),
        (errors.DeadlinePassed(5, "why"), 429, "requests", "deadline_passed"),
        (errors.WaitedTooLong("lane", 5, 1, None), 429, "requests", "deadline_passed"),
        (errors.QuotaExhausted("insufficient_quota", "m"), 429, "insufficient_quota", "insufficient_quota"),
        (errors.UnknownModel("m", []), 404, "invalid_request_error", "model_not_found"),
        (errors.KeyRejected(403, "m"), 403, "invalid_request_error", "invalid_api_key"),
        (errors.SharedStoreAway("where", "why"), 503, "server_error", "shared_limits_unavailable"),
        (errors.StoreUnusable("where", "p", "r"), 503, "server_error", "shared_limits_unavailable"),
        (errors.InputTooLong("m", 5, 4), 400, "invalid_request_error", "context_length_exceeded"),
        (errors.OutputTooLong("m", 5, 4), 400, "invalid_request_error", "invalid_value"),
        (errors.RequestInvalid("p", "r"), 400, "invalid_request_error", None),
    ],
)
def test_errors_become_replies_of_the_services_shape(
    error: errors.RateLimitError, status: int, kind: str, code: str | None
) -> None:
    request = Request(BODY)
    response = refuse(request, error)
    assert (type(response), response.request, response.status_code) == (Response, request, status)
    assert response.json() == {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
    assert response.headers == {
        "content-type": "application/json",
        "x-should-retry": "false",
        "x-ratelimit-error": type(error).__name__,
    }


async def test_the_response_is_the_transports_own_with_its_body_put_back() -> None:
    reply = answer()
    body = reply.stream
    watched = Watched(reply)
    assert await watched.send() is reply
    assert isinstance(reply.stream, (AsyncByteStream, SyncByteStream))
    assert await read(reply) == body.pieces[0]
    assert body.closed == 1


async def test_a_compressed_body_is_read_and_handed_on_as_it_came() -> None:
    raw = zlib.compress(json.dumps({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode(), wbits=31)
    watched = Watched(answer(200, raw, **{"content-encoding": "gzip"}))
    assert await read(await watched.send()) == raw
    (desk,) = watched.limiter._desks.values()
    assert (desk.sender.count.input_tokens, desk.sender.count.output_tokens) == (3, 4)


@pytest.mark.parametrize(
    ("failure", "ends"),
    [
        (ConnectError("nobody there"), ["unsent"] * 3),
        (ProxyError("refused"), ["unsent"] * 3),
        (ReadTimeout(""), ["unknown"] * 3),
    ],
)
async def test_failures_of_the_transport_are_retried_and_then_raised_as_they_are(
    failure: Exception, ends: list[str]
) -> None:
    watched = Watched(failure, retries=2)
    with pytest.raises(type(failure)) as caught:
        await watched.send()
    assert caught.value is failure
    assert watched.ends == ends


async def test_what_nobody_knows_is_raised_at_once() -> None:
    watched = Watched(ValueError("a bug"), retries=2)
    with pytest.raises(ValueError, match=r"^a bug$"):
        await watched.send()
    assert watched.ends == ["unknown"]


async def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    broken = Response(200, stream=Pieces(b'{"us', ReadTimeout("slow")))
    watched = Watched(broken, answer(), retries=1)
    assert (await watched.send()).status_code == 200
    assert broken.stream.closed == 1
    assert watched.ends == ["unknown", "used"]


async def test_a_reply_that_is_no_json_is_asked_for_again_and_then_handed_on() -> None:
    watched = Watched(lambda: answer(200, b"<html>"), retries=1)
    response = await watched.send()
    assert (response.status_code, await read(response)) == (200, b"<html>")
    assert len(watched.script.seen) == 2


async def test_a_redirect_is_the_clients_to_follow() -> None:
    watched = Watched(answer(307, b"", location="/elsewhere"))
    assert (await watched.send()).headers["location"] == "/elsewhere"


@pytest.mark.parametrize(
    ("reply", "final"),
    [
        (trouble(400), None),
        (trouble(500), None),
        (trouble(401), "false"),
        (trouble(429, "insufficient_quota"), "false"),
        (
            trouble(429, None, "Request too large for gpt-4o-mini on tokens per min (TPM): Limit 1, Requested 2."),
            "false",
        ),
    ],
)
async def test_the_sdk_is_told_not_to_retry_what_no_retry_cures(reply: Response, final: str | None) -> None:
    watched = Watched(reply)
    response = await watched.send()
    assert response is reply
    assert response.headers.get("x-should-retry") == final


def test_of_a_header_that_came_twice_the_first_counts() -> None:
    class Twice:
        raw = ((b"Retry-After", b"1"), (b"retry-after", b"2"))

    assert plain(Twice()) == {"retry-after": "1"}


def test_threads_make_their_exchanges_themselves() -> None:
    watched = Watched(trouble(500), answer(), retries=1, blocking=True)
    assert watched.client.send(Request(BODY)).status_code == 200
    response = Watched(Response(200, stream=Pieces(DATA, LAST)), blocking=True).client.send(Request(STREAM))
    assert list(response.stream) == [DATA, LAST]
    response.stream.close()
    assert Watched(answer(), blocking=True).client.send(Request(BODY, method="GET")).status_code == 200
    unknown = Watched(answer(), blocking=True).client.send(Request({**BODY, "model": "none"}))
    assert unknown.status_code == 404
    free = Request({"model": "none", "input": ""}, "https://api.openai.com/v1/moderations")
    assert Watched(answer(), blocking=True).client.send(free).status_code == 200
    halted = Watched(trouble(401), blocking=True)
    assert [halted.client.send(Request(BODY)).headers.get("x-ratelimit-error") for _ in range(2)] == [
        None,
        "JobStopped",
    ]
    with pytest.raises(ConnectError, match=r"^gone$"):
        Watched(ConnectError("gone"), blocking=True).client.send(Request(BODY))


async def test_a_free_model_nobody_knows_is_not_limited() -> None:
    watched = Watched(answer())
    await watched.send({"model": "none", "input": ""}, url="https://api.openai.com/v1/moderations")
    assert (len(watched.script.seen), watched.ends) == (1, [])


async def test_opening_and_closing_reach_the_transport_behind() -> None:
    watched = Watched(answer())
    transport = watched.client._client._transport
    async with transport as entered:
        assert entered is transport
    await transport.aclose()
    assert watched.script.seen == ["entered", "left", "closed"]
    blocking = Watched(answer(), blocking=True).client._client._transport
    with blocking as entered:
        assert entered is blocking
    blocking.close()
    assert blocking.inner.seen == ["entered", "left", "closed"]


async def test_every_transport_of_the_client_is_covered() -> None:
    script = Script(answer())
    bare = Sdk(AsyncHttp(script, {"https://": Script(answer()), "all://direct": None}))
    client = rate_limited(bare, table=table())
    mounts = client._client._mounts
    assert mounts["https://"].limiter is client._client._transport.limiter
    assert mounts["all://direct"] is None
    assert (bare._client._transport, bare.max_retries, client.max_retries) == (script, 2, 0)
    assert repr(client._client._transport) == f"<AsyncLimitedTransport <Limiter unused> in front of {script!r}>"


def test_a_synchronous_exchange_cannot_suspend() -> None:
    work = asyncio.sleep(1)
    with pytest.raises(RuntimeError, match=r"^a synchronous exchange has suspended$"):
        at_once(_suspending())
    work.close()


async def _suspending() -> None:
    class Never:
        def __await__(self) -> Any:
            yield

    await Never()


def test_what_cannot_be_limited_is_refused() -> None:
    limited = rate_limited(Sdk(AsyncHttp(Script(answer()))), table=table())
    with pytest.raises(errors.BadClient) as caught:
        rate_limited(limited, table=table())
    assert str(caught.value) == "Sdk is limited already; limit the client it was made from, with share= to share limits"
    with pytest.raises(errors.BadClient) as caught:
        rate_limited(object(), table=table())
    assert str(caught.value) == "object is no client of the OpenAI SDK; pass an AsyncOpenAI() or an OpenAI()"
    with pytest.raises(errors.BadClient) as caught:
        rate_limited(Sdk(AsyncHttp(Script(answer()))), share=limited, tier="tier-2")
    assert str(caught.value) == "share cannot go with tier; set them on the client that is shared with"
    with pytest.raises(errors.BadClient) as caught:
        rate_limited(Sdk(AsyncHttp(Script(answer()))), share=Sdk(AsyncHttp(Script(answer()))))
    assert str(caught.value) == "share is a client without limits; pass one that rate_limited has returned"
