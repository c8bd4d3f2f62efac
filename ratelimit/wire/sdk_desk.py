"""Where the SDK's requests stand in line: one sender for each service, on one event loop.

An asynchronous client waits on its own loop. Threads have none, and clients of several loops have too many, so theirs
is a loop on a thread of its own, one for the whole process. A loop that has ended, or has not survived a fork, leaves
its line to the next one; what was spent stays spent.

A program that answers users has no job to stop. So what no retry can cure (no credits, a rejected key) turns away who
waits with the same key for the same model, and who comes within the next seconds; then it is tried again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

from ratelimit.admission.blocking import Background
from ratelimit.admission.gate import GateTurn
from ratelimit.errors import JobStopped, NotAnswered, RateLimitError
from ratelimit.limits.headers import parse
from ratelimit.wire.judge import Verdict, status_of, trouble_verdict
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.retry import Again
from ratelimit.wire.sender import Exchange, Sender
from ratelimit.wire.sse import Listener
from ratelimit.wire.transport import Unsent

Spent = dict[str, dict[str, float]]
Origin = tuple[str, bytes]
"""Which service: the scheme, and the host with its port."""

Make = Callable[[Origin, Spent | None], Sender]
"""Makes a sender to a service; it starts with what an earlier one had spent."""

Account = Callable[[], int]
"""Says who asks for what; found out only where somebody is stopped."""

HALT = 10.0  # seconds; how long one reply about credits or keys speaks for others


class Halted(Exception):
    """A reply to another request has settled this one, too."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class Moved(Exception):
    """The line has moved to another loop; stand in it there."""


class _Waiter:
    """A request that can be told not to wait any more, unless it is on its way."""

    __slots__ = ("account", "timer", "why")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.timer = asyncio.timeout(None)
        self.why: Exception | None = None

    def interrupt(self, why: Exception, now: float) -> None:
        if self.why is None:
            self.why = why
            self.timer.reschedule(now)


class Desk:
    """A sender, the loop it lives on, and who waits there. All but `post` must be called on that loop."""

    def __init__(self, sender: Sender, loop: asyncio.AbstractEventLoop) -> None:
        self.sender = sender
        self.loop = loop
        self._moved = False
        self._closing: asyncio.Task[None] | None = None  # a loop alone does not keep its tasks alive
        self._waiting: set[_Waiter] = set()
        self._halts: dict[int, tuple[Reply, float]] = {}

    async def send(
        self, asked: Request, exchange: Exchange, account: Account, *, priority: float, deadline: float | None
    ) -> GateTurn | None:
        """Send a request until it is answered; a stream's turn is returned open.

        Raises what ended it, `Halted` and `Moved` among that.
        """
        if (why := self._reason(account)) is not None:
            raise why
        waiter = _Waiter(account)
        last: Reply | None = None

        async def alone() -> Reply:
            nonlocal last
            if waiter.why is not None:
                raise Unsent("interrupted on the way out")
            self._waiting.discard(waiter)
            last = None
            try:
                last = await exchange()
                return last
            finally:
                self._waiting.add(waiter)
                if (why := self._reason(account)) is not None:
                    waiter.interrupt(why, self.loop.time())

        try:
            return await self._wait(waiter, asked, alone, priority, deadline)
        except (TimeoutError, NotAnswered):  # the latter where it was sent away on its way out, and may not try again
            if waiter.why is not None:
                raise waiter.why from None
            raise
        except JobStopped:
            self.sender.stopped = None
            if last is not None:
                self._halt(account(), last)
            raise

    async def _wait(
        self, waiter: _Waiter, asked: Request, exchange: Exchange, priority: float, deadline: float | None
    ) -> GateTurn | None:
        self._waiting.add(waiter)
        try:
            async with waiter.timer:
                if not asked.stream:
                    await self.sender.send(asked, exchange, priority=priority, deadline=deadline)
                    return None
                _, turn = await self.sender.open(asked, exchange, priority=priority, deadline=deadline)
                return turn
        finally:
            self._waiting.discard(waiter)

    def ended(self, turn: GateTurn, reply: Reply, listener: Listener) -> None:
        """End the turn of a stream that was read to its end, by what it has said of itself."""
        observed, trouble = parse(reply.headers), listener.trouble
        verdict = Verdict("done", observed, usage=listener.usage)
        if trouble:
            verdict = trouble_verdict(status_of(trouble), trouble, observed, reply.request_id)
        self.sender.settle(turn, verdict, listener.names)
        # The caller has read of the failure already, and the SDK raises it.
        with suppress(Again, RateLimitError):
            self.sender.conclude(turn, verdict)
        self.sender.stopped = None

    def left(self, turn: GateTurn, reply: Reply, listener: Listener) -> None:
        """End the turn of a stream that was not read to its end: the service has probably charged it."""
        observed = parse(reply.headers)
        if observed.readings:
            turn.observe(observed)
        self.sender.lost(turn, asyncio.CancelledError(), listener.names)

    def post(self, act: Callable[[], None], *, later: bool = False) -> None:
        """Do something on the loop: at once where that is here, unless it is to be `later`."""
        if not later and is_here(self.loop):
            act()
            return
        with suppress(RuntimeError):  # the loop is closed, and everything with it
            self.loop.call_soon_threadsafe(act)

    def close(self) -> None:
        """Begin to close."""
        self._send_away()
        self._closing = self.loop.create_task(self.aclose(), name="closing a line")

    async def aclose(self) -> None:
        """Send away who waits, for the line is elsewhere, and give back what is held of shared limits."""
        self._send_away()
        await self.sender.gate.scheduler.aclose()

    def _send_away(self) -> None:
        self._moved = True
        now = self.loop.time()
        for waiter in self._waiting:
            waiter.interrupt(Moved(), now)

    def _halt(self, account: int, reply: Reply) -> None:
        now = self.loop.time()
        self._halts = {who: halt for who, halt in self._halts.items() if halt[1] > now}
        self._halts[account] = (reply, now + HALT)
        for waiter in self._waiting:
            if waiter.account() == account:
                waiter.interrupt(Halted(reply), now)

    def _reason(self, account: Account) -> Exception | None:
        """Return why a request need not wait here, if it need not."""
        if self._moved:
            return Moved()
        halt = self._halts.get(account()) if self._halts else None
        return Halted(halt[0]) if halt and self.loop.time() < halt[1] else None


