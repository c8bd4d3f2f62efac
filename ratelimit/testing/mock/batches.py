"""The Batch API: a batch lives through its states in the loop's time, at a speed that can be set.

Its requests are counted against no limit but the batch queue: the prompt tokens an organization may have enqueued for a
model at one time. A batch beyond that is created, and fails a little later, as the service lets it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import msgspec

from ratelimit.testing.mock import rows
from ratelimit.testing.mock.accounts import Account, Counters
from ratelimit.testing.mock.answers import Writer
from ratelimit.testing.mock.catalogue import Catalogue, Family
from ratelimit.testing.mock.counting import Cap, Meter, meter
from ratelimit.testing.mock.endpoints import ENDPOINTS
from ratelimit.testing.mock.files import Files, Stored
from ratelimit.testing.mock.refusals import NOT_JSON, Problem, Refused

_WINDOW = 86_400
_CREATED_AN_HOUR = 2000
_MOST_EMBEDDINGS = 1_000_000
_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast batches live: requests a second, seconds of checking and of finalizing, and of a late release."""

    speed: float = 1000.0
    delay: float = 0.5
    release_lag: float = 0.0


class _Create(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: dict[str, Any] | None = None


_CREATE = msgspec.json.Decoder(_Create)


class Batch(msgspec.Struct):
    """One batch: whose it is, what the service says of it, and the task that lets it live."""

    account: Account
    about: dict[str, Any]
    source: Stored
    cancelled: asyncio.Event
    life: asyncio.Task[None] | None = None


class Batches:
    """The batches of all organizations."""

    def __init__(
        self,
        *,
        files: Files,
        catalogue: Catalogue,
        counters: Counters,
        writer: Writer,
        pace: Pace,
        today: Callable[[], float],
        request_id: Callable[[int], str],
    ) -> None:
        self._files = files
        self._catalogue = catalogue
        self._counters = counters
        self._writer = writer
        self._pace = pace
        self._today = today
        self._request_id = request_id
        self._batches: dict[str, Batch] = {}
        self._enqueued: Counter[tuple[str, str]] = Counter()
        self._created: dict[str, Meter] = {}
        self._number = 0
        self._answered = 0

    async def close(self) -> None:
        """Ends every batch where it is."""
        lives = [each.life for each in self._batches.values() if each.life is not None]
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def create(self, account: Account, raw: bytes) -> dict[str, Any]:
        """Creates a batch that is about to be checked, or Refused."""
        try:
            given = _CREATE.decode(raw)
        except msgspec.ValidationError as error:
            raise Refused(Problem(400, f"Invalid request: {error}", code="invalid_request")) from None
        except (msgspec.DecodeError, RecursionError):
            raise Refused(NOT_JSON) from None
        if given.completion_window != "24h":
            raise _invalid("completion_window", given.completion_window, "'24h'")
        if given.endpoint not in ENDPOINTS:
            raise _invalid("endpoint", given.endpoint, ", ".join(f"'{each}'" for each in ENDPOINTS))
        source = self._files.get(account.organization, given.input_file_id)
        if source.about["purpose"] != "batch":
            raise _invalid("input_file_id", given.input_file_id, "a file whose purpose is 'batch'")
        self._count_creation(account)
        return self._begin(account, given, source).about

    def get(self, account: Account, name: str) -> Batch:
        """A batch of an organization, or Refused with a 404."""
        batch = self._batches.get(name)
        if batch is None or batch.account.organization != account.organization:
            raise Refused(Problem(404, f"No batch found with id '{name}'.", param="batch_id"))
        return batch

    def listed(self, account: Account, after: str | None, limit: int) -> dict[str, Any]:
        """An organization's batches, the newest first, a page at a time."""
        own = [
            each.about for each in reversed(self._batches.values()) if each.account.organization == account.organization
        ]
        names = [each["id"] for each in own]
        start = names.index(after) + 1 if after in names else 0
        page = own[start : start + limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(own) > start + limit,
        }

    def cancel(self, account: Account, name: str) -> dict[str, Any]:
        """Begins to cancel a batch that is still alive, or Refused."""
        batch = self.get(account, name)
        if batch.about["status"] not in ("validating", "in_progress", "finalizing", "cancelling"):
            status = batch.about["status"]
            raise Refused(Problem(409, f"Cannot cancel a batch with status '{status}'."))
        self._enter(batch, "cancelling")
        batch.cancelled.set()
        return batch.about

    def enqueued(self, organization: str, family: str) -> int:
        """The prompt tokens that wait for a model now."""
        return self._enqueued[organization, family]

    def _count_creation(self, account: Account) -> None:
        now = int(asyncio.get_running_loop().time() * 1e6)
        name = account.organization
        created = self._created.setdefault(name, meter(Cap("rpm", _CREATED_AN_HOUR, 3_600_000_000), "sliding"))
        offer = created.offer(1, now)
        if offer is None:
            raise Refused(
                Problem(
                    429,
                    f"Rate limit reached for batch creation in organization {name}: Limit "
                    f"{_CREATED_AN_HOUR} per hour. Please try again later.",
                    "requests",
                    "rate_limit_exceeded",
                )
            )
        created.accept(offer, now)

    def _begin(self, account: Account, given: _Create, source: Stored) -> Batch:
        self._number += 1
        created = int(self._today())
        stages = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        about: dict[str, Any] = {
            "id": f"batch_{self._number:024x}",
            "object": "batch",
            "endpoint": given.endpoint,
            "model": None,
            "errors": None,
            "input_file_id": given.input_file_id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": created,
            "expires_at": created + _WINDOW,
            **{f"{stage}_at": None for stage in stages},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "usage": {
                "input_tokens": 0,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 0,
            },
            "metadata": given.metadata,
        }
        batch = self._batches[about["id"]] = Batch(account, about, source, asyncio.Event())
        batch.life = asyncio.get_running_loop().create_task(self._live(batch))
        return batch

    def _enter(self, batch: Batch, status: str) -> None:
        batch.about["status"] = status
        batch.about[f"{status}_at"] = int(self._today())

    async def _live(self, batch: Batch) -> None:
        """From `validating` to one of the ends."""
        await asyncio.sleep(self._pace.delay)
        found = rows.check(batch.source.lines(), batch.about["endpoint"], self._catalogue)
        family = found.family
        batch.about["model"] = family.answers_as(found.model or "") if family is not None else None
        if family is not None and not found.errors:
            self._check_queue(batch, found, family)
        if found.errors or family is None:
            batch.about["errors"] = {"object": "list", "data": found.errors}
            self._enter(batch, "failed")
            return
        lane = batch.account.organization, family.name
        self._enqueued[lane] += found.tokens
        try:
            batch.about["request_counts"]["total"] = found.rows
            if batch.about["status"] == "validating":
                self._enter(batch, "in_progress")
            await self._work(batch, family)
        finally:
            asyncio.get_running_loop().call_later(self._pace.release_lag, self._enqueued.subtract, {lane: found.tokens})

    def _check_queue(self, batch: Batch, found: rows.Checked, family: Family) -> None:
        organization = batch.account.organization
        limit = self._counters.limits(organization, family).batch_queue
        unit, said = "token", limit
        if batch.about["endpoint"] == "/v1/embeddings" and found.inputs > _MOST_EMBEDDINGS:
            unit, said = "request", _MOST_EMBEDDINGS
        elif limit is None or self._enqueued[organization, family.name] + found.tokens <= limit:
            return
        message = (
            f"Enqueued {unit} limit reached for {found.model} in organization {organization}. Limit: {said:,} enqueued "
            f"{unit}s. Please try again once some in_progress batches have been completed."
        )
        found.wrong(f"{unit}_limit_exceeded", None, message)

    async def _work(self, batch: Batch, family: Family) -> None:
        """Answers the lines at the set speed, until they are done, cancelled or expired."""
        loop = asyncio.get_running_loop()
        about = batch.about
        ends_at = loop.time() + about["expires_at"] - self._today()
        begun, taken = loop.time(), 0
        answering = rows.Answering(ENDPOINTS[about["endpoint"]], family, self._writer, self._request_id)
        with _Outputs(self._files, batch) as outputs:
            for line in batch.source.lines():
                if not line.strip():
                    continue
                due = begun + (taken + 1) / self._pace.speed
                if due > loop.time() and about["status"] == "in_progress" and loop.time() < ends_at:
                    await _pause(min(max(due - loop.time(), _TICK), ends_at - loop.time()), batch.cancelled)
                if about["status"] == "cancelling":
                    break
                self._answered += 1
                if loop.time() >= ends_at:
                    outputs.fail(rows.expired(line, self._answered))
                    continue
                taken += 1
                outputs.add(answering.answer(line, self._answered, int(self._today())))
        if about["status"] == "in_progress" and loop.time() < ends_at:
            self._enter(batch, "finalizing")
        await asyncio.sleep(self._pace.delay)
        ends = {"cancelling": "cancelled", "finalizing": "completed"}
        outputs.publish()
        self._enter(batch, ends.get(about["status"], "expired"))


class _Outputs:
    """The output and error files of a batch while they are written."""

    def __init__(self, files: Files, batch: Batch) -> None:
        self._files = files
        self._batch = batch
        self._open: dict[str, tuple[Stored, BinaryIO]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, done: rows.Done) -> None:
        """Writes an answered line where it belongs, and counts it."""
        about = self._batch.about
        if not done.ok:
            self.fail(done.line)
            return
        self._write("output", done.line)
        about["request_counts"]["completed"] += 1
        usage = about["usage"]
        usage["input_tokens"] += done.usage["input_tokens"]
        usage["output_tokens"] += done.usage["output_tokens"]
        usage["output_tokens_details"]["reasoning_tokens"] += done.usage["reasoning_tokens"]
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]

    def fail(self, line: bytes) -> None:
        """Writes a line to the error file, and counts it."""
        self._write("error", line)
        self._batch.about["request_counts"]["failed"] += 1

    def publish(self) -> None:
        """Makes the files known to their owner."""
        for kind, (stored, _) in self._open.items():
            self._batch.about[f"{kind}_file_id"] = self._files.keep(stored)

    def _write(self, kind: str, line: bytes) -> None:
        if kind not in self._open:
            name = f"{self._batch.about['id']}_{kind}.jsonl"
            stored = self._files.new(self._batch.account.organization, name, "batch_output")
            self._open[kind] = stored, self._stack.enter_context(stored.path.open("wb"))
        self._open[kind][1].write(line)


async def _pause(seconds: float, unless: asyncio.Event) -> None:
    """Waits, but not past the event."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()


def _invalid(param: str, value: str, expected: str) -> Refused:
    message = f"Invalid value: '{value}'. Supported values are: {expected}."
    return Refused(Problem(400, message, code="invalid_value", param=param))
