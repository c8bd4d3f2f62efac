"""A quota that other programs use too: the same verbs as a local one, over leases that are fetched ahead of need.

The lane asks this ledger, and this ledger asks the store. In between stands a purse: what has been leased and not yet
been sent. Reserving is an act on the purse and never leaves the process; when it runs low a task fetches more, and with
the same question goes what was learnt and settled meanwhile.

The quota here is a mirror of the store's. Each of its buckets is as full as the store's was at the last answer, plus
what is in the purse, so that taking from the purse moves it as it moves a local bucket, and so everything that compares
a reply with a bucket goes on as it does locally: what other programs lease appears in bucket and meter with the next
answer, well within the slack that any proof allows for. Drift found here is told to the store with how much drift there
was in the answer it is based on, and the store counts what several programs have seen once. Only an outsider drifts.

A lease ends at a moment counted from before it was asked for, on a clock that goes on while the machine sleeps; a
program that was frozen finds its purse empty, and starts as a new one.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import ceil, inf

from ratelimit.admission.ledger import Crowd, LocalLedger
from ratelimit.admission.shared.asking import TIMEOUT, Caller, Membership, Sent
from ratelimit.admission.shared.evenly import Evenly
from ratelimit.admission.shared.mirror import Mirror
from ratelimit.admission.shared.store import Answer, Ask, Store, StoreAway
from ratelimit.errors import RateLimitError, SharedStoreAway
from ratelimit.limits.bucket import Limit
from ratelimit.limits.drift import Change
from ratelimit.limits.headers import Observed
from ratelimit.limits.quota import Cost, Hold

_LEASE = 0.25  # seconds of the whole lane's rate that are fetched at once, at most
_PERIOD = 0.1  # seconds between two questions while everybody wants more than there is
_PER_PROGRAM = 0.01  # more of them for each program, so that the store has the same to do for many as for ten
_NEWS = 0.1  # seconds until what was learnt or settled is told
_LASTS = 1.0  # seconds that a lease lasts
_MEMBER = 5.0  # seconds that a program counts as there which wants nothing
_PATIENCE = 5.0  # seconds for the first answer of all
_RETRY = 0.25  # seconds between two tries while the store is away
_AHEAD = 4  # requests since the last answer, from which on more is fetched before the purse is empty
_LOOKED_AT = 256  # of those who wait, to see how much is wanted


class SharedLedger(LocalLedger):
    """A lane's quota as a mirror of the one in a store."""

    def __init__(
        self,
        store: Store,
        member: Membership,
        limits: Iterable[Limit],
        loop: AbstractEventLoop,
        boottime: Callable[[], float],
        *,
        slack: float = 1.0,
        longest_wait: float = 60.0,
    ) -> None:
        super().__init__(limits, loop.time, slack=max(slack, _LASTS), longest_wait=longest_wait)
        self.quota.alone = False
        self._member = member
        self._caller = Caller(store, member, loop, boottime, self._exchange)
        self._boottime = boottime
        self._mirror = Mirror(self.quota, self._feedback)
        self._units = sorted({bucket.limit.unit for bucket in self._mirror.buckets})
        self._purse: dict[str, float] = {}
        self._ends = -inf  # of the lease, by the clock that does not stop
        self._life = 0  # how many leases have ended unrenewed
        self._number = 0
        self._total: dict[str, float] = {}
        self._epoch = 0.0
        self._began = loop.time()
        self._answered_at = -inf
        self._part = 0.0
        self._has_company = False
        self._give: dict[str, float] = {}
        self._spent: dict[str, float] = {}  # without a lease
        self._sent: Sent | None = None
        self._wanted: Cost = {}
        self._taken_at = -inf
        self._recent: dict[str, float] = {}
        self._answered = False
        self._away = False
        self._broken: Exception | None = None
        self._new_facts: dict[str, str] = {}
        self._evenly = Evenly()

    def attend(self, crowd: Crowd) -> None:
        """Fetch for these."""
        self._crowd = crowd

    async def aclose(self) -> None:
        """Give everything back and leave; who waits waits for nothing, and is told so."""
        await self._caller.aclose()
        self._broken = RuntimeError(f"the limits of {self._member.lane} are closed; open a new client or scheduler")
        self._crowd.wake()
        if self._epoch and not self._away and self._boottime() < self._ends:
            with suppress(RateLimitError, TimeoutError):  # then the lease ends by itself
                await self._caller.lease(self._question(leaving=True).ask)

    async def reserve(self, cost: Cost) -> Hold | float:
        """Take `cost` from the purse, or return when to ask again; whoever waits is woken when there is more."""
        return self._reserve(cost)

    def reserve_at_once(self, cost: Cost) -> Hold | None:
        """Take `cost` if the purse has it. Never awaits."""
        answer = self._reserve(cost)
        return answer if isinstance(answer, Hold) else None

    def settle(self, hold: Hold, actual: Cost, how: str) -> None:
        """End a hold. Never awaits."""
        super().settle(hold, actual, how)
        if how in {"used", "refused", "failed"}:
            self._answered = True
        for unit in self._units:
            if extra := hold.cost.get(unit, 0) - actual.get(unit, 0):
                self._give[unit] = self._give.get(unit, 0) + extra
                self._caller.call_by(self._clock() + _NEWS)

    def observe(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a reply; while the store is away nobody knows what others send, so drift means nothing."""
        self._answered = True
        return [] if self._away else self._tell(super().observe(hold, observed))

    def refused(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a refusal that a limit was the reason for."""
        return self._tell(super().refused(hold, observed))

    def cool(self, seconds: float) -> None:
        """Close the lane for so long, here and elsewhere."""
        super().cool(seconds)
        self._caller.call_by(self._clock() + _NEWS)

    def note(self, name: str, text: str) -> None:
        """Let the others know something by name."""
        if self.facts.get(name) != text:
            self.facts[name] = self._new_facts[name] = text
            self._caller.call_by(self._clock() + _NEWS)

    def _tell(self, changes: list[Change]) -> list[Change]:
        if changes:
            self._caller.call_by(self._clock() + _NEWS)
        return changes

    def _reserve(self, cost: Cost) -> Hold | float:
        now = self._clock()
        if self._broken:
            raise self._broken
        self.quota.check(cost)
        if not self._holds(cost):
            if not self._away:
                self._wanted = cost
                self._caller.call_by(now)
                return max(self._caller.not_before, now) + TIMEOUT
            self._caller.call_by(now + _RETRY)
            if self._member.stops:
                return now + _RETRY
            answer = self.quota.reserve(cost, now)
            if isinstance(answer, Hold):
                self._count(self._spent, cost)
            return answer
        ready = max(self._ready_at(cost), self._evenly.next_at)
        if now < ready:
            return ready
        self._count(self._purse, cost, -1)
        if self._sent:
            self._count(self._sent.used, cost)
        self._count(self._recent, cost)
        self._taken_at = now
        self._evenly.sent(now)
        if self._recent.get("requests", 0) >= _AHEAD and self._is_low():
            self._caller.call_by(now)
        return self.quota.take(cost, now)

    def _holds(self, cost: Cost) -> bool:
        """Whether the purse has enough, and the lease still lasts."""
        for unit in self._units:
            if (amount := cost.get(unit, 0)) and self._purse.get(unit, 0) < amount:
                return False
        if self._boottime() >= self._ends:
            self._expire()
            return False
        return True

    def _is_low(self) -> bool:
        return any(self._purse.get(unit, 0) < self._recent.get(unit, 0) / 2 for unit in self._units)

    def _ready_at(self, cost: Cost) -> float:
        """Return when a cost that has been leased may go: no cooldown, and no cap of the user's own, is in the way."""
        ready = -inf
        for bucket in self.quota.buckets:
            if amount := cost.get(bucket.limit.unit, 0):
                ready = max(ready, bucket.ready_at(amount) if bucket.limit.own else bucket.open_at(amount))
        return ready

    def _expire(self) -> None:
        """Begin anew: the store has given up on us."""
        if self._purse or self._number:
            self._spill()
            self._total = {}
            self._life += 1
            self._number = 0

    def _spill(self) -> None:
        """Empty the purse: for the buckets that is as if it had been sent."""
        now = self._clock()
        for bucket in self._mirror.buckets:
            bucket.take(self._purse.get(bucket.limit.unit, 0), now)
        self._purse = {}

    def _count(self, amounts: dict[str, float], cost: Cost, times: int = 1) -> None:
        for unit in self._units:
            if amount := cost.get(unit, 0):
                amounts[unit] = amounts.get(unit, 0) + times * amount

    async def _exchange(self) -> None:
        """Ask once, and take in what comes back."""
        if self._boottime() >= self._ends:
            self._expire()
            self._sent = None
        sent = self._sent = self._sent or self._question()
        try:
            answer = await self._caller.lease(sent.ask)
        except (RateLimitError, TimeoutError) as error:
            self._miss(error)
        else:
            self._sent = self._broken = None
            self._ends = sent.ends
            self._take_in(sent, answer)
            self._plan(sent, answer)
        self._crowd.wake()

    def _question(self, *, leaving: bool = False) -> Sent:
        """Return what is to be asked now."""
        now, boot = self._clock(), self._boottime()
        idle = leaving or (now - self._taken_at > _LEASE and not self._wanted)
        priority, costs = self._crowd.foremost(_LOOKED_AT)
        need = [self._wanted.get(unit, 0) for unit in self._units]
        has = [self._purse.get(unit, 0) for unit in self._units]
        want = [0.0 if idle else self._appetite(unit, costs, now) for unit in self._units]
        want = [max(w, n) for w, n in zip(want, need, strict=True)]
        keep = [0.0 if idle else each for each in has]
        purse = self._purse
        if idle:  # nobody may send it now
            self._spill()
        lasts = 0.0 if leaving else _MEMBER if idle else _LASTS
        self._number += 1
        ask = Ask(
            lane=self._member.lane,
            holder=f"{self._member.holder}.{self._life}",
            name=self._member.name,
            number=self._number,
            weight=self._member.weight,
            lasts=round(lasts * 1e6),
            at=0,
            jump=0,
            epoch=self._epoch,
            answered=self._answered,
            priority=priority,
            pace=self._member.pace,
            units=self._units,
            need=need,
            want=want,
            has=has,
            keep=keep,
            total=[self._total.get(unit, 0) for unit in self._units],
            give=[self._give.get(unit, 0) for unit in self._units],
            spent=[self._spent.get(unit, 0) for unit in self._units],
            limits=self._mirror.told(purse, now),
            facts=list(self._new_facts.items()),
        )
        self._wanted = {}
        return Sent(ask, self._mirror.marks(now), dict(self._give), dict(self._spent), boot + lasts)

    def _appetite(self, unit: str, costs: list[Cost], now: float) -> float:
        """Return how much of a unit would be sent before long, with what is held: a fraction of a second's worth."""
        waiting = sum(cost.get(unit, 0) for cost in costs)
        lately = self._recent.get(unit, 0) * _LEASE / max(now - self._answered_at, _PERIOD / 2)
        most = max(
            (b.limit.rate * _LEASE * self._member.pace for b in self._mirror.buckets if b.limit.unit == unit),
            default=inf,
        )
        return ceil(min(max(waiting, lately), most))

    # What comes back

    def _take_in(self, sent: Sent, answer: Answer) -> None:
        now, ask = self._clock(), sent.ask
        if self._away:
            self._away = False
            self._mirror.join(now)
            self._crowd.notice(f"the store that shares {self._member.lane} is back")
        if self._epoch and answer.epoch != self._epoch:
            self._mirror.forget(sent.marks)
        self._epoch, self._part = answer.epoch, answer.part
        for amounts, told in ((self._give, sent.give), (self._spent, sent.spent)):
            for unit, amount in told.items():
                amounts[unit] -= amount
        fresh: dict[str, float] = {}
        for unit, granted, had in zip(ask.units, answer.granted, ask.has, strict=True):
            fresh[unit] = granted - had
            self._purse[unit] = granted - sent.used.get(unit, 0)
            self._total[unit] = self._total.get(unit, 0) + max(fresh[unit], 0)
        ours = {unit: self._purse.get(unit, 0) + self._give.get(unit, 0) for unit in ask.units}
        for bucket, claimed in self._mirror.take_in(answer.limits, sent.marks, ours, fresh, now):
            self._crowd.notice(
                f"another program takes {bucket.limit.name} of {self._member.lane} to be {bucket.limit.amount:,.10g}, "
                f"not {claimed:,.10g}: the lower counts for both until the service tells"
            )
        self._crowd.report(self._mirror.changes)
        self._units = sorted({bucket.limit.unit for bucket in self._mirror.buckets})
        for name, text in answer.facts:
            if self._new_facts.get(name) in {None, text}:
                self.facts[name] = text
                self._new_facts.pop(name, None)
        if answer.programs > 1 and not self._has_company:
            self._has_company = True
            others = f"{answer.programs - 1} other program{'s' if answer.programs > 2 else ''}"
            self._crowd.notice(f"sharing {self._member.lane} with {others}")

    def _plan(self, sent: Sent, answer: Answer) -> None:
        """Decide when to ask next."""
        now = self._answered_at = self._clock()
        self._recent = {}
        ask = sent.ask
        short = any(got < want for got, want in zip(answer.granted, ask.want, strict=True))
        if short:
            hint = min(answer.hint / 1e6, 0.8 * _LASTS) if answer.hint else _PERIOD
            self._caller.not_before = now + max(hint, 0.001, _PER_PROGRAM * answer.programs)
            self._caller.call_by(self._caller.not_before)
        else:
            self._caller.not_before = -inf
            if any(self._purse.values()):
                self._caller.call_by(now + _LEASE)
        _, foremost = self._crowd.foremost(1)
        until = max(self._caller.not_before - now, _PERIOD)
        self._evenly.spread(self._mirror.buckets, self._purse, foremost[0] if short and foremost else {}, until)
        if any(self._give.values()) or any(self._spent.values()):
            self._caller.call_by(now + _NEWS)

    # Without the store

    def _miss(self, error: Exception) -> None:
        """Note that no answer came; after a moment it is asked again."""
        now = self._clock()
        self._caller.not_before = now + _RETRY
        self._caller.call_by(now + _RETRY)
        if not self._epoch:  # nobody knows yet what our part would be
            known = isinstance(error, RateLimitError) and not isinstance(error, StoreAway)
            if known or now - self._began > _PATIENCE:
                self._broken = error if known else SharedStoreAway(self._member.lane, str(error) or "no answer")
        elif not self._away:
            self._away = True
            self._mirror.cut(self._part, self._purse, now)
            meanwhile = "nothing is sent" if self._member.stops else f"{self._part:.0%} of each limit is used"
            self._crowd.notice(
                f"the store that shares {self._member.lane} does not answer: {meanwhile} until it is back"
            )
