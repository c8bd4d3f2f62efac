"""A virtual-clock event loop: a day of sleeping passes in a moment, sockets included.

`VirtualClockLoop` is the ordinary selector loop with one difference: its clock stands still while anything can run, and
when nothing can, it moves straight to the next timer. Everything built on the loop's clock (`asyncio.sleep`,
`asyncio.timeout`, `call_later`, aiohttp, aiolimiter) follows unchanged; what reads `time.monotonic()` itself does not.

The hazard is work that the loop cannot see. It is dealt with by kind:

- *Loopback sockets between this loop's own tasks.* Linux delivers loopback TCP inside the sender's `send`, so a poll
  that waits for nothing sees all there is. What may still be under way is waited for before the clock moves: a packet
  left to a kernel thread (the processor is yielded once) and a half-written buffer or half-open connection (its socket
  is waiting to be writable). A full accept queue makes the kernel retry seconds later, so servers get the longest one.
- *Executor jobs, name look-ups and child processes.* They are counted, and the clock does not move while one runs.
- *Anything else* (another process on a socket, a thread of your own): time cannot stand still for it. `grace` makes
  every move of the clock wait that many real seconds for it first.

Where nothing can ever happen again, the loop raises `Deadlock` and names the tasks instead of hanging.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ratelimit.errors import Deadlock, Livelock

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Events = list[tuple[selectors.SelectorKey, int]]

# Half-written loopback buffers drain in well under a millisecond; one that has not by then waits for its reader.
_DRAIN_SECONDS = 0.05
# A job that runs this long while the clock stands is taken to be waiting for the clock itself.
_JOB_SECONDS = 60.0
# Timers set for now, one after another, before the clock creeps; chains of `call_later(0)` are shorter.
_STILL_PASSES = 4
# Passes in one instant without any I/O: seconds of spinning, far beyond what a busy queue needs.
_SPIN_PASSES = 2_000_000
# The longest step of a creeping clock: what a pass takes on a real one.
_CREEP_SECONDS = 1e-6
# More than any kernel allows: each cuts it down to its own most.
_BACKLOG = 65_535

_yield_processor: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class _Timer(asyncio.TimerHandle):
    """A timer that orders equal times by arrival, which the standard heap leaves to chance."""

    __slots__ = ("due", "order")

    _scheduled: bool

    def __init__(
        self,
        due: float,
        order: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        *,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(due, callback, args, loop, context)
        self.due = due
        self.order = order
        self._scheduled = True  # how the loop knows, on `cancel`, that its heap holds this

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        if not isinstance(other, _Timer):
            return NotImplemented
        return self.due < other.due or (self.due == other.due and self.order < other.order)


class _Selector(selectors.DefaultSelector):
    """The selector of a virtual loop: asked to block, it asks the loop instead. It counts sockets waiting to write."""

    def __init__(self, instead: Callable[[], _Events]) -> None:
        super().__init__()
        self._instead = instead
        self.writers = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self.writers += bool(events & selectors.EVENT_WRITE)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self.writers -= bool(key.events & selectors.EVENT_WRITE)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        others = self.writers - bool(self.get_key(fileobj).events & selectors.EVENT_WRITE)
        key = super().modify(fileobj, events, data)
        # Set, not added to: some platforms' selectors modify by unregister and register, which count too.
        self.writers = others + bool(events & selectors.EVENT_WRITE)
        return key

    def poll(self, seconds: float) -> _Events:
        """Wait up to `seconds` in real time."""
        return super().select(seconds)

    def select(self, _timeout: float | None = None) -> _Events:
        """Poll, and let the loop's clock move in place of waiting."""
        return self._instead()


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at `start` and jumps to the next timer when nothing else can run.

    Timers of equal time run in the order they were set. A timer never fires before its time, and `time()` is exactly
    its time when it does; only code that keeps setting timers for now or the past is given later instants, as a real
    clock would give it. `grace` is how many real seconds each jump waits for sockets whose other end is elsewhere.
    `patience` is how many it waits for sockets, threads and signals when no timer is set, before it raises `Deadlock`.
    """

    _clock_resolution: float
    _closed: bool
    _ready: deque[asyncio.Handle]
    _scheduled: list[_Timer]
    _stopping: bool

    def __init__(self, start: float = 0.0, *, grace: float = 0.0, patience: float = 5.0) -> None:
        self._now = float(start)
        self._grace = grace
        self._patience = patience
        self._order = 0  # of the latest timer
        self._passes = 0  # without I/O, at this instant
        self._still = 0  # of those, with nothing to do but timers set for now
        self._drained = False  # half-written sockets have been waited for since the last I/O
        self._jobs = 0
        self._children: set[asyncio.SubprocessTransport] = set()
        self._poller = _Selector(self._select_or_move)
        super().__init__(self._poller)
        self._own_sockets = len(self._poller.get_map())
        self._move_to(self._now)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call `callback` at virtual time `when`; equal times keep their order."""
        if self._closed:
            raise RuntimeError("the virtual clock loop is closed; make a new one")
        self._order += 1
        timer = _Timer(when, self._order, callback, args, self, context=context)
        heapq.heappush(self._scheduled, timer)
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run `func` in a thread; the clock stands until its result has arrived."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the executor's threads; the clock stands meanwhile."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._jobs -= 1

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Start a child process; the clock stands until it has ended."""
        return self._child(await super().subprocess_exec(*args, **kwargs))

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        """Start a shell; the clock stands until it has ended."""
        return self._child(await super().subprocess_shell(*args, **kwargs))

    async def create_server(self, *args: Any, backlog: int = _BACKLOG, **kwargs: Any) -> asyncio.Server:
        """Listen, with room for every client of this loop to connect in one instant."""
        return await super().create_server(*args, backlog=max(backlog, _BACKLOG), **kwargs)

    def _child(self, started: tuple[asyncio.SubprocessTransport, Any]) -> tuple[asyncio.SubprocessTransport, Any]:
        self._children.add(started[0])
        return started

    def _job_done(self, _future: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _move_to(self, now: float) -> None:
        """Set the clock, and the resolution at which the base class fires what is due now and nothing later."""
        self._now = float(now)
        self._clock_resolution = math.ulp(self._now)
        self._passes = 0

    def _select_or_move(self) -> _Events:
        """Return what the sockets have brought; if nothing has and nothing is ready, move the clock."""
        if events := self._poller.poll(0):
            return self._arrived(events)
        self._passes += 1
        if self._ready or self._stopping:
            if self._passes > _SPIN_PASSES:
                self._passes = 0
                raise Livelock(self._now, self._tasks())
            return events
        return self._arrived(events) if (events := self._wait()) else self._jump()

    def _arrived(self, events: _Events) -> _Events:
        self._passes = 0
        self._drained = False
        return events

    def _wait(self) -> _Events:
        """Wait in real time for what the loop cannot see but knows of."""
        if self._children:
            self._children = {child for child in self._children if child.get_returncode() is None}
        if self._jobs or self._children:
            if events := self._poller.poll(_JOB_SECONDS):
                return events
            why = f"a thread or child process has not ended in {_JOB_SECONDS:g} s of real time"
            raise Deadlock(self._now, why, self._tasks())
        if len(self._poller.get_map()) == self._own_sockets:
            return []
        _yield_processor()
        if events := self._poller.poll(0):
            return events
        if self._poller.writers and not self._drained:
            self._drained = True
            if events := self._poller.poll(_DRAIN_SECONDS):
                return events
        return self._poller.poll(self._grace) if self._grace else []

    def _jump(self) -> _Events:
        """Move the clock to the next timer; with none, wait for the outside world, then give up."""
        due = self._scheduled[0].due if self._scheduled else math.inf
        if due == math.inf:
            return self._arrived(self._last_wait())
        if due > self._now:
            self._still = 0
            self._move_to(due)
        else:
            self._still += 1
            if self._still > _STILL_PASSES:
                self._creep(self._still - _STILL_PASSES)
        return []

    def _creep(self, steps: int) -> None:
        """Move the clock by a hair, more each time, for code that re-derives its deadline from the time it finds."""
        hair = math.ulp(max(self._now, 1.0))
        self._move_to(self._now + min(hair * 2 ** min(steps, 64), max(hair, _CREEP_SECONDS)))

    def _last_wait(self) -> _Events:
        outside = (
            len(self._poller.get_map()) > self._own_sockets
            or threading.active_count() > 1
            or getattr(self, "_signal_handlers", None)
        )
        if not outside:
            raise Deadlock(self._now, "no timer is set and nothing is under way", self._tasks())
        if events := self._poller.poll(self._patience):
            return events
        why = f"no timer is set and nothing has arrived from outside in {self._patience:g} s of real time"
        raise Deadlock(self._now, why, self._tasks())

    def _tasks(self) -> list[str]:
        tasks = asyncio.all_tasks(self)
        return sorted(f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in tasks)


def run(main: Coroutine[Any, Any, _T], *, start: float = 0.0) -> _T:
    """Run `main` on a virtual clock and return its result, as `asyncio.run` does on the real one."""
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start)) as runner:
        return runner.run(main)
