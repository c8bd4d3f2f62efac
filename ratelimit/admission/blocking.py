"""The same scheduler for programs without asyncio: one loop on a thread of its own, and calls that wait for it.

Any number of threads may wait at once; they stand in the same lanes. A waiting thread that is interrupted (Ctrl-C)
takes its request out of the lane.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from ratelimit.admission.scheduler import LaneStatus, Scheduler
from ratelimit.admission.turn import Turn
from ratelimit.errors import AlreadySettled
from ratelimit.limits.headers import NOTHING, Observed

P = ParamSpec("P")
T = TypeVar("T")

_CLOSED = "this is closed; open a new one"
_HERE = "this would wait for the thread it is called on; call it from another one, not from an observer"


class Background:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._tasks: dict[Future[Any], asyncio.Task[Any]] = {}
        self._closed = False
        self._submitting = threading.Lock()  # what is submitted as the loop ends would never be answered
        self._thread = threading.Thread(target=self.loop.run_forever, name="ratelimit", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine there; the future is done when nothing of it runs any more, and `cancel` cancels it."""
        with self._submitting:
            if not self._closed and self._thread.is_alive():  # no thread survives a fork
                return self._submit(work)
        work.close()
        raise RuntimeError(_CLOSED)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        future: Future[T] = Future()

        def start() -> None:
            task = self._tasks[future] = self.loop.create_task(work)
            task.add_done_callback(lambda _: self._finish(future))

        self.loop.call_soon_threadsafe(start)
        return future

    def _finish(self, future: Future[Any]) -> None:
        task = self._tasks.pop(future)
        if task.cancelled():
            future.cancel()
            future.set_running_or_notify_cancel()
        elif error := task.exception():
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return its result here."""
        try:
            self.refuse_to_wait_here()
        except RuntimeError:
            work.close()
            raise
        future = self.submit(work)
        try:
            return future.result()
        except CancelledError:
            if self._closed:
                raise RuntimeError(_CLOSED) from None
            raise
        except BaseException:
            self.cancel((future,))
            raise

    def finish(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine there to its end; it is not waited for here where a generator has become garbage there."""
        if self._is_here():
            self.submit(work)
        else:
            self.run(work)

    def refuse_to_wait_here(self) -> None:
        """Raise on the thread of the loop, which cannot wait for itself."""
        if self._is_here():
            raise RuntimeError(_HERE)

    def _is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def cancel(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel what was submitted, and wait until it has ended."""
        running = [future for future in futures if not future.done()]

        def stop() -> None:
            for future in running:
                if task := self._tasks.get(future):
                    task.cancel()

        if self._is_here():  # a generator became garbage: who waited here would hold up what is waited for
            stop()
        elif running:
            self.loop.call_soon_threadsafe(stop)
            wait(running)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there and return its result here."""

        async def called() -> T:
            return function()

        return self.run(called())

    def close(self) -> None:
        """Cancel what still runs, and end the thread; after a fork, in the process that has no such thread, nothing."""
        self.refuse_to_wait_here()
        with self._submitting:
            if self._closed or not self._thread.is_alive():
                return
            self._closed = True
        self._submit(self._wind_up()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _wind_up(self) -> None:
        await _cancel_others()
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


class BlockingScheduler:
    """A `Scheduler` for threads; a context manager, or closed by `close`.

    >>> from ratelimit import MINUTE, BlockingScheduler, Limit, Scheduler
    >>> limits = {"my-model": [Limit("requests", 500, MINUTE)]}
    >>> with BlockingScheduler(lambda: Scheduler(limits)) as scheduler:
    ...     with scheduler.reserve("my-model") as turn:
    ...         turn.used()
    """

    def __init__(self, make: Callable[[], Scheduler]) -> None:
        self._background = Background()
        try:
            self._scheduler = self._background.call(make)
        except BaseException:
            self._background.close()
            raise

    @contextmanager
    def reserve(
        self,
        name: str,
        *,
        tokens: float = 0,
        requests: float = 1,
        priority: float = 0,
        arrival: int | None = None,
        wait_at_most: float | None = None,
    ) -> Iterator[BlockingTurn]:
        """Wait for a turn; the block has it, and ends it. The arguments are those of `Scheduler.reserve`."""
        turn = self._background.call(
            lambda: self._scheduler.reserve(
                name,
                tokens=tokens,
                requests=requests,
                priority=priority,
                arrival=arrival,
                wait_at_most=wait_at_most,
            )
        )
        try:
            self._background.run(turn.__aenter__())
        except BaseException:
            with suppress(RuntimeError):  # closed, and the turn went with it
                self._background.call(partial(_abandon, turn))
            raise
        try:
            yield BlockingTurn(turn, self._background)
        finally:
            with suppress(RuntimeError):  # likewise
                self._background.finish(turn.__aexit__(None, None, None))

    def limited(
        self, name: str, *, tokens: float = 0, priority: float = 0, wait_at_most: float | None = None
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator that makes each call of a function wait for its turn."""

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            @wraps(function)
            def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
                with self.reserve(name, tokens=tokens, priority=priority, wait_at_most=wait_at_most) as turn:
                    result = function(*args, **kwargs)
                    turn.used()
                    return result

            return wrapped

        return decorate

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands."""
        return self._background.call(self._scheduler.snapshot)

    def spent(self) -> dict[str, dict[str, float]]:
        """Return what is missing from each limit of each lane, to store and to `resume` with later."""
        return self._background.call(self._scheduler.spent)

    def close(self) -> None:
        """Give back what is held of shared limits, and end the background loop."""
        try:
            with suppress(RuntimeError):  # closed before, or this is a fork
                self._background.run(self._scheduler.aclose())
        finally:
            self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingTurn:
    """A turn held by a thread."""

    def __init__(self, turn: Turn, background: Background) -> None:
        self._turn = turn
        self._background = background
        self.arrival: int = turn.arrival

    def observe(self, observed: Observed) -> None:
        """Learn from the headers of the reply."""
        self._background.call(partial(self._turn.observe, observed))

    def used(self, *, tokens: float | None = None) -> None:
        """End the turn: it was answered, and cost so many tokens."""
        self._background.call(lambda: self._turn.used(tokens=tokens))

    def unsent(self) -> None:
        """End the turn: the request never left."""
        self._background.call(self._turn.unsent)

    def refused(self, observed: Observed = NOTHING, *, because_of_limit: bool = True) -> None:
        """End the turn: a limit turned the request away, or (`because_of_limit=False`) the service slows everybody."""
        self._background.call(partial(self._turn.refused, observed, because_of_limit=because_of_limit))

    def failed(self) -> None:
        """End the turn: it was answered with an error of its own."""
        self._background.call(self._turn.failed)

    def unknown(self) -> None:
        """End the turn: it was sent, and nothing is known of it."""
        self._background.call(self._turn.unknown)


def _abandon(turn: Turn) -> None:
    """Give back a turn that was granted in the moment its thread was interrupted."""
    with suppress(AlreadySettled):  # it was not granted
        turn.unsent()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
