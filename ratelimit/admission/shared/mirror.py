"""A lane's buckets here, kept equal to those in the store.

Between two answers the mirror runs on by itself: time refills it, what is taken from the purse moves it, replies
correct it. With an answer each bucket becomes what the store's is, and what has happened here since the question was
put is applied on top. Drift found elsewhere arrives as a correction like our own, so that no reply to a request which
left before counts it again; and it is told to the pressure on the bucket, for an outsider drains it for all of us.

While the store is away each bucket is cut down to our part of it: of its rate, of its capacity, and of what was in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ratelimit.admission.shared.store import NO_BURST, LimitKept, LimitTold
from ratelimit.limits.bucket import Bucket, Limit
from ratelimit.limits.drift import Change
from ratelimit.limits.feedback import Feedback
from ratelimit.limits.quota import Cost, Quota
from ratelimit.limits.slices import Slices

Tuning = tuple[float, float, float, float, float, float, float]
"""Amount, share, reserve, burst, the largest share, slices and their spread: what can be learnt of a limit."""


@dataclass(slots=True)
class Synced:
    """One bucket as it was when store and mirror last agreed."""

    version: int = 0
    tuning: Tuning | None = None
    closed_until: float = -inf
    corrected: float = 0  # the mirror's
    basis: float = 0  # the store's
    taken: float = 0
    ours: float = 0
    claimed: float = 0  # the amount that our own table says


@dataclass(frozen=True, slots=True)
class Mark:
    """One bucket as it was when a question was put."""

    tuning: Tuning
    corrected: float


class Mirror:
    """The shared buckets of a quota; a cap of the user's own is this program's alone."""

    def __init__(self, quota: Quota, feedback: Feedback) -> None:
        self.quota = quota
        self.part: float | None = None  # ours, while the store is away
        self.changes: list[Change] = []  # what the last answer has brought
        self._feedback = feedback
        self._synced = {bucket: Synced(claimed=bucket.limit.amount) for bucket in self.buckets}

    @property
    def buckets(self) -> list[Bucket]:
        """Those that the store has, too."""
        return [bucket for bucket in self.quota.buckets if not bucket.limit.own]

    def marks(self, now: float) -> dict[Bucket, Mark]:
        """Return how the buckets stand, as a question is put."""
        return {bucket: Mark(self._tuning(bucket, now), bucket.corrected) for bucket in self.buckets}

    def told(self, purse: Cost, now: float) -> list[LimitTold]:
        """Return what the store is to know of each bucket."""
        told = []
        for bucket in self.buckets:
            limit, synced = bucket.limit, self._synced.setdefault(bucket, Synced())
            amount, share, reserve, burst, top, length, spread = tuning = self._tuning(bucket, now)
            missing = bucket.missing(now)
            told.append(
                LimitTold(
                    limit.unit,
                    limit.window,
                    limit.scope,
                    amount=amount,
                    share=share,
                    reserve=reserve,
                    burst=burst,
                    top=top,
                    slice=length,
                    spread=spread,
                    proven=limit.amount != synced.claimed,
                    version=synced.version,
                    changed=synced.version > 0 and tuning != synced.tuning,
                    closed=round((bucket.closed_until - now) * 1e6)
                    if bucket.closed_until > max(synced.closed_until, now)
                    else 0,
                    shift=bucket.corrected - synced.corrected,
                    basis=synced.basis,
                    missing=min(missing / self.part if self.part else missing + purse.get(limit.unit, 0), limit.amount),
                )
            )
        return told

    def take_in(
        self, limits: list[LimitKept], marks: dict[Bucket, Mark], purse: Cost, fresh: Cost, now: float
    ) -> list[tuple[Bucket, float]]:
        """Become what the store has.

        `purse` is what of it is ours still to send, `fresh` what has just been leased to us. Returns the limits for
        which our table says more than somebody else's, and what it says.
        """
        stricter: list[tuple[Bucket, float]] = []
        self.changes = []
        others: dict[str, float] = {}
        for kept in limits:
            bucket = self._find(kept, now)
            synced = self._synced.setdefault(bucket, Synced())
            mark = marks.get(bucket) or Mark(self._tuning(bucket, now), bucket.corrected)
            if synced.version:
                others[kept.unit] = max(kept.taken - synced.taken - fresh.get(kept.unit, 0), 0)
            elif not kept.proven and kept.amount < synced.claimed:
                stricter.append((bucket, synced.claimed))
            self._tune(bucket, kept, mark, now)
            self._correct(bucket, kept, mark, now)
            held = purse.get(kept.unit, 0) - (bucket.corrected - synced.corrected)
            bucket.full_at = now + max(kept.missing / 1e6 - held * bucket.interval, 0)
        if any(others.values()):
            self.quota.meter.add(others, now)
        return stricter

    def forget(self, marks: dict[Bucket, Mark]) -> None:
        """Begin anew with a store that has lost its memory and was told all we know with the question."""
        for bucket, synced in self._synced.items():
            mark = marks.get(bucket)
            self._synced[bucket] = Synced(
                tuning=synced.tuning, corrected=mark.corrected if mark else bucket.corrected, claimed=synced.claimed
            )

    def cut(self, part: float, purse: Cost, now: float) -> None:
        """Go on with a part of every limit, by what was known of it last."""
        self.part = part
        for bucket in self.buckets:
            missing = bucket.missing(now) + purse.get(bucket.limit.unit, 0)
            bucket.retune(now, share=bucket.share * part, burst=bucket.capacity * part)
            bucket.full_at = now + missing * part * bucket.interval

    def join(self, now: float) -> None:
        """Go on with whole limits, which the store keeps again."""
        self.part = None
        self.quota.start_over()
        for bucket in self.buckets:
            if tuning := self._synced[bucket].tuning:
                _, share, _, burst, *_ = tuning
                bucket.retune(now, share=share, burst=inf if burst == NO_BURST else burst)

    def _tuning(self, bucket: Bucket, now: float) -> Tuning:
        known = self._synced.get(bucket)
        if self.part and known and known.tuning:
            return known.tuning
        burst = NO_BURST if bucket.is_whole else bucket.burst
        slices = bucket.slices
        even = (slices.length, slices.spread) if slices else (0.0, 0.0)
        return bucket.limit.amount, bucket.share, bucket.reserve, burst, self._feedback.of(bucket, now).top, *even

    def _find(self, kept: LimitKept, now: float) -> Bucket:
        """Return the mirror of one of the store's; a new one where another program was told of a limit."""
        for bucket in self.buckets:
            if (bucket.limit.unit, bucket.limit.window, bucket.limit.scope) == kept.key:
                return bucket
        return self.quota.add(Limit(kept.unit, kept.amount, kept.window, kept.scope), now)

    def _tune(self, bucket: Bucket, kept: LimitKept, mark: Mark, now: float) -> None:
        synced, tuning = self._synced[bucket], _tuning_of(kept)
        if not synced.version or tuning not in {synced.tuning, mark.tuning}:
            if kept.amount != bucket.limit.amount:
                if kept.proven:  # another program has heard it from the service
                    self.changes.append(Change("retuned", bucket.limit.name, bucket.limit.amount, kept.amount))
                self.quota.retune(bucket, kept.amount, now)
            burst = inf if kept.burst == NO_BURST else kept.burst
            bucket.retune(now, share=kept.share, reserve=kept.reserve, burst=burst)
            if tuning[4:] != self._tuning(bucket, now)[4:]:
                slices = Slices(kept.slice, kept.spread) if kept.slice else None
                self._feedback.of(bucket, now).adopt(kept.top, slices)
        synced.tuning = tuning

    def _correct(self, bucket: Bucket, kept: LimitKept, mark: Mark, now: float) -> None:
        synced, since = self._synced[bucket], bucket.corrected - mark.corrected
        if synced.version:
            elsewhere = kept.corrected - synced.basis - (mark.corrected - synced.corrected)
            if elsewhere:
                bucket.corrected += elsewhere
                self._feedback.of(bucket, now).drifted(elsewhere, now)
            if kept.ours > synced.ours:
                self._feedback.of(bucket, now).acquit(kept.ours - synced.ours, self.quota, now)
        if kept.closed:
            bucket.closed_until = max(bucket.closed_until, now + kept.closed / 1e6)
        self.quota.elsewhere[bucket] = kept.held
        synced.version, synced.basis, synced.taken, synced.ours = kept.version, kept.corrected, kept.taken, kept.ours
        synced.corrected = bucket.corrected - since
        synced.closed_until = bucket.closed_until


def _tuning_of(kept: LimitKept) -> Tuning:
    return kept.amount, kept.share, kept.reserve, kept.burst, kept.top, kept.slice, kept.spread
