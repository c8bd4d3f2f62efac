"""Who gets how much: one lane's state, one program's question, and the answer. Pure, and the model of `lease.lua`.

The order is that of a scheduler over programs instead of requests:

    by priority    while a program with a lower number wants something, all of it is set aside from the others
    then by tag    each program has one, which its leases move up by what they cost, in time of the whole limit, divided
                   by its weight; the lowest is next, and what its foremost request needs is set aside for it
    at a pace      a full bucket is not handed out at once, but as fast as one program alone would send it
    then in parts  what is left when everybody's foremost request is thought of is poured over those who want more, the
                   lowest tag first, until all stand at one level

So whoever asks more often gets nothing out of it, a request as large as the whole limit waits until the bucket has
filled for it, and one who wants less than its part leaves the rest to the others: weighted max-min, over the limit that
is scarcest to each. What is set aside for one who does not come for it is only ever what he asked for, once.

A bucket never shows more room than its capacity less what is held unsent, for all that may still arrive. What a holder
has not handed back when its time is up counts as sent: nobody knows better.

Numbers are floats with whole microseconds in them, and every sum is made in the order of `lease.lua`: both give the
same answers to the last bit.
"""

from __future__ import annotations

from math import ceil, floor, inf

from ratelimit.admission.shared.state import Holder, Lane, Limit
from ratelimit.admission.shared.store import Answer, Ask, HolderSeen, LaneSeen, LimitKept, LimitTold
from ratelimit.limits.bucket import MINUTE

_BREATH = 100_000  # what may be leased at once at the lane's pace; who asks less often than this gets no more for it
_AWAY = 1_000_000  # nobody who wants something is silent for as long
_HUSH = 350_000  # in which everybody tries the store once more
_LATE = 500_000  # what comes later has been held up, or the clock has jumped; less of either is within the slack


def decide(lane: Lane, ask: Ask, now: float) -> Answer:
    """Answer one question; the lane is changed, also where nothing is granted."""
    if ask.at and not ask.jump and now - ask.at > _LATE:
        return Answer(ask.number, now, True, 0, [], 0, 0, 0, [], [])
    _mind_the_clock(lane, ask, now)
    lane.holders = [each for each in lane.holders if each.expires > now]
    holder = next((each for each in lane.holders if each.id == ask.holder), None)
    if holder is not None and ask.number <= holder.number:
        holder.expires = now + ask.lasts
        return _answer(lane, holder, now)
    if ask.answered:
        lane.answered = True
    lane.name = ask.lane
    alone = not lane.holders
    if alone:  # what others only claimed, and no service has told, has gone with them
        told_of = {told.key for told in ask.limits}
        lane.limits = [limit for limit in lane.limits if limit.proven or limit.key in told_of]
    for told in ask.limits:
        _heed(lane, told, ask, now, alone=alone)
    for name, text in ask.facts:
        lane.facts = [fact for fact in lane.facts if fact[0] != name] + [(name, text)]
    _settle(lane, holder, ask, now)
    if holder is None:
        holder = Holder(ask.holder, ask.name, now, lane.tag)
        lane.holders.append(holder)
    elif not holder.hungry:
        holder.tag = max(holder.tag, lane.tag)
    holder.expires, holder.number = now + ask.lasts, ask.number
    holder.weight, holder.priority = ask.weight, ask.priority
    holder.units, holder.need = ask.units, ask.need
    _hand_back(lane, holder, ask, now)
    _grant(lane, holder, ask, now)
    answer = _answer(lane, holder, now)
    if ask.lasts <= 0:
        lane.holders = [each for each in lane.holders if each.id != ask.holder]
    return answer


def see(lane: Lane, now: float) -> LaneSeen:
    """Return what an onlooker may know."""
    return LaneSeen(
        lane.name,
        [_kept(limit, now) for limit in lane.limits],
        [
            HolderSeen(each.name, each.weight, each.priority, each.units, each.granted, each.unmet, each.total)
            for each in lane.holders
            if each.expires > now
        ],
    )


def _mind_the_clock(lane: Lane, ask: Ask, now: float) -> None:
    """Move everything along when the store's clock has jumped, so that no time has passed but what really has."""
    if not lane.born:
        lane.born = lane.seen = now
    jump = min(ask.jump, now - lane.seen)  # the clock was right when somebody else asked, or has been put right since
    if jump:
        lane.born += jump
        lane.flow += jump
        for limit in lane.limits:
            limit.full_at += jump
            limit.closed += jump
        for each in lane.holders:
            each.expires += jump
    lane.flow = max(lane.flow, now - _BREATH)
    if any(ask.spent) and now - lane.seen > _AWAY:  # they have been without a store: first let all say what they sent
        lane.flow = now + _HUSH
    lane.seen = now


