"""The rows that are in no batch, as pieces that may become one, in the queue of their lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

from ratelimit.errors import NeverFits, RateLimitError
from ratelimit.jobs.batches.api import Problem
from ratelimit.jobs.batches.packing import MOST_ROWS, Caps, Piece, cut
from ratelimit.jobs.batches.queue import Queue, parts, told_limit
from ratelimit.jobs.batches.spool import Spool
from ratelimit.limits.tiers import Table

_RECALLED = 20  # parts of what waits: a batch is recalled as a whole, so that it is no more than one of these
_FEWEST = 200  # rows that are worth a file of their own

Refuse = Callable[[int, int, RateLimitError], None]
"""Writes down that a row cannot succeed: its group, its place there, and why."""


class Backlog:
    """The queue of every lane; what no batch can hold is refused, or left to the live API where there is one."""

    def __init__(
        self,
        spool: Spool,
        table: Table,
        tier: str,
        *,
        created: Sized,
        refuse: Refuse,
        say: Callable[[str], None],
        both_routes: bool,
    ) -> None:
        self.queues: dict[str, Queue] = {}
        self._spool = spool
        self._table = table
        self._tier = tier
        self._created = created
        self._refuse = refuse
        self._say = say
        self._both = both_routes

    @property
    def empty(self) -> bool:
        """Whether no row waits."""
        return not any(queue.waiting or queue.held or queue.only_live for queue in self.queues.values())

    def queue(self, lane: str) -> Queue:
        """Return the queue of a lane."""
        if lane not in self.queues:
            limit = self._table.on(lane, self._tier).batch_queue
            self.queues[lane] = Queue(lane, float("inf") if limit is None else limit)
        return self.queues[lane]

    def wait(self, number: int, places: Sequence[int]) -> None:
        """Take in rows of a group."""
        group = self._spool.groups[number]
        queue = self.queue(group.lane)
        if large := [place for place in places if group.tokens[place] > queue.limit]:
            places = [place for place in places if group.tokens[place] <= queue.limit]
            self.turn_down(
                number,
                {
                    place: NeverFits(f"the batch queue of {group.lane}", group.tokens[place], queue.limit)
                    for place in large
                },
            )
        total = queue.enqueued + sum(piece.tokens for piece in queue.waiting)
        total += sum(group.tokens[place] for place in places)
        size = parts(queue.limit, total, len(self._created))
        rows = min(max(len(places) // _RECALLED, _FEWEST), MOST_ROWS) if self._both else MOST_ROWS
        queue.waiting += cut(number, places, group, Caps(rows=rows, tokens=size))

    def turn_down(self, number: int, reasons: Mapping[int, RateLimitError]) -> None:
        """See to rows, by their place, that the Batch API cannot answer."""
        group = self._spool.groups[number]
        if group.live:
            tokens = sum(group.tokens[place] for place in reasons)
            self.queue(group.lane).only_live.append(Piece(number, list(reasons), tokens))
            return
        for place, reason in reasons.items():
            self._refuse(number, place, reason)

    def again(self, places: Iterable[tuple[int, int]]) -> None:
        """Take in rows that have been in a batch."""
        groups: dict[int, list[int]] = {}
        for group, place in places:
            groups.setdefault(group, []).append(place)
        for group, found in groups.items():
            self.wait(group, found)

    def learn(self, queue: Queue, problems: Sequence[Problem]) -> None:
        """Go by the limit that a refusal names, where it is lower than the table's."""
        for problem in problems:
            if (limit := told_limit(problem.message or "")) is not None and limit < queue.limit:
                self._say(
                    f"the batch queue of {queue.lane} holds {limit:,} tokens, not {queue.limit:,.0f}: going by that"
                )
                queue.limit = limit
                waiting, queue.waiting = queue.waiting, []
                for piece in waiting:
                    self.wait(piece.group, piece.rows)
