"""Gate, exchange and retry in one: how a request is sent by whoever sends it.

The exchange itself is an argument, because two know how to do it: our own transport, and the official SDK's. Around it
always stands the same: a turn is waited for, the reply is judged, the turn is ended by what is known, and what is worth
another attempt takes another turn at its old place in line.

What no retry can cure (no credits, a rejected key) stops the sender as a whole at first sight: requests that wait for a
turn then raise instead of going out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from ratelimit.admission.events import Event, Finished, ServiceBack, ServiceDown, Stopped
from ratelimit.admission.gate import Gate, GateTurn
from ratelimit.admission.lane import Lane
from ratelimit.errors import DeadlinePassed, HostNotTrusted, JobStopped, RateLimitError, RequestFailed
from ratelimit.wire.congestion import Congestion
from ratelimit.wire.judge import Verdict, judge, judge_failure
from ratelimit.wire.messages import Names, Reply, Request
from ratelimit.wire.retry import Again, Outage, Patience, Policy, persist
from ratelimit.wire.story import Story
from ratelimit.wire.transport import NoAnswer, Unsent

Exchange = Callable[[], Awaitable[Reply]]
"""Sends the request once and returns the reply, or raises `Unsent` or `NoAnswer`."""

_HEED_EVERY = 0.02  # seconds; limits, drift and rivals move far more slowly


@dataclass(slots=True)
class Count:
    """What a sender has done so far."""

    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Sender:
    """Sends requests at the speed their limits allow, and again where that is worth it."""

    def __init__(self, gate: Gate, policy: Policy | None = None) -> None:
        self.gate = gate
        self.count: Count = Count()
        self.stopped: JobStopped | None = None
        self._audience = gate.scheduler.audience
        self._open_stories: dict[GateTurn, Story] = {}
        self._policy = policy or Policy()
        self._outage = Outage(self._policy)
        self._congestion: dict[str, Congestion] = {}
        self._heard_at: dict[str, float] = {}
        self._waiting: dict[asyncio.Task[Any], GateTurn] = {}
        self._failed: set[asyncio.Task[Any]] = set()  # whose request has failed and is to be sent again
        self._dismissed: dict[asyncio.Task[Any], Exception] = {}

    @property
    def paused(self) -> bool:
        """Whether the service seems to be down, so that only single requests go out to see."""
        return self._outage.paused

    def send(
        self, request: Request, exchange: Exchange, *, priority: float = 0, deadline: float | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """Send a request until it is answered; raises what ended it. `deadline` counts everything, in seconds."""
        # Few coroutines are alive while a reply is waited for: in thousands, each is work for the garbage collector.
        if deadline is not None:
            return self._send_within(deadline, request, exchange, priority)
        if Finished in self._audience:
            return self._send_told(request, exchange, priority)
        return self._send(request, exchange, priority)

    async def _send_within(self, deadline: float, request: Request, exchange: Exchange, priority: float) -> Reply:
        async with self._within(deadline):
            return await self.send(request, exchange, priority=priority)

    async def _send_told(self, request: Request, exchange: Exchange, priority: float) -> Reply:
        if (story := self._begin(request)) is None:
            return await self._send(request, exchange, priority)
        with self._telling(story):
            reply = await self._send(request, story.following(exchange), priority)
        story.end()
        return reply

    async def _send(self, request: Request, exchange: Exchange, priority: float) -> Reply:
        turn = None
        try:
            turn = await self._turn(request, priority)
            return await self._attempt(turn, exchange)
        except Again as failure:
            return (await self._persist(failure, request, exchange, priority, turn, keep_open=False))[0]
        except RateLimitError:
            self.count.failed += 1
            raise

    async def open(
        self, request: Request, exchange: Exchange, *, priority: float = 0, deadline: float | None = None
    ) -> tuple[Reply, GateTurn]:
        """Send a request until its reply begins well; its turn is still open, and the caller's to end."""
        if deadline is not None:
            async with self._within(deadline):
                return await self.open(request, exchange, priority=priority)
        if Finished in self._audience and (story := self._begin(request)):
            with self._telling(story):
                reply, turn = await self._open(request, story.following(exchange), priority)
            self._open_stories[turn] = story
            return reply, turn
        return await self._open(request, exchange, priority)

    async def _open(self, request: Request, exchange: Exchange, priority: float) -> tuple[Reply, GateTurn]:
        turn = None
        try:
            turn = await self._turn(request, priority)
            return await self._attempt(turn, exchange, keep_open=True), turn
        except Again as failure:
            return await self._persist(failure, request, exchange, priority, turn, keep_open=True)
        except RateLimitError:
            self.count.failed += 1
            raise

    def _begin(self, request: Request) -> Story | None:
        try:
            return Story(request, self.gate.model(request.model), self._audience)
        except RateLimitError:  # nobody knows the model, which sending it will say
            return None

    @contextmanager
    def _telling(self, story: Story) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            story.end(error)
            raise

    def dismiss(self, why: Exception) -> None:
        """Raise `why` in every request that waits for its turn now; those on the way are not disturbed."""
        for task in self._waiting.keys() - self._dismissed.keys():
            self._dismissed[task] = why
            task.cancel()

    @asynccontextmanager
    async def _within(self, deadline: float) -> AsyncIterator[None]:
        timer = asyncio.timeout(deadline)
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            self.count.failed += 1
            raise DeadlinePassed(deadline, f"the lane stands at {self.gate.scheduler!r}") from None

    async def _persist(
        self,
        failure: Again,
        request: Request,
        exchange: Exchange,
        priority: float,
        turn: GateTurn | None,
        *,
        keep_open: bool,
    ) -> tuple[Reply, GateTurn]:
        """Go on after a first failure, at the place in line that the first turn had."""
        arrival = turn.arrival if turn else None
        began = asyncio.get_running_loop().time()
        task = _this_task()

        async def attempt(patience: Patience) -> tuple[Reply, GateTurn]:
            self.count.retried += 1
            turn = await self._turn(request, priority, None if patience.used_up else arrival)
            return await self._attempt(turn, exchange, keep_open=keep_open), turn

        def to_blame() -> bool:
            return not self._policy.outlasts or self._outage.heard_from > began or not self._untried(turn)

        self._failed.add(task)
        try:
            return await persist(failure, attempt, self._policy, to_blame)
        except RateLimitError:
            self.count.failed += 1
            raise
        finally:
            self._failed.discard(task)

    def _untried(self, turn: GateTurn | None) -> bool:
        """Whether somebody stands in the line of a turn who has not failed yet."""
        lane = turn and turn.lane
        return any(other.lane is lane and task not in self._failed for task, other in self._waiting.items())

    async def _turn(self, request: Request, priority: float, arrival: int | None = None) -> GateTurn:
        """Wait for a turn, and until the service may be asked."""
        while True:
            self._raise_if_stopped()
            turn = self.gate.turn(request.fields, request.path, priority=priority, arrival=arrival)
            arrival = turn.arrival
            if await self._admitted(turn):
                return turn

    async def _admitted(self, turn: GateTurn) -> bool:
        """Wait for the turn; false if it was given back, because the service has turned out to be down meanwhile."""
        task = _this_task()
        self._waiting[task] = turn
        try:
            probing = self._outage.paused and await self._outage.passed()
            await turn.__aenter__()
        except asyncio.CancelledError:
            if (why := self._dismissed.pop(task, None)) is not None and task.uncancel() == 0:
                raise why.with_traceback(None) from None
            raise
        finally:
            self._waiting.pop(task, None)
            self._dismissed.pop(task, None)
        if self.stopped is None and (probing or not self._outage.paused):
            return True
        turn.unsent()
        return False

    async def _attempt(self, turn: GateTurn, exchange: Exchange, *, keep_open: bool = False) -> Reply:
        self.count.attempts += 1
        try:
            try:
                reply = await exchange()
            except Unsent as failure:
                turn.unsent()
                self.conclude(turn, judge_failure(failure))
                raise
            except NoAnswer as failure:
                turn.unknown()
                self.conclude(turn, judge_failure(failure))
                raise
            except HostNotTrusted as untrusted:  # found out before anything was sent
                turn.unsent()
                self.stopped = untrusted
                raise
            if keep_open and 200 <= reply.status < 300:
                return reply
            verdict = judge(reply, heed=self._heeds(turn))
            self.settle(turn, verdict)
        except BaseException:
            if turn.how is None:
                turn.unknown()
            raise
        self.conclude(turn, verdict)
        return reply

    def _heeds(self, turn: GateTurn) -> bool:
        """Return whether a reply's headers are worth reading: at hundreds a second, each tells what the last did."""
        now, name = asyncio.get_running_loop().time(), turn.lane.name
        if now - self._heard_at.get(name, float("-inf")) < _HEED_EVERY:
            return False
        self._heard_at[name] = now
        return True

    def lost(self, turn: GateTurn, why: BaseException, names: Names | None = None) -> None:
        """End the turn of a stream of which the rest will never be known."""
        if story := self._open_stories.pop(turn, None):
            story.end(why, names=names)
        turn.unknown()

    def settle(self, turn: GateTurn, verdict: Verdict, names: Names | None = None) -> None:
        """End a turn by what its reply says."""
        usage = verdict.usage
        if story := self._open_stories.pop(turn, None):
            story.end(None if verdict.kind == "done" else verdict.error, usage, names)
        if verdict.admitted:
            if verdict.observed.readings:
                turn.observe(verdict.observed)
            if verdict.kind == "done" or usage:
                turn.used(tokens=usage.input + usage.output if usage else None)
            elif verdict.kind == "stop":
                turn.unsent()
            elif verdict.kind == "give up":
                turn.failed()
            else:
                turn.unknown()
        elif verdict.kind == "again":
            self.count.refused += 1
            turn.refused(verdict.observed, because_of_limit=verdict.limited)
        else:  # too large for the limit, or no credits: nothing was taken, and the lane has nothing to learn
            turn.unsent()

    def conclude(self, turn: GateTurn, verdict: Verdict) -> None:
        """Draw the consequences of a verdict; raises unless it is "done"."""
        if verdict.kind == "done":
            self.count.succeeded += 1
            count, usage = self.count, verdict.usage
            if usage:
                count.input_tokens += usage.input
                count.output_tokens += usage.output
            lane = turn.lane
            self._note_answer(turn, succeeded=True)
            congestion = self._congestion.get(lane.name)
            if congestion and congestion.succeeded(lane.in_flight + 1):
                lane.resize(congestion.size)
            return
        if verdict.kind == "stop" and isinstance(verdict.error, JobStopped):
            self.stopped = verdict.error
            self._tell(Stopped, turn.lane, verdict.error)
        in_outage = self._note_failure(turn, verdict)
        if verdict.kind != "again":
            raise verdict.error or RequestFailed(0, None, "no reason given")
        raise Again(verdict, counts=not (verdict.limited or verdict.slowed or in_outage))

    def _note_failure(self, turn: GateTurn, verdict: Verdict) -> bool:
        """Slow down where the service struggles; true if so much fails that no single request is to blame."""
        if not verdict.struggling:
            self._note_answer(turn, succeeded=False)
            return False
        lane = turn.lane
        if (congestion := self._congestion.get(lane.name)) is None:
            congestion = self._congestion[lane.name] = Congestion(lane.concurrency)
        if congestion.failed(lane.in_flight + 1, asyncio.get_running_loop().time()):
            lane.resize(congestion.size)
        before = self._outage.paused
        nobody_to_blame = self._outage.failed()
        if self._outage.paused and not before:
            self._tell(ServiceDown, lane, verdict.error)
        return nobody_to_blame

    def _note_answer(self, turn: GateTurn, *, succeeded: bool) -> None:
        before = self._outage.paused
        if succeeded:
            self._outage.succeeded(turn.sent_at)
        else:
            self._outage.answered(turn.sent_at)
        if before:
            self._tell(ServiceBack, turn.lane)

    def _tell(self, kind: type[Event], lane: Lane, *more: object) -> None:
        if kind in self._audience:
            loop = asyncio.get_running_loop()
            self._audience.tell(kind(lane.name, loop.time(), *more), loop)

    def _raise_if_stopped(self) -> None:
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)


def _this_task() -> asyncio.Task[Any]:
    return asyncio.current_task()  # type: ignore[return-value]  # coroutines run in tasks
