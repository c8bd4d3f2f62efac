"""The transports that stand in front of the SDK's own, and let its requests wait for their turn.

A transport is the one seam that every way of calling the SDK goes through, retries included, and where waiting trips no
time-out: those are enforced by the transport behind this one, which sees a request when its turn has come. Nothing is
inherited from the HTTP library, whose two generations so share one class.
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self

from ratelimit.errors import (
    JobStopped,
    ModelNotInTier,
    NotAnswered,
    RateLimitError,
    RequestFailed,
    UnknownModel,
)
from ratelimit.limits.content import endpoint_of
from ratelimit.wire import sdk_requests
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.sdk_desk import Desk, Halted, Limiter, Moved, is_here
from ratelimit.wire.sdk_exchange import Asynchronous, Exchange, Synchronous, at_once
from ratelimit.wire.sdk_pools import Pools
from ratelimit.wire.sdk_refusals import FINAL, refuse, repeat


class _Limited:
    """What both kinds of transports have in common."""

    def __init__(self, inner: Any, limiter: Limiter, *, priority: float, deadline: float | None) -> None:
        self.inner = inner
        self.pools: Pools = Pools(inner)
        self.limiter = limiter
        self._priority = priority
        self._deadline = deadline
        limiter.enter(self)

    async def _stand(self, desk: Desk, asked: Request, exchange: Exchange, do: Callable[[], Awaitable[Reply]]) -> None:
        """Stand in line until the request is answered; the response then ends the turn, whoever still wants it."""
        account = partial(sdk_requests.account_of, exchange.request, asked.model)
        turn = await desk.send(asked, do, account, priority=self._priority, deadline=self._deadline)
        if turn is not None:
            exchange.keep(desk, turn)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.limiter!r} in front of {self.inner!r}>"


class AsyncLimitedTransport(_Limited):
    """Stands in front of a transport with `handle_async_request`."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request when its turn has come, and again where that is worth it."""
        here = asyncio.get_running_loop()
        inner = self.pools.of(here)
        asked = sdk_requests.read(request)
        if asked is None:
            return await inner.handle_async_request(request)
        exchange = Exchange(request, Asynchronous(inner), stream=asked.stream)
        while True:
            desk = self.limiter.desk(sdk_requests.origin_of(request), here)
            try:
                if desk.loop is here:
                    await self._stand(desk, asked, exchange, exchange)
                else:
                    await _there(desk.loop, self._stand(desk, asked, exchange, lambda: _there(here, exchange())))
            except Moved:
                continue
            except (Halted, RateLimitError) as ending:
                response = _outcome(asked, exchange, ending)
                return await inner.handle_async_request(request) if response is None else response
            return exchange.response

    async def aclose(self) -> None:
        """Close the transport behind, and the line if nobody else stands in it."""
        await self._leave()
        with self.pools.closing():
            await self.inner.aclose()

    async def _leave(self) -> None:
        here = asyncio.get_running_loop()
        for desk in self.limiter.leave(self):
            await (desk.aclose() if desk.loop is here else _there(desk.loop, desk.aclose()))
        for transport in self.pools.pop(here):
            await transport.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._leave()
        with self.pools.closing():
            await self.inner.__aexit__(kind, error, trace)


class LimitedTransport(_Limited):
    """Stands in front of a transport with `handle_request`; any number of threads may use it at once."""

    def handle_request(self, request: Any) -> Any:
        """Send a request when its turn has come, and again where that is worth it."""
        inner = self.pools.of(os.getpid())
        asked = sdk_requests.read(request)
        if asked is None:
            return inner.handle_request(request)
        exchange = Exchange(request, Synchronous(inner), stream=asked.stream)
        while True:
            desk = self.limiter.desk(sdk_requests.origin_of(request), None)
            commands: queue.SimpleQueue[asyncio.Future[Reply] | None] = queue.SimpleQueue()
            try:
                work = self._stand(desk, asked, exchange, partial(_asked_for, commands))
                _from_thread(desk.loop, work, commands, exchange)
            except Moved:
                continue
            except (Halted, RateLimitError) as ending:
                response = _outcome(asked, exchange, ending)
                return inner.handle_request(request) if response is None else response
            return exchange.response

    def close(self) -> None:
        """Close the transport behind, and the line if nobody else stands in it."""
        self._leave()
        self.inner.close()

    def _leave(self) -> None:
        for desk in self.limiter.leave(self):
            closing = asyncio.run_coroutine_threadsafe(desk.aclose(), desk.loop)
            if not is_here(desk.loop):  # which would have to go on for it to end
                closing.result()
        for transport in self.pools.pop(os.getpid()):
            transport.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._leave()
        self.inner.__exit__(kind, error, trace)


async def _there(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on another loop; to cancel this is to cancel that."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def _asked_for(commands: queue.SimpleQueue[asyncio.Future[Reply] | None]) -> Reply:
    """Let the thread that waits for these commands make the exchange."""
    result: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    commands.put(result)
    return await result


def _from_thread(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, None],
    commands: queue.SimpleQueue[asyncio.Future[Reply] | None],
    exchange: Exchange,
) -> None:
    """Run `work` on the loop and what it commands on this thread."""
    outcome: Future[None] | None = None
    try:
        outcome = asyncio.run_coroutine_threadsafe(work, loop)
        outcome.add_done_callback(lambda _: commands.put(None))
        while (command := commands.get()) is not None:
            try:
                reply = at_once(exchange())
            except Exception as error:  # noqa: BLE001 - whatever it is, the sender judges it
                loop.call_soon_threadsafe(_fail, command, error)
            else:
                loop.call_soon_threadsafe(_answer, command, reply)
        outcome.result()
    except BaseException:  # Ctrl-C among them
        if outcome is not None:
            outcome.cancel()
        raise


def _answer(command: asyncio.Future[Reply], reply: Reply) -> None:
    if not command.done():
        command.set_result(reply)


def _fail(command: asyncio.Future[Reply], error: Exception) -> None:
    if not command.done():
        command.set_exception(error)


def _outcome(asked: Request, exchange: Exchange, ending: Halted | RateLimitError) -> Any | None:
    """Return or raise what the SDK is to see: the service's own last word if there is one, else a refusal of ours.

    None says that the request goes without limits.
    """
    if isinstance(ending, Halted):
        return repeat(exchange.request, ending.reply)
    if isinstance(ending, UnknownModel | ModelNotInTier) and _is_optional(asked):
        return None
    if isinstance(ending, NotAnswered) and exchange.failure is not None:
        raise exchange.failure
    if isinstance(ending, RequestFailed | JobStopped) and exchange.response is not None:
        if exchange.response.status_code == 429 or isinstance(ending, JobStopped):
            exchange.response.headers.update(FINAL)
        return exchange.response
    return refuse(exchange.request, ending)


def _is_optional(asked: Request) -> bool:
    """Whether a model that is in no table may be asked without limits: moderations are free, and few know theirs."""
    return endpoint_of(asked.path) == "moderations"