def _heed(lane: Lane, told: LimitTold, ask: Ask, now: float, *, alone: bool) -> None:
    """Take in what a program knows of one limit: what was learnt since, or, from one who comes, its tables.

    Of two tables the lower figure counts, unless its program is there no longer: its tier may have been a mistake.
    """
    limit = next((each for each in lane.limits if each.key == told.key), None)
    if limit is None:
        limit = Limit(**told.known | {"version": 1}, full_at=now, closed=now)
        limit.take(told.missing, now)
        lane.limits.append(limit)
    elif told.changed and ask.epoch == lane.born and told.version == limit.version:
        limit.version += 1
        _tune(limit, told, now)
        limit.share, limit.burst, limit.top = told.share, told.burst, told.top
        limit.slice, limit.spread = told.slice, told.spread
        limit.proven = limit.proven or told.proven
    elif (
        told.version == 0
        and not limit.proven
        and (told.amount != limit.amount if alone else told.amount < limit.amount)
    ):
        limit.version += 1
        _tune(limit, told, now)
    if ask.epoch not in {0, lane.born}:  # it knows more than a store that has lost its memory
        limit.full_at = max(limit.full_at, ceil(now + told.missing * limit.interval))
    limit.closed = max(limit.closed, now + told.closed)


def _tune(limit: Limit, told: LimitTold, now: float) -> None:
    missing = max(limit.full_at - now, 0.0) / limit.interval
    limit.amount, limit.reserve = told.amount, told.reserve
    if limit.full_at > now:
        limit.full_at = ceil(now + missing * (limit.window * 1e6 / (limit.amount * told.share)))


def _settle(lane: Lane, holder: Holder | None, ask: Ask, now: float) -> None:
    """Count what became of earlier leases, and what was sent without one."""
    for limit in lane.limits:
        told = next((each for each in ask.limits if each.key == limit.key), None)
        known = limit.corrected - told.basis if told is not None and ask.epoch == lane.born else 0.0
        if told is not None and told.shift:
            shift = told.shift - known if told.shift * known > 0 else told.shift
            if shift * told.shift > 0:
                limit.take(shift, now)
                limit.corrected += shift
        if limit.unit in ask.units:
            at = ask.units.index(limit.unit)
            limit.take(-ask.give[at], now)
            if ask.epoch in {0, lane.born}:
                seen = min(ask.spent[at], max(known, 0.0))  # by the others, who took it for somebody else's
                limit.take(ask.spent[at] - seen, now)
                limit.ours += seen
            if holder is not None:
                limit.take(max(ask.total[at] - holder.of(holder.total, limit.unit), 0.0), now)


def _hand_back(lane: Lane, holder: Holder, ask: Ask, now: float) -> None:
    """Put what the asker holds back, and see to it that there is room for all that others hold."""
    for limit in lane.limits:
        if limit.unit in ask.units:
            limit.take(-ask.has[ask.units.index(limit.unit)], now)
        if (held := _held(lane, holder, limit.unit)) > 0:
            limit.full_at = max(limit.full_at, ceil(now + held * limit.interval))


def _grant(lane: Lane, holder: Holder, ask: Ask, now: float) -> None:
    units = ask.units
    more = any(ask.want[at] > ask.has[at] for at in range(len(units)))
    hint = _hint(lane, holder, ask, now) if more else 0.0
    if not more or hint > 0:
        granted = [min(keep, has) for keep, has in zip(ask.keep, ask.has, strict=True)]
    else:
        part = _part(lane, holder, ask, now) if lane.answered else 0.0  # until then, only what scouts need
        granted = [
            max(ask.need[at] + floor(part * max(ask.want[at] - ask.need[at], 0.0)), ask.keep[at])
            for at in range(len(units))
        ]
        lane.tag = max(lane.tag, holder.tag)
    fresh = [granted[at] - ask.has[at] for at in range(len(units))]
    for limit in lane.limits:
        if limit.unit in units:
            limit.take(granted[units.index(limit.unit)], now)
            limit.taken += fresh[units.index(limit.unit)]
    busy = _time(lane, units, fresh)
    if any(limit.window <= MINUTE for limit in lane.limits):
        lane.flow = min(lane.flow + floor(busy / ask.pace), now + _BREATH)
    holder.tag += floor(busy / holder.weight)
    holder.total = [ask.total[at] + max(fresh[at], 0.0) for at in range(len(units))]
    holder.unmet = [max(ask.want[at] - granted[at], 0.0) for at in range(len(units))]
    holder.granted, holder.hint = granted, hint


def _hint(lane: Lane, holder: Holder, ask: Ask, now: float) -> float:
    """Return how long the foremost request has to wait for those ahead of it; 0 if it may go."""
    hint = max(lane.flow - now, 0.0)
    for limit in lane.limits:
        need = ask.need[ask.units.index(limit.unit)] if limit.unit in ask.units else 0.0
        if need > 0:
            ahead = 0.0
            for each in lane.holders:
                if each is not holder and each.hungry:
                    ahead += _before(lane, each, holder, limit.unit)
            ready = limit.ready(ahead, need, now)
            if not lane.answered and limit.taken > 0 and limit.window <= MINUTE:
                # nobody knows how full it is: no more than has come back since
                ready = max(ready, lane.born + (limit.taken + need) * limit.interval)
            hint = max(hint, ceil(ready - now))
    return hint


