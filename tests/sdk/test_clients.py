"""Whatever an SDK client was made with survives, on any loop."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import threading
import weakref
from typing import Any

import pytest

from ratelimit.admission.blocking import Background
from ratelimit.errors import BadClient
from ratelimit.openai import rate_limited
from ratelimit.testing.mock import MockServer
from ratelimit.wire.sdk_pools import Pools
from sdk.conftest import HELLO, MODEL, NAMES, lane_of, limiter_of, sender_of, table


async def test_a_client_over_aiohttp_stays_one(openai: Any, mock: MockServer) -> None:
    http = openai.DefaultAioHttpClient()
    kind = type(http._transport)
    async with openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test", http_client=http, timeout=0.5) as bare:
        client = rate_limited(bare, table=table())
        assert type(client._client._transport.inner) is kind
        assert kind.__name__ == "AiohttpTransport"
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(70)))
        assert loop.time() > 10
        stream = await client.chat.completions.create(**HELLO, stream=True)
        assert [chunk async for chunk in stream]
        mock.fault("reset")
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(**HELLO)
    assert lane_of(client).in_flight == 0


async def test_proxies_of_the_environment_are_used(
    openai: Any, mock: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", mock.root_url)
    async with openai.AsyncOpenAI(base_url="http://nowhere.invalid/v1", api_key="sk-test", max_retries=0) as bare:
        client = rate_limited(bare, table=table())
        assert [str(type(each).__name__) for each in client._client._mounts.values()] == ["AsyncLimitedTransport"]
        assert (await client.chat.completions.create(**HELLO)).choices
    assert sender_of(client).count.succeeded == 1


async def test_what_the_http_client_was_made_with_is_kept(openai: Any, http: Any, mock: MockServer) -> None:
    seen = []

    async def hook(request: Any) -> None:
        seen.append(request.headers["x-mine"])

    made = openai.DefaultAsyncHttpxClient(headers={"x-mine": "yes"}, event_hooks={"request": [hook]})
    async with openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test", http_client=made) as bare:
        client = rate_limited(bare, table=table())
        await client.chat.completions.create(**HELLO)
    assert seen == ["yes"]


async def test_a_client_over_the_older_http_library_works(openai: Any, mock: MockServer) -> None:
    httpx = importlib.import_module("httpx")
    async with (
        httpx.AsyncClient() as made,
        openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test", http_client=made, max_retries=0) as bare,
    ):
        client = rate_limited(bare, table=table())
        assert (await client.chat.completions.create(**HELLO)).choices
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**{**HELLO, "model": "gpt-none"})
        mock.fault("reset")
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(**HELLO)


class Azure:
    """A transport that takes Azure's paths to the mock's."""

    def __init__(self, inner: Any, seen: list[str]) -> None:
        self.inner = inner
        self.seen = seen

    async def handle_async_request(self, request: Any) -> Any:
        self.seen.append(request.url.path)
        end = request.url.path.removeprefix(f"/openai/deployments/{MODEL}").removeprefix("/openai")
        request.url = request.url.copy_with(path=f"/v1{end}", query=None)
        request.headers["authorization"] = "Bearer " + request.headers.pop("api-key")
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_azure_deployments_are_limited_by_their_own_names(openai: Any, http: Any, mock: MockServer) -> None:
    seen: list[str] = []
    made = http.AsyncClient(transport=Azure(http.AsyncHTTPTransport(), seen))
    bare = openai.AsyncAzureOpenAI(
        azure_endpoint=mock.root_url, api_version="2024-10-21", api_key="key", http_client=made, max_retries=0
    )
    client = rate_limited(bare, table=table())
    assert type(client) is openai.AsyncAzureOpenAI
    assert (await client.chat.completions.create(**HELLO)).choices
    assert seen == [f"/openai/deployments/{MODEL}/chat/completions"]
    assert lane_of(client).name == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**{**HELLO, "model": "my own"})
    assert 'no table has limits for the model "my own"' in caught.value.body["message"]
    assert await client.chat.completions.create(**HELLO, stream=True)
    await client.close()


async def test_closing_either_closes_both_and_dropping_the_original_closes_none(openai: Any, mock: MockServer) -> None:
    bare = openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test")
    http = weakref.ref(bare._client)  # it closes when it is garbage, and the transport with it
    client = rate_limited(bare, table=table())
    del bare
    gc.collect()
    await asyncio.sleep(0.1)
    assert http() is not None
    assert (await client.chat.completions.create(**HELLO)).choices
    assert (await copy.copy(client).chat.completions.create(**HELLO)).choices
    await client.close()
    assert client.is_closed()


async def test_dropping_the_copy_disturbs_nobody(bare: Any, mock: MockServer) -> None:
    mock.fail_next("hang", seconds=3)
    under_way = asyncio.create_task(bare.chat.completions.create(**HELLO))
    await asyncio.sleep(1)
    rate_limited(bare, table=table())
    gc.collect()
    await asyncio.sleep(1)
    assert (await under_way).choices
    assert mock.stats.arrived == 1


@pytest.mark.parametrize("settings", [{"table": table()}, {"tier": "tier-2"}, {"observer": print}])
async def test_limits_are_set_once(client: Any, bare: Any, settings: Any) -> None:
    (name,) = settings
    with pytest.raises(BadClient, match=f"^share cannot go with {name}; set them on the client that is shared with$"):
        rate_limited(bare, share=client, **settings)


async def test_what_cannot_be_limited_is_refused(client: Any, bare: Any, openai: Any) -> None:
    with pytest.raises(BadClient) as caught:
        rate_limited(client)
    assert str(caught.value) == (
        "AsyncOpenAI is limited already; limit the client it was made from, with share= to share limits"
    )
    with pytest.raises(BadClient) as caught:
        rate_limited(openai.AsyncOpenAI)
    assert str(caught.value) == "AsyncOpenAI is no client of the OpenAI SDK; pass an AsyncOpenAI() or an OpenAI()"
    with pytest.raises(BadClient) as caught:
        rate_limited(bare, share=bare)
    assert str(caught.value) == "share is a client without limits; pass one that rate_limited has returned"


def _for_many_loops(openai: Any, served: tuple[MockServer, Background], kind: str) -> Any:
    """A client that keeps its connections, which belong to a loop."""
    server, background = served
    background.call(lambda: server.set_limits(rpm=600))
    made = getattr(openai, kind)()
    return rate_limited(
        openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-test", http_client=made), table=table(rpm=600)
    )


KINDS = ["DefaultAsyncHttpxClient", "DefaultAioHttpClient"]
# The SDK's HTTP client, too, closes when it is garbage, on a loop that may have ended.
ENDED = pytest.mark.filterwarnings("ignore:unclosed", "ignore:Unclosed", "ignore:coroutine .AsyncClient.aclose")


@ENDED
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_has_ended_leaves_its_line_to_the_next(
    openai: Any, served: tuple[MockServer, Background], kind: str
) -> None:
    server, background = served
    client = _for_many_loops(openai, served, kind)
    background.call(lambda: server.fault("no_headers"))  # which would tell what was spent

    async def five() -> None:
        await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(5)))

    asyncio.run(five())
    first = limiter_of(client)._loop
    asyncio.run(five())
    assert limiter_of(client)._loop is not first
    spent = sender_of(client).gate.scheduler.spent()[MODEL]
    assert next(iter(spent.values())) > 5
    assert served[0].stats.arrived == 10  # none over a connection whose loop has ended
    asyncio.run(client.close())


@ENDED
@pytest.mark.parametrize("kind", KINDS)
def test_loops_at_once_share_one_line(openai: Any, served: tuple[MockServer, Background], kind: str) -> None:
    assert _three_loops_at_once(openai, served, kind) == (18, 1)
    # httpx has one pool for all loops: it may close a connection of a loop that has just ended, which closes nothing.
    gc.collect()


def _three_loops_at_once(openai: Any, served: tuple[MockServer, Background], kind: str) -> tuple[int, int]:
    """Return how many requests have arrived, and through how many lines."""
    client = _for_many_loops(openai, served, kind)
    together = threading.Barrier(3, timeout=20)

    async def five() -> None:
        together.wait()
        await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(5)))
        stream = await client.chat.completions.create(**HELLO, stream=True)
        assert [chunk async for chunk in stream]
        together.wait()

    threads = [threading.Thread(target=asyncio.run, args=(five(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert limiter_of(client)._threaded
    assert set(NAMES) > {MODEL}
    return served[0].stats.arrived, len(limiter_of(client)._desks)


def test_a_fork_has_connections_of_its_own(http: Any) -> None:
    given = http.HTTPTransport()
    pools = Pools(given)
    assert pools.of(1) is pools.of(1) is given
    child = pools.of(2)
    assert child is pools.of(2)
    assert child._pool.connections == []
    assert child._pool is not given._pool
    assert (pools.pop(1), pools.pop(2), pools.pop(2)) == ([], [child], [])


def test_connections_are_let_go_of_when_their_loop_has_ended(http: Any) -> None:
    pools = Pools(http.AsyncHTTPTransport())
    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops:
        pools.of(loop)
        loop.close()
    assert list(pools._others) == loops[2:]


def test_a_transport_of_another_kind_serves_all_loops(http: Any) -> None:
    given = http.MockTransport(lambda _: http.Response(200))
    pools = Pools(given)
    assert pools.of(1) is pools.of(2) is given
