"""One request from arrival to answer, in the service's order: key, model, validation, limits, then the work.

This is the path load tests take, so it avoids what costs: no router, no middleware, one decoding of the body, and what
depends only on the key and the model is found once and kept.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, BinaryIO

import msgspec
from aiohttp import web

from ratelimit.testing.mock import refusals
from ratelimit.testing.mock.accounts import Account, Accounts, Counters
from ratelimit.testing.mock.answers import Stamp, Writer
from ratelimit.testing.mock.asks import Ask
from ratelimit.testing.mock.bodies import read_body
from ratelimit.testing.mock.catalogue import Catalogue, Family, Limits
from ratelimit.testing.mock.charges import Profile, charge
from ratelimit.testing.mock.counting import Counter, Overrun, cap
from ratelimit.testing.mock.endpoints import Endpoint
from ratelimit.testing.mock.faults import Fault, Faults
from ratelimit.testing.mock.headers import limit_lines, lines, retry_rows, rows
from ratelimit.testing.mock.refusals import Problem, Refused
from ratelimit.testing.mock.replies import Reply
from ratelimit.testing.mock.sabotage import UNDELIVERED, carry_out, reset
from ratelimit.testing.mock.spreads import Spread
from ratelimit.testing.mock.stats import Record, Stats

_JSON = "content-type: application/json\r\n"
_EVENTS = "content-type: text/event-stream; charset=utf-8\r\n"
_VERSION = "openai-version: 2020-10-01\r\n"
_LANES_KEPT = 10_000

Answer = Callable[[web.BaseRequest, Record], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server behaves where that is a choice."""

    charge: Profile
    latency: Spread
    token_delay: float
    count_rejected: bool
    responses_429_headers: bool
    most_body: int
    body_timeout: float


@dataclass(frozen=True, slots=True)
class Lane:
    """What every request of one account to one model name has in common."""

    account: Account
    family: Family
    counter: Counter
    resolved: str
    asked: str
    lines: str
    bucket: str


@dataclass(frozen=True, slots=True)
class _Work:
    """A request that was admitted, and what its reply will be stamped with."""

    endpoint: Endpoint
    lane: Lane
    ask: Ask
    stamp: Stamp


