"""What a program and the place of shared limits say to each other: one question, one answer.

There is one verb, `lease`. A program hands back what it still holds, tells what it has learnt, says what it wants, and
gets what it may send from now on. A lease is an amount, not a rate: it has been taken from the lane's buckets before it
is given out, so all programs together never send more than the limits allow, whoever freezes or dies.

Amounts are lists in the order of `units`. Times are microseconds of the store's clock, which a program knows only from
its last answer and what has passed since. A question that comes late by it was held up on the way, and nobody may be
waiting for an answer any more, or the store's clock has jumped: the store does nothing but say so, and whoever gets
that without delay knows which. A question is asked again with its number when the answer got lost, and taken in once.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ratelimit.errors import RateLimitError

NO_BURST = -1.0
"""As a bucket's burst: it has none of its own."""


class LimitKnown(msgspec.Struct):
    """One limit, and all that can be learnt of it."""

    unit: str
    window: float
    scope: str
    amount: float
    share: float
    reserve: float
    burst: float
    top: float
    slice: float = 0
    """Of how many seconds, for a service that counts in slices; and over how many arrivals are spread."""
    spread: float = 0
    proven: bool = False
    """Whether the service itself has told the amount."""
    version: int = 0
    """Which one of the store's it is; 0 from a program that comes with nothing but its tables."""

    @property
    def key(self) -> tuple[str, float, str]:
        """Which limit it is."""
        return self.unit, self.window, self.scope

    @property
    def known(self) -> dict[str, Any]:
        """What is known, by name."""
        return {name: getattr(self, name) for name in LimitKnown.__struct_fields__}


class LimitTold(LimitKnown):
    """One limit as a program knows it, and what has happened to it there since the last answer."""

    changed: bool = False
    """Whether the program has learnt something that the version it heard does not have."""
    closed: float = 0
    shift: float = 0
    """Drift: what somebody else took, or what was never charged."""
    basis: float = 0
    """All drift there had been in the last answer; what others have found since is not counted again."""
    missing: float = 0
    """For a store that knows nothing of the lane: what a bucket here is short of."""


class Ask(msgspec.Struct):
    """What a program says."""

    lane: str
    holder: str
    name: str
    number: int
    weight: float
    lasts: float
    """For how long the lease is to last; 0 from one who leaves."""
    at: float
    """What the store's clock should show now; 0 from one who has not heard it yet."""
    jump: float
    """By how much it has been found to have jumped ahead."""
    epoch: float
    """Which life of the store the program knows; 0 for none."""
    answered: bool
    """Whether the service has answered this program, so that what it claims of the buckets is known."""
    priority: float
    pace: float
    """How many times faster than the limit a full lane may begin."""
    units: list[str]
    need: list[float]
    """What the foremost request costs: less is of no use."""
    want: list[float]
    """All that would be sent before long, with what is held."""
    has: list[float]
    keep: list[float]
    """The part of it that cannot be taken back: it may be sent while this is under way."""
    total: list[float]
    """All that was ever leased to this holder, against a store that has forgotten some of it."""
    give: list[float]
    """What settling has given back since the last answer, below zero what it has taken."""
    spent: list[float]
    """What was sent without a lease, while the store was away."""
    limits: list[LimitTold]
    facts: list[tuple[str, str]] = []
    """Whatever else is good to know in the lane, by name."""


class LimitKept(LimitKnown, kw_only=True):
    """One limit as the store keeps it."""

    missing: float
    """Microseconds until it is full."""
    closed: float
    corrected: float
    taken: float
    held: float
    """What other programs hold, sent or not."""
    ours: float = 0
    """What was taken for somebody else's, of all drift there has been, and was sent by one of us without the store."""


class Answer(msgspec.Struct):
    """What the store says."""

    number: int
    now: float
    late: bool
    """Whether nothing has been done because the question came too late; all else says nothing then."""
    epoch: float
    granted: list[float]
    """All that the program may hold now, with what it had."""
    hint: float
    """How long to wait before asking again can help; 0 if it got what it needs."""
    programs: int
    part: float
    """The part of every limit that is this program's when all want something."""
    limits: list[LimitKept]
    facts: list[tuple[str, str]]


class HolderSeen(msgspec.Struct):
    """One program as an onlooker sees it."""

    name: str
    weight: float
    priority: float
    units: list[str]
    holds: list[float]
    wants: list[float]
    total: list[float]


class LaneSeen(msgspec.Struct):
    """One lane as an onlooker sees it."""

    lane: str
    limits: list[LimitKept]
    holders: list[HolderSeen]


class StoreAway(RateLimitError):
    """The store did not answer, and nobody knows whether it heard."""


class Store(Protocol):
    """Where shared limits are kept."""

    async def check(self) -> None:
        """Raise, with what to do about it, for a store that cannot be used."""
        ...

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease; raises `StoreAway` where that may be tried again."""
        ...

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
