"""Which formula a lane's server charges by: learnt from its replies.

What the server takes from TPM is not documented truthfully and has changed, so a lane starts with what the documents
say or what was seen when they were last true, whichever is more: too little would be refused before it is known. A
reply to a request that found the bucket full and was alone on the way shows the charge itself. Every formula that came
to less than that is out; of the rest, those that came to exactly that are what the server may be using, and an estimate
is the largest of theirs, for they may differ on the next request. If all came to more, the least of them stands.
A reply to one that was not alone shows what it was charged at most, all that is missing, so what comes to more is too
careful.
"""

from __future__ import annotations

from ratelimit.limits.charge import FORMULAS, Formula, ModelFacts, Size, candidates, charge

CAREFUL: tuple[Formula, ...] = ("documented", "chat_2024")
_LAST_RESORT: Formula = "exact_plus_cap"
_TICKS = 60e6  # the service's clock cuts charges to a microsecond's worth of the limit per minute


class Charging:
    """What one lane's requests are expected to be charged."""

    __slots__ = ("_fixed", "_possible", "formulas", "told")

    def __init__(self, fixed: Formula | None = None) -> None:
        self._fixed = fixed is not None
        self._possible: set[Formula] = set(FORMULAS)
        self.formulas: tuple[Formula, ...] = (fixed,) if fixed else CAREFUL
        self.told: str | None = None
        """What was learnt, here or by others, in words for them."""

    def estimate(self, size: Size, model: ModelFacts | None) -> int:
        """Return the tokens to reserve."""
        most = charge(size, self.formulas[0], model)
        for formula in self.formulas[1:]:
            if (tokens := charge(size, formula, model)) > most:
                most = tokens
        return most

    def learn(
        self, size: Size, model: ModelFacts | None, charged: float, limit: float, *, at_most: bool = False
    ) -> bool:
        """Take in what the server charged for one request, or `at_most`; true if the estimates change because of it."""
        if self._fixed or size.unseen:
            return False
        before = self.formulas
        tolerance = 1 + limit / _TICKS
        known = [(formula, n) for formula, n in candidates(size, model) if formula in self._possible]
        met = [formula for formula, n in known if abs(n - charged) < tolerance]
        above = [formula for formula, n in known if n > charged]
        if at_most:  # those that came to less may be right, too
            if not met and not above:  # and here each did: it was estimated before more was known
                return False
        else:
            self._possible = set(met or above) or {_LAST_RESORT}
        self.formulas = tuple(met) or tuple(above[:1]) or (_LAST_RESORT,)
        self.told = " ".join(self.formulas)
        return self.formulas != before

    def adopt(self, told: str | None) -> None:
        """Take over what others have learnt; a formula that is not known here says nothing."""
        if told is None or told == self.told or self._fixed:
            return
        self.told = told
        if found := tuple(formula for formula in FORMULAS if formula in told.split()):
            self.formulas, self._possible = found, set(found)
