"""A run through the Batch API as onlookers see it: its queues beside the lanes of the live API, if it has any."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

from ratelimit.admission.scheduler import LaneStatus, LimitStatus
from ratelimit.jobs.batches.queue import Queue
from ratelimit.wire.client import Client
from ratelimit.wire.sender import Count

_NAME = "batch queue"


class Shown:
    """Each queue is one more limit of its lane; the rows in batches are on their way."""

    def __init__(self, queues: Callable[[], Collection[Queue]], client: Client | None) -> None:
        self._queues = queues
        self._client = client

    @property
    def count(self) -> Count:
        """What the live API was sent."""
        return self._client.count if self._client else Count()

    @property
    def paused(self) -> bool:
        """Whether the live API seems to be down."""
        return self._client.paused if self._client else False

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands by both routes."""
        lanes = {lane.name: lane for lane in self._client.snapshot()} if self._client else {}
        for queue in self._queues():
            lane = lanes.get(queue.lane) or LaneStatus(queue.lane, 0, 0, 0, None, None, ())
            waiting = sum(len(piece.rows) for piece in queue.waiting)
            limits = lane.limits
            if math.isfinite(queue.limit):
                used = queue.enqueued / queue.limit if queue.limit else 1.0
                limits += (LimitStatus(_NAME, queue.limit, queue.room, used, 1.0, 0.0),)
            lanes[queue.lane] = replace(
                lane,
                waiting=lane.waiting + waiting,
                in_flight=lane.in_flight + queue.under_way,
                waiting_for=lane.waiting_for or (_NAME if waiting else None),
                limits=limits,
            )
        return tuple(lanes.values())
