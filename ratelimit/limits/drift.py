"""What a reply's headers prove about our own buckets.

The server's `reset` is its own `full_at` as it stood when it admitted *that* request, so it is compared with how our
bucket stood when *that* request left, less every correction made since: requests in flight are never counted twice, and
an old reply does no harm. What remains is drift: a charge that was not what we estimated, or somebody else on the key.

Requests overtake each other on the way. Those sent shortly before may not have been counted yet, those sent shortly
after may have been; so a reply proves an interval, not a number, and a bucket moves only when it lies outside:

    server's missing + sent within `slack` before  <  ours   we believed too little: give the difference back
    server's missing - sent within `slack` after   >  ours   somebody took it, or we were charged more: take it

What left after the reply had come, less the time that the server says it worked, was too late for it even so. Each is
a proof, to within what comes back in `slack`, as long as requests are under way for times that differ by less than
that. Only the reply to the newest request heard of so far speaks; the others are superseded. And no more is given back
than has been missing ever since: had we believed less, the bucket would have been full for a while and lost it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ratelimit.limits.bucket import MINUTE, Bucket, Limit
from ratelimit.limits.headers import Observed, Reading
from ratelimit.limits.meter import SLOT
from ratelimit.limits.quota import Hold, Quota

_TRUNCATED = 0.001  # seconds; resets are cut to whole milliseconds
_MOST_WINDOWS = 4  # of one unit; vendors count by up to three, and a server that names ever more is making them up


@dataclass(frozen=True, slots=True)
class Change:
    """Something about a lane's limits that is not as it was."""

    kind: Literal["retuned", "drift", "cooled", "burst", "share", "reserve", "added"]
    limit: str
    before: float
    after: float


def match(quota: Quota, reading: Reading, now: float) -> tuple[Bucket | None, list[Change]]:
    """Return the bucket a reading speaks of, changed to the limit it claims, or None where it cannot be told.

    A limit that is not as it was heard before, or not known at all, is believed once two replies in a row say so. The
    first word on a limit is believed at once, and taken back if the next reply does not repeat it.
    """
    scope = "" if reading.scope == "organization" else reading.scope
    known = [b for b in quota.buckets if b.limit.unit == reading.unit and b.limit.scope == scope]
    claimed = quota.claimed.pop((reading.unit, scope), None)
    bucket, limit = _spoken_of(reading, scope, known)
    changes = _taken_back(quota, known, bucket, limit, now) if quota.unsure else []
    if limit is None or (bucket and bucket.limit.amount == limit.amount):
        return bucket, changes
    if bucket and bucket.limit.own and limit.amount > bucket.limit.amount:
        return None, changes
    if limit != claimed and (bucket is None or bucket in quota.heard):
        quota.claimed[reading.unit, scope] = limit
        return None, changes
    if bucket is None:
        return quota.add(limit, now), [*changes, Change("added", limit.name, 0, limit.amount)]
    before = bucket.limit
    if bucket not in quota.heard:
        quota.unsure[bucket] = before.amount
    quota.retune(bucket, limit.amount, now)
    return bucket, [*changes, Change("retuned", before.name, before.amount, limit.amount)]


def _spoken_of(reading: Reading, scope: str, known: list[Bucket]) -> tuple[Bucket | None, Limit | None]:
    """Return the bucket among those of its unit that a reading is about, and the limit it claims."""
    if not reading.limit or reading.limit < 0:
        return (known[0] if len(known) == 1 else None), None
    same = [b for b in known if b.limit.amount == reading.limit and reading.window in {None, b.limit.window}]
    if len(same) == 1:
        return same[0], same[0].limit
    window = reading.window or reading.implied_window() or (known[0].limit.window if len(known) == 1 else None)
    if window is None or reading.unit not in {"requests", "tokens"}:
        return None, None
    # A cap of the user's own beside the published one is not what the server speaks of.
    bucket = next((b for b in sorted(known, key=_is_own) if b.limit.window == window), None)
    if bucket is None and len(known) >= _MOST_WINDOWS:
        return None, None
    return bucket, Limit(reading.unit, reading.limit, window, scope)


