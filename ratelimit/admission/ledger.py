"""Where quotas live: behind a few verbs, so that nobody above knows whether a limit is shared.

Only `reserve` may wait, and only for the place where the quota is kept; that a request has to wait for its turn is an
answer, not a delay. Everything a reply teaches goes down through `observe` and `refused` and comes back as changes to
report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from ratelimit.limits.bucket import Limit
from ratelimit.limits.drift import Change
from ratelimit.limits.feedback import Feedback
from ratelimit.limits.frontier import Frontier, Line
from ratelimit.limits.headers import Observed
from ratelimit.limits.quota import Cost, Hold, Quota


class Crowd(Protocol):
    """Those who wait for a ledger, as far as one that fetches ahead of need has to know them."""

    def foremost(self, most: int) -> tuple[float, list[Cost]]:
        """Return the most urgent priority that waits, and what up to `most` of those who have it cost."""
        ...

    def wake(self) -> None:
        """Ask again: there may be more than there was."""
        ...

    def notice(self, text: str) -> None:
        """Tell whoever watches."""
        ...

    def report(self, changes: Sequence[Change]) -> None:
        """Tell whoever watches that limits are not as they were."""
        ...


class Ledger(Protocol):
    """The quota of one lane, wherever it is kept."""

    quota: Quota
    facts: dict[str, str]

    def attend(self, crowd: Crowd) -> None:
        """Serve these from now on; called once, before anything else."""
        ...

    async def aclose(self) -> None:
        """Give back what is held for nobody."""
        ...

    async def reserve(self, cost: Cost) -> Hold | float:
        """Take `cost` and return a hold, or take nothing and return when to ask again."""
        ...

    def reserve_at_once(self, cost: Cost) -> Hold | None:
        """Take `cost` if that can be done here and now; None says nothing but to ask `reserve`. Never awaits."""
        ...

    def sent(self, hold: Hold) -> bool:
        """Note that the request leaves now; true if it goes where this lane has not been. Never awaits."""
        ...

    def settle(self, hold: Hold, actual: Cost, how: str) -> None:
        """End a hold. Never awaits."""
        ...

    def observe(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a reply. Never awaits."""
        ...

    def refused(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a refusal that a limit was the reason for. Never awaits."""
        ...

    def cool(self, seconds: float) -> None:
        """Close the lane for so long. Never awaits."""
        ...

    def note(self, name: str, text: str) -> None:
        """Let whoever shares the quota know something by name: it is in their `facts`. Never awaits."""
        ...

    def missing(self) -> dict[str, float]:
        """Return what is missing from each limit, for a process that starts later; empty if that will be known."""
        ...


class LocalLedger:
    """A quota in this process."""

    def __init__(
        self, limits: Iterable[Limit], clock: Callable[[], float], *, slack: float = 1.0, longest_wait: float = 60.0
    ) -> None:
        self._clock = clock
        self._longest_wait = longest_wait
        now = clock()
        self.quota: Quota = Quota(limits, now, slack=slack)
        self._feedback = Feedback(self.quota, now)
        self._frontier = Frontier(self.quota)
        self._scouts: dict[Hold, AbstractSet[Line]] = {}
        self.facts: dict[str, str] = {}

    def attend(self, crowd: Crowd) -> None:
        """Serve these: whoever waits is told when to ask again, so nobody need be woken."""

    async def aclose(self) -> None:
        """Do nothing: what is not taken is nobody's."""

    async def reserve(self, cost: Cost) -> Hold | float:
        """Take `cost` and return a hold, or take nothing and return when to ask again."""
        return self.quota.reserve(cost, self._clock())

    def reserve_at_once(self, cost: Cost) -> Hold | None:
        """Take `cost` if that can be done here and now. Never awaits."""
        answer = self.quota.reserve(cost, self._clock())
        return answer if isinstance(answer, Hold) else None

    def sent(self, hold: Hold) -> bool:
        """Note that the request leaves now; true if it goes where this lane has not been. Never awaits."""
        now = self._clock()
        lines = self._frontier.crossed_by(hold.cost, now)
        if lines:
            self._frontier.crossed(lines)
            self._scouts[hold] = lines
        self.quota.sent(hold, now)
        return bool(lines)

    def settle(self, hold: Hold, actual: Cost, how: str) -> None:
        """End a hold. Never awaits."""
        lines = self._scouts.pop(hold, None)
        if lines and how in {"refused", "unsent"}:
            self._frontier.turned_back(lines)
        self.quota.settle(hold, actual, self._clock(), how)

    def observe(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a reply. Never awaits."""
        changes = self._feedback.observe(hold, observed, self._clock())
        freed = {
            change.limit for change in changes if change.kind == "burst"
        }  # of what replies teach, only the way back
        if freed:
            for bucket in self.quota.buckets:
                if bucket.limit.name in freed:
                    self._frontier.again(bucket)
        return changes

    def refused(self, hold: Hold, observed: Observed) -> list[Change]:
        """Learn from a refusal that a limit was the reason for. Never awaits."""
        return self._feedback.refused(hold, observed, self._clock(), most=self._longest_wait)

    def cool(self, seconds: float) -> None:
        """Close the lane for so long. Never awaits."""
        self._feedback.cool(self._clock() + min(max(seconds, 0), self._longest_wait))

    def note(self, name: str, text: str) -> None:
        """Remember it: nobody else is here."""
        self.facts[name] = text

    def missing(self) -> dict[str, float]:
        """Return what is missing from each limit, for a process that starts later to resume with.

        A cap of the user's own goes by the name of the published one beside it: what counts is the emptier of the two.
        """
        now, found = self._clock(), dict[str, float]()
        for bucket in self.quota.buckets:
            found[bucket.limit.name] = max(bucket.missing(now), found.get(bucket.limit.name, 0))
        return found

    def resume(self, missing: Mapping[str, float], *, elapsed: float = 0) -> None:
        """Start with what an earlier process had spent, `elapsed` seconds ago."""
        now = self._clock()
        for bucket in self.quota.buckets:
            spent = missing.get(bucket.limit.name, 0) - elapsed * bucket.limit.rate
            if spent > 0:
                bucket.take(spent, now)