def _before(lane: Lane, other: Holder, holder: Holder, unit: str) -> float:
    """Return what another one is to have before this one gets anything: what brings it to the same tag."""
    if other.priority < holder.priority:
        return other.of(other.unmet, unit)
    if other.priority > holder.priority or (other.tag, other.id) > (holder.tag, holder.id):
        return 0.0
    behind = (holder.tag - other.tag) * other.weight / max(_time(lane, other.units, other.unmet), 1.0)
    return max(other.of(other.need, unit), floor(min(behind, 1.0) * other.of(other.unmet, unit)))


def _part(lane: Lane, holder: Holder, ask: Ask, now: float) -> float:
    """Return which part the asker gets of all that it wants beyond its foremost request."""
    most = _time(lane, ask.units, [max(w - n, 0.0) for w, n in zip(ask.want, ask.need, strict=True)])
    if most <= 0:
        return 0.0
    peers = [each for each in lane.holders if each is not holder and each.hungry and each.priority <= holder.priority]
    room, most_of_it = (now - lane.flow) * ask.pace, 1.0
    for limit in lane.limits:
        if limit.unit in ask.units and ask.want[ask.units.index(limit.unit)] > 0:
            left = limit.capacity - (max(limit.full_at, now) - now) / limit.interval
            left -= ask.need[ask.units.index(limit.unit)]
            for each in peers:
                aside = each.unmet if each.priority < holder.priority else each.need
                left -= each.of(aside, limit.unit)
            more = ask.want[ask.units.index(limit.unit)] - ask.need[ask.units.index(limit.unit)]
            if limit.window <= MINUTE:
                room = min(room, left * limit.interval)
            elif more > 0:
                most_of_it = min(most_of_it, left / more)
    if room <= 0 or most_of_it <= 0:
        return 0.0
    mine = (holder.tag + _time(lane, ask.units, ask.need) / holder.weight, most, holder.weight)
    claims = [mine]
    for each in peers:
        if each.priority == holder.priority:
            beyond = [max(u - n, 0.0) for u, n in zip(each.unmet, each.need, strict=True)]
            start = each.tag + _time(lane, each.units, each.need) / each.weight
            claims.append((start, _time(lane, each.units, beyond), each.weight))
    part = min(max((_level(claims, room) - mine[0]) * mine[2], 0.0) / most, most_of_it)
    # Whole requests, with the tokens that go with them: a remainder would be held for nothing.
    least = min(w - n for w, n in zip(ask.want, ask.need, strict=True) if w > n)
    return floor(part * least) / least


def _time(lane: Lane, units: list[str], amounts: list[float]) -> float:
    """Return how long the whole lane would take over it, by the limit that is scarcest to it."""
    longest = -inf
    for limit in lane.clocked:
        if limit.unit in units:
            longest = max(longest, amounts[units.index(limit.unit)] * limit.interval)
    return longest if longest > -inf else 0.0


def _level(claims: list[tuple[float, float, float]], room: float) -> float:
    """Pour `room` over claims (where it starts, how much it can take, how wide it is); return how high it stands."""
    bends = sorted([(start, wide) for start, _, wide in claims] + [(start + most / w, -w) for start, most, w in claims])
    level, width = bends[0][0], 0.0
    for at, wide in bends:
        if width > 1e-9:
            if (at - level) * width >= room:
                return level + room / width
            room -= (at - level) * width
        level = at
        width += wide
    return inf


def _answer(lane: Lane, holder: Holder, now: float) -> Answer:
    weights = 0.0
    for each in lane.holders:
        weights += each.weight
    return Answer(
        number=holder.number,
        now=now,
        late=False,
        epoch=lane.born,
        granted=holder.granted,
        hint=holder.hint,
        programs=len(lane.holders),
        part=holder.weight / weights,
        limits=[_kept(limit, now, _held(lane, holder, limit.unit)) for limit in lane.limits],
        facts=lane.facts,
    )


def _held(lane: Lane, holder: Holder, unit: str) -> float:
    """Return what everybody else holds."""
    held = 0.0
    for each in lane.holders:
        if each is not holder:
            held += each.of(each.granted, unit)
    return held


def _kept(limit: Limit, now: float, held: float = 0.0) -> LimitKept:
    return LimitKept(
        **limit.known,
        missing=max(limit.full_at - now, 0.0),
        closed=max(limit.closed - now, 0.0),
        corrected=limit.corrected,
        taken=limit.taken,
        held=held,
        ours=limit.ours,
    )