def _taken_back(
    quota: Quota, known: list[Bucket], bucket: Bucket | None, limit: Limit | None, now: float
) -> list[Change]:
    """Make sure of what is repeated, and undo what is not."""
    changes = []
    for each in known:
        if (before := quota.unsure.pop(each, None)) is None or limit is None:
            continue
        if each is not bucket or limit.amount != each.limit.amount:
            changes.append(Change("retuned", each.limit.name, each.limit.amount, before))
            quota.retune(each, before, now)
    return changes


def _is_own(bucket: Bucket) -> bool:
    return bucket.limit.own


def missing(reading: Reading, limit: Limit) -> float | None:
    """Return how much the server says is missing from its bucket: the most that the reading allows.

    A reset further away than the whole window is about something else, or nothing.
    """
    floored = None if reading.remaining is None else max(limit.amount - reading.remaining, 0)
    if reading.reset is None or reading.reset > limit.window or reading.is_linear(limit.window) is False:
        return floored
    timed = (reading.reset + _TRUNCATED) * limit.rate
    return timed if floored is None else min(floored, timed)


def refused_missing(observed: Observed, reading: Reading | None, bucket: Bucket) -> float | None:
    """Return what is missing on a server that has refused a request: from its message, wait or headers."""
    if (refusal := observed.refusal) and refusal.wait is not None:
        # The wait is printed to the millisecond, the counters are whole numbers: it is the finer of the two. What the
        # server meant to charge is in the message too, and need not be what was estimated.
        short = bucket.limit.amount - refusal.requested + refusal.wait * bucket.limit.rate
        return min(max(short, 0), bucket.limit.amount)  # no wait makes a bucket emptier than empty
    return missing(reading, bucket.limit) if reading is not None else None


def proves(
    quota: Quota,
    hold: Hold,
    bucket: Bucket,
    theirs: float,
    now: float,
    *,
    way: float = math.inf,
    refused: bool = False,
) -> float:
    """Return by how much the bucket is proven wrong: above zero it was too full, below too empty, zero fits.

    What left later than the request was on its `way` had not arrived.
    """
    mark = quota.mark(hold, bucket)
    if mark is None or hold.sent_at is None or hold.number < quota.heard.get(bucket, 0):
        return 0
    quota.heard[bucket] = hold.number
    unit, sent_at, own = bucket.limit.unit, hold.sent_at, hold.cost.get(bucket.limit.unit, 0)
    missing_then, corrected_then = mark
    since = bucket.corrected - corrected_then + quota.settled_since(hold, unit)
    ours = missing_then - (own if refused else 0) + since
    before = max(quota.meter.between(unit, sent_at - quota.slack, sent_at) - own, 0) + quota.elsewhere.get(bucket, 0)
    after = max(quota.meter.between(unit, sent_at, sent_at + min(quota.slack, way)) - own, 0)
    if quota.alone:  # sums of stretches take in a little of what was sent before; where others send, that is as well
        after = min(after, quota.sent_since(hold, unit))
    # What came back while it was on the way is no reason to give so much, beyond what is kept back for that.
    before += max(min(quota.slack, way) * bucket.limit.rate - quota.kept_back(bucket), 0)
    if theirs + before < ours:
        return -min(ours - theirs - before, quota.lowest_since(hold, bucket), bucket.missing(now))
    return max(theirs - after - ours, 0)


def way_of(quota: Quota, hold: Hold, observed: Observed, now: float) -> float:
    """Return how long a request was on its way to the server at most."""
    if not quota.alone or hold.sent_at is None:
        return math.inf
    return max(now - hold.sent_at - observed.worked, 0)


def charged(quota: Quota, hold: Hold, bucket: Bucket, reading: Reading, way: float = math.inf) -> float | None:
    """Return what the server took for this one request, when nothing else can have moved its bucket.

    That is so for a request that found the bucket full and was alone on the way; headers count in whole numbers. The
    next may leave `slack` after it, so that moment itself, and the slot of the meter it lies in, is not looked at.
    """
    mark = quota.mark(hold, bucket)
    if mark is None or hold.sent_at is None or reading.remaining is None:
        return None
    unit, own, start = bucket.limit.unit, hold.cost.get(bucket.limit.unit, 0), hold.sent_at - MINUTE
    alone = quota.meter.between(unit, start, hold.sent_at + min(quota.slack - 2 * SLOT, way)) <= own
    if not alone or mark[0] > own:
        return None
    return bucket.limit.amount - reading.remaining
