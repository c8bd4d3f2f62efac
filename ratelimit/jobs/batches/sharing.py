"""Shares a job out between the Batch API and the live API, so that a deadline holds and as much as can be costs half.

A row is in one place at any moment, and each place is on disk: in a batch, from the ledger's intent until its end is
noted there; with the live API, from the journal's line before it is sent until its result; or in neither. It never goes
from one to the other directly. One row's way through both:

    ledger    {"tag": "7", "intent": ...}         it is in batch 7, whatever happens from here on
    ledger    {"tag": "7", "file": ...}, {"tag": "7", "batch": ...}
    the lane is behind, and batch 7 is the slowest
    ledger    {"tag": "7", "recalled": true}      then the service is asked to cancel; the row is still in batch 7
    the batch is over, cancelled or not: its files are fetched, and what they answer is in the output, and synced
    ledger    {"tag": "7", "ended": "cancelled"}  if it was not answered, the row is in neither from here on
    journal   {"sent": "row-1", ...}              it is with the live API
    output    {"custom_id": "row-1", ...}

A run that is killed between two of these lines is continued from the line before: a recalled batch is cancelled once
more and collected before its rows go anywhere. Only what was sent and not answered may be paid for twice, as in every
live run, and is reported.

What is decided, and when, is in `routes`. The live API is given a minute's work at a time, for what it has in hand it
keeps; a quarter of an hour's is held back from batches, and when that runs short, the slowest batch is recalled. One
that was recalled and does not end is not counted on for that: others are recalled in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from ratelimit.jobs.batches.following import Flight
from ratelimit.jobs.batches.live import Live
from ratelimit.jobs.batches.packing import Piece, divided, joined
from ratelimit.jobs.batches.queue import Queue
from ratelimit.jobs.batches.routes import (
    AHEAD,
    RECALLING,
    Work,
    ample,
    behind,
    live_seconds,
    rows_within,
    slowest,
    spare,
    to_go,
)
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.figures import counted, duration

_SMALL = 200  # rows: what is less is joined, lest there be ever more pieces of few
LOOK_EVERY = 5.0  # seconds


class Sharing:
    """Decides for every lane which rows go to the live API, and which batches are recalled."""

    def __init__(
        self, live: Live, spool: Spool, *, due: float, recall: Callable[[Flight], None], say: Callable[[str], None]
    ) -> None:
        self._live = live
        self._spool = spool
        self._due = due  # by the loop's clock
        self._recall = recall
        self._say = say
        self._behind: dict[str, bool] = {}
        self._told: set[str] = set()  # lanes of which it was said that they are late

    def share(self, queue: Queue, flights: Iterable[Flight], now: float) -> None:
        """Look at one lane: hold back, send, recall."""
        batches = [flight for flight in flights if flight.queue is queue and self._could_be_live(flight)]
        out = [flight for flight in batches if not flight.freed and not flight.about.recalled]
        back = [flight for flight in batches if flight.freed or flight.about.recalled]
        coming = sum((self._left_in(flight) for flight in back if not flight.overdue(now)), Work())
        stuck = [flight for flight in back if flight.overdue(now)]
        inside = sum((self._left_in(flight) for flight in out), Work())
        work = self._work([*queue.waiting, *queue.held, *queue.only_live]) + coming + inside + self._in_hand(queue)
        work += sum((self._left_in(flight) for flight in stuck), Work())
        left = self._due - now
        seconds = live_seconds(work, self._live.allowances(queue.lane))
        late = behind(left, seconds, before=self._behind.get(queue.lane, False))
        if queue.lane not in self._behind and work.requests:
            self._explain(queue.lane, work, seconds, left)
        if left < 0 and work.requests:
            self._admit(queue.lane, work, stuck)
        self._behind[queue.lane] = late
        self._hold(queue, (AHEAD if ample(left, seconds) else math.inf) if late else 0.0)
        self._send(queue)
        if late:
            soon = coming + self._work([*queue.held, *queue.only_live]) + self._in_hand(queue)
            enough = math.inf if left < RECALLING and not ample(left, seconds) else AHEAD
            self._call_back(queue, out, enough, soon, now, sooner=seconds > left)

    def _hold(self, queue: Queue, seconds: float) -> None:
        """Keep so much of the live API's work out of batches, and no more."""
        queue.waiting += queue.held
        queue.held = []
        if not seconds:
            return
        queue.waiting.sort(key=lambda piece: -piece.tokens)
        held = Work()
        rest: list[Piece] = []
        while queue.waiting and self._flowing(queue.lane, held) < seconds:
            piece = queue.waiting.pop()
            if not self._spool.groups[piece.group].live:
                rest.append(piece)
                continue
            takes = rows_within(
                seconds, self._row(piece.group), [each.flowing for each in self._live.allowances(queue.lane)]
            )
            if math.isfinite(takes) and len(piece.rows) > 2 * (more := max(math.ceil(takes - held.requests), 1)):
                piece, other = divided(piece, more, self._spool.groups[piece.group])
                rest.append(other)
            queue.held.append(piece)
            held += self._work([piece])
        queue.held = joined(queue.held, _SMALL)
        queue.waiting += rest

    def _send(self, queue: Queue) -> None:
        for pieces in (queue.only_live, queue.held):
            while pieces:
                piece = pieces.pop()
                room = self._live.room(queue.lane, self._row(piece.group))
                if room < len(piece.rows):
                    piece, other = divided(piece, max(room, 0), self._spool.groups[piece.group])
                    pieces.append(other)
                if room <= 0:
                    break
                self._live.take(piece)

    def _call_back(
        self, queue: Queue, out: Sequence[Flight], enough: float, soon: Work, now: float, *, sooner: bool = False
    ) -> None:
        """Recall batches, the slowest first, until the live API has work for so long.

        `sooner` spares those that will have answered before the live API would have.
        """
        ready = [flight for flight in out if flight.about.batch]
        called = []
        for place in slowest(ready, now):
            flight = ready[place]
            live = self._flowing(queue.lane, soon + self._left_in(flight))
            if self._flowing(queue.lane, soon) >= enough or (sooner and to_go(flight, now) <= live):
                break
            called.append(flight)
            soon += self._left_in(flight)
        for flight in called:
            self._recall(flight)
        if called:
            rows = sum(flight.unanswered for flight in called)
            self._say(
                f"{counted(len(called), 'batch')} of {queue.lane} would be too late: cancelled, and "
                f"what is not answered there, {rows:,} requests so far, moves over to the live API"
            )

    def _explain(self, lane: str, work: Work, seconds: float, left: float) -> None:
        prices = self._spool.table.find(lane).prices
        cheaper = f"{prices.batch_discount:.0%} cheaper" if prices and prices.batch_discount else "cheaper"
        late = spare(left, seconds)
        if left <= 0:
            self._told.add(lane)
            how = "the deadline has passed, so "
            how += "the Batch API answers what it can meanwhile" if ample(left, seconds) else "all of them go there"
        elif late >= 0:
            how = (
                f"they go through the Batch API, which is {cheaper}; what it has not answered in "
                f"{duration(late)} begins to move over"
            )
        else:
            how = f"so it begins at once, and the Batch API, which is {cheaper}, answers what it can meanwhile"
            if seconds > left:
                how += f"; the deadline is in {duration(left)}, and only holds if that is enough"
        self._say(f"{lane}: the live API needs {duration(seconds)} for {work.requests:,.0f} requests; {how}")

    def _admit(self, lane: str, work: Work, stuck: Sequence[Flight]) -> None:
        """Say once that a lane is late, and what is to blame."""
        if lane in self._told:
            return
        self._told.add(lane)
        waiting = sum(flight.unanswered for flight in stuck)
        blame = f", {waiting:,} of them in batches that the service does not end" if waiting else ""
        self._say(f"the deadline has passed with {work.requests:,.0f} requests of {lane} unanswered{blame}; going on")

    def _could_be_live(self, flight: Flight) -> bool:
        return any(self._spool.groups[group].live for group in flight.places.numbers)

    def _left_in(self, flight: Flight) -> Work:
        return self._row(flight.places.numbers[0]).times(flight.unanswered)

    def _work(self, pieces: Iterable[Piece]) -> Work:
        rows = ((self._row(piece.group), len(piece.rows)) for piece in pieces if self._spool.groups[piece.group].live)
        return sum((row.times(count) for row, count in rows), Work())

    def _row(self, number: int) -> Work:
        """Return what a row of a group asks of the live API, on average."""
        group = self._spool.groups[number]
        return Work(1.0, group.charge / len(group.keys))

    def _in_hand(self, queue: Queue) -> Work:
        groups = [group for group in self._spool.groups if group.lane == queue.lane]
        rows = sum(len(group.keys) for group in groups)
        charge = sum(group.charge for group in groups)
        return Work(1.0, charge / rows).times(self._live.in_hand[queue.lane]) if rows else Work()

    def _flowing(self, lane: str, work: Work) -> float:
        """Return the live API's time for this once its bursts are used up."""
        return live_seconds(work, [each.flowing for each in self._live.allowances(lane)])