class Limiter:
    """What clients that share their limits have in common: a desk for each service, all on one loop.

    When the last of them is closed the desks are gone; should there be another one after that, it goes on from what was
    spent.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._threaded = False
        self._desks: dict[Origin, Desk] = {}
        self._spent: dict[Origin, Spent] = {}
        self._users = WeakSet[object]()

    def enter(self, user: object) -> None:
        """Note that somebody may ask for desks."""
        self._users.add(user)

    def leave(self, user: object) -> list[Desk]:
        """Note that somebody asks no more; returns the desks to close, if it was the last."""
        with self._lock:
            self._users.discard(user)
            if self._users or self._pid != os.getpid():
                return []
            desks, self._desks = self._desks, {}
            self._spent |= {origin: desk.sender.gate.scheduler.spent() for origin, desk in desks.items()}
            return [desk for desk in desks.values() if desk.loop.is_running()]

    def desk(self, origin: Origin, caller: asyncio.AbstractEventLoop | None) -> Desk:
        """Return the desk for a service, as seen from the caller's loop; None is a thread without one."""
        with self._lock:
            self._settle_on(caller)
            if (desk := self._desks.get(origin)) is None:
                sender = self._make(origin, self._spent.pop(origin, None))
                desk = self._desks[origin] = Desk(sender, self._loop)  # type: ignore[arg-type]  # just set
            return desk

    def _settle_on(self, caller: asyncio.AbstractEventLoop | None) -> None:
        now = self._loop
        if now is not None and now is caller and not self._threaded:
            return
        alive = now is not None and self._pid == os.getpid() and now.is_running()
        if caller is None or (alive and now is not caller):
            self._threaded = True  # two at once: neither may depend on how long the other's loop runs
        loop = background() if self._threaded else caller
        if loop is now and alive:
            return
        desks, self._desks = self._desks, {}
        self._loop, self._pid = loop, os.getpid()
        for origin, desk in desks.items():
            spent = desk.sender.gate.scheduler.spent()
            self._desks[origin] = Desk(self._make(origin, spent), loop)  # type: ignore[arg-type]  # one of two loops
            if alive:
                desk.post(desk.close, later=True)

    def __repr__(self) -> str:
        lines = [repr(desk.sender.gate.scheduler) for desk in list(self._desks.values())]
        return f"<Limiter {', '.join(lines) or 'unused'}>"


_background: tuple[int, Background] | None = None
_making = threading.Lock()


def background() -> asyncio.AbstractEventLoop:
    """Return the loop for threads; there is one in each process, and it ends with it."""
    global _background  # noqa: PLW0603 - a thread of its own is a matter of the process
    with _making:
        if _background is None or _background[0] != os.getpid():
            _background = os.getpid(), Background()
        return _background[1].loop


def is_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop runs on this thread."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