class Service:
    """Answers the endpoints that a model is behind."""

    def __init__(
        self,
        *,
        behaviour: Behaviour,
        catalogue: Catalogue,
        accounts: Accounts,
        counters: Counters,
        writer: Writer,
        faults: Faults,
        seed: int,
    ) -> None:
        self.behaviour = behaviour
        self.catalogue = catalogue
        self.accounts = accounts
        self.counters = counters
        self.writer = writer
        self.faults = faults
        self.stats: Stats = Stats()
        self.log: BinaryIO | None = None
        self.on_refuse: Callable[[float], None] = lambda _: None
        self.refusing_until: float = 0.0
        self._started = 0.0
        self._epoch = 0.0
        self._clock: Callable[[], float] = lambda: 0.0
        self._draw = random.Random(seed)
        self._id_head = f"req_{seed & 0xFFFFFFFF:08x}"
        self._number = 0
        self._tuned: dict[str, int] = {}
        self._lanes: dict[tuple[Account, str], Lane] = {}

    def start(self, loop: asyncio.AbstractEventLoop, epoch: float) -> None:
        """Starts the server's clock at `epoch`: everything it counts is time since now."""
        self._clock = loop.time
        self._started = loop.time()
        self._epoch = epoch

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def today(self) -> float:
        """The time of day, for what is shown to people and clients."""
        return self._epoch + self.elapsed()

    def request_id(self, number: int) -> str:
        """The id of a request's reply."""
        return f"{self._id_head}{number:024x}"

    async def handle(self, path: str, answer: Answer, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request to a path, and keeps the books on it whatever happens."""
        self._number += 1
        record = Record(self._number, self.elapsed(), request.method, path)
        self.stats.arrive(record)
        try:
            reply = await answer(request, record)
            if record.fault not in UNDELIVERED:
                record.status = reply.status
        except Refused as refused:
            reply = self.refusal(refused.problem, record.number)
            record.status = reply.status
        finally:
            record.seconds = self.elapsed() - record.at
            self.stats.finish(record)
            if self.log is not None:
                self.log.write(msgspec.json.encode(record) + b"\n")
        return reply

    def refusal(self, problem: Problem, number: int) -> web.Response:
        """The reply that carries a problem."""
        head = _JSON + problem.lines
        if "x-request-id" not in head:
            head += f"x-request-id: {self.request_id(number)}\r\n"
        reply = Reply(problem.status, head, problem.body()).whole()
        if problem.status in (408, 413):  # the rest of the body is not wanted
            reply.force_close()
        return reply

    async def answer(self, endpoint: Endpoint, request: web.BaseRequest, record: Record) -> web.StreamResponse:
        """Answers a request to an endpoint that a model is behind."""
        headers = request.headers
        account = self.accounts.of(headers)
        record.organization, record.project = account.organization, account.project
        if record.at < self.refusing_until:
            record.fault = "refuse"
            return reset(request)
        raw = await read_body(request, self.behaviour.most_body, self.behaviour.body_timeout)
        try:
            ask = endpoint.read(raw)
        except Refused:
            self._check_model(endpoint, raw)
            raise
        lane = self._lane(account, endpoint, ask)
        endpoint.check(ask, lane.family)
        record.size = len(raw)
        record.model = lane.family.name
        record.custom_id = headers.get("Idempotency-Key") or headers.get("X-Custom-Id") or ask.custom_id
        if record.custom_id is not None:
            self.stats.name(record)
        failing = self.faults.any
        if failing and (fault := self._strike_early(record, lane)) is not None:
            return await carry_out(fault, request, Reply(503, "", b""))
        head = self._admit(lane, ask, endpoint, record)
        fault = self.faults.strike(record.number, record.at, record.path, early=False) if failing else None
        if fault is not None:
            record.fault = fault.kind
        if ask.bad_image is not None:
            raise _with_lines(refusals.bad_image(ask.bad_image), head)
        delay = self.behaviour.latency.at(self._draw.random())
        if delay > 0:
            await asyncio.sleep(delay)
        head += f"openai-processing-ms: {int(delay * 1000)}\r\nx-request-id: {self._id_head}{record.number:024x}\r\n"
        stamp = Stamp(record.number, int(self._epoch + record.at + delay), lane.resolved)
        if fault is not None:
            return await self._spoil(fault, request, _Work(endpoint, lane, ask, stamp), head)
        answers = endpoint.answers(ask, lane.family, self.writer)
        if ask.stream and endpoint.events is not None:
            return await self._stream(request, head + _EVENTS, endpoint.events(ask, stamp, answers))
        return Reply(200, head + _JSON, endpoint.body(ask, stamp, answers)).to(request)

    async def _spoil(self, fault: Fault, request: web.BaseRequest, work: _Work, head: str) -> web.StreamResponse:
        """Answers an admitted request as a fault says."""
        endpoint, ask = work.endpoint, work.ask
        if (problem := fault.problem) is not None:
            raise _with_lines(self._dated(problem), head)
        answers = endpoint.answers(ask, work.lane.family, self.writer)
        if not ask.stream or endpoint.events is None:
            reply = Reply(200, head + _JSON, endpoint.body(ask, work.stamp, answers))
            return reply.to(request) if fault.kind == "response_failed" else await carry_out(fault, request, reply)
        if fault.kind == "response_failed":
            failed = endpoint.failed(ask, work.stamp, self._stream_error(work.lane))
            return await self._stream(request, head + _EVENTS, failed)
        events = b"".join(endpoint.events(ask, work.stamp, answers))
        return await carry_out(fault, request, Reply(200, head + _EVENTS, events))

    async def _stream(self, request: web.BaseRequest, head: str, events: Iterable[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers=rows(head))
        response.enable_chunked_encoding()
        await response.prepare(request)
        if self.behaviour.token_delay <= 0:
            await response.write(b"".join(events))
        else:
            for event in events:
                await response.write(event)
                await asyncio.sleep(self.behaviour.token_delay)
        await response.write_eof()
        return response

    def _check_model(self, endpoint: Endpoint, raw: bytes) -> None:
        """Raises Refused where the model of a body that is wrong in other ways is not known: the model comes first."""
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            model = msgspec.json.decode(raw, type=dict[str, Any]).get("model")
            if isinstance(model, str) and self.catalogue.find(model) is None:
                raise Refused(endpoint.unknown(model))

    def _lane(self, account: Account, endpoint: Endpoint, ask: Ask) -> Lane:
        model = ask.model
        lane = self._lanes.get((account, model))
        if lane is None:
            family = self.catalogue.find(model)
            if family is None:
                raise Refused(endpoint.unknown(model))
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes.clear()
            who = [("openai-organization", account.organization), ("openai-project", account.project)]
            counter = self.counters.of(account, family)
            resolved, text = family.answers_as(model), lines(who) + _VERSION
            lane = self._lanes[account, model] = Lane(account, family, counter, resolved, model, text, family.name)
        if lane.family.long is not None and lane.family.counted_as(ask.prompt_tokens) is not lane.family:
            return replace(lane, counter=self.counters.of(account, lane.family.long), bucket=lane.family.long.name)
        return lane

    def _admit(self, lane: Lane, ask: Ask, endpoint: Endpoint, record: Record) -> str:
        """Counts the request and returns its headers so far, or raises Refused with a 429."""
        record.charge = charge(ask, endpoint.name, self.behaviour.charge)
        if not endpoint.limited:
            self.stats.admit(record, self.elapsed())
            return lane.lines
        now = int(self.elapsed() * 1e6)
        cost = (record.charge, ask.images, 1)
        overrun = lane.counter.admit(cost, now)
        if overrun is None:
            self.stats.admit(record, now / 1e6)
            return lane.lines + limit_lines(lane.counter, now, images=ask.images > 0)
        record.refused = overrun.cap.dimension
        if self.behaviour.count_rejected:
            lane.counter.count_rejected(cost, now)
        head = lane.lines
        if endpoint.name != "responses" or self.behaviour.responses_429_headers:
            head += limit_lines(lane.counter, now, images=ask.images > 0) + lines(retry_rows(overrun))
        raise Refused(refusals.overrun(overrun, self._message(overrun, lane), head))

    def _message(self, overrun: Overrun, lane: Lane) -> str:
        return refusals.overrun_message(
            overrun,
            model=lane.asked,
            family=lane.bucket,
            organization=lane.account.organization,
            free=self.catalogue.tier == "free",
        )

    def _strike_early(self, record: Record, lane: Lane) -> Fault | None:
        """The fault that comes before the limits; raises Refused where it is an answer."""
        tuned = self.faults.limits(record.number, record.at)
        if tuned != self._tuned:
            self._tuned = tuned
            self.counters.retune(Limits(**tuned))
        fault = self.faults.strike(record.number, record.at, record.path, early=True)
        if fault is None:
            return None
        record.fault = fault.kind
        problem = fault.problem
        if problem is None:
            self.on_refuse(5.0 if fault.seconds is None else fault.seconds)
            return fault
        record.refused = fault.kind
        if fault.kind == "storm":
            limit = lane.family.limits.rpm or 500
            overrun = Overrun(cap("rpm", limit), limit, 1, 60_000 // limit)
            head = lane.lines + limit_lines(lane.counter, int(record.at * 1e6))
            head += problem.lines or lines(retry_rows(overrun))
            problem = refusals.overrun(overrun, self._message(overrun, lane), head)
        raise Refused(self._dated(problem))

    def restore_limits(self) -> None:
        """Takes back what faults and `set_limits` have changed."""
        self._tuned = {}
        self.counters.retune(Limits())

    def _dated(self, problem: Problem) -> Problem:
        """The problem with a `retry-after` of `date:SECONDS` written as that date."""
        if "retry-after: date:" not in problem.lines:
            return problem
        dated = [
            (name, formatdate(self.today() + float(value[5:]), usegmt=True) if value.startswith("date:") else value)
            for name, value in rows(problem.lines)
        ]
        return replace(problem, lines=lines(dated))

    def _stream_error(self, lane: Lane) -> dict[str, str | None]:
        """What a stream that was already accepted ends with."""
        limit = lane.family.limits.tpm or 30_000
        overrun = Overrun(cap("tpm", limit), limit, 1, 60_000 // limit)
        return refusals.overrun(overrun, self._message(overrun, lane), "").error()


def _with_lines(problem: Problem, head: str) -> Refused:
    return Refused(replace(problem, lines=head + problem.lines))
