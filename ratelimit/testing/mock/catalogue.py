"""The models a mock server has and the limits each of them has there.

Figures come from the package's own tier table, unless a server is given its own models or single limits are set over
the table's; the table is data, the only thing the mock shares with the rest of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ratelimit.errors import BadMockOption, RateLimitError
from ratelimit.limits import tiers
from ratelimit.testing.mock.counting import Cap, Dimension, cap

TIERS = ("free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5")
_UNBOUNDED = 1_000_000_000
_DIMENSIONS: tuple[Dimension, ...] = ("rpm", "rpd", "tpm", "tpd", "images")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model may take; None is no such limit."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    images: int | None = None
    batch_queue: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise BadMockOption(each.name, value, "give a whole number of at least 1, or leave it out for no limit")

    def caps(self) -> list[Cap]:
        """The caps that requests are counted against."""
        return [cap(each, limit) for each in _DIMENSIONS if (limit := getattr(self, each)) is not None]

    def over(self, below: Limits) -> Limits:
        """These limits where they are set, the other's where not."""
        return replace(below, **self.given())

    def given(self) -> dict[str, Any]:
        """The limits that are set, by name."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}


@dataclass(frozen=True, slots=True)
class Family:
    """One model with its snapshots: they share their limits."""

    name: str
    limits: Limits
    resolved: str
    context_window: int = _UNBOUNDED
    max_output: int = _UNBOUNDED
    reasoning: bool = False
    long: Family | None = None
    long_over: int = _UNBOUNDED

    def counted_as(self, prompt_tokens: int) -> Family:
        """The family whose limits a request of so many prompt tokens counts against."""
        return self.long if self.long is not None and prompt_tokens > self.long_over else self

    def answers_as(self, asked: str) -> str:
        """The snapshot a reply names: the one asked for, or the one the alias points to."""
        return self.resolved if asked == self.name else asked


class Catalogue:
    """Finds the family of a model by any of its names."""

    def __init__(
        self, tier: str, models: Iterable[str] | Mapping[str, Limits] | None = None, overrides: Limits | None = None
    ) -> None:
        if tier not in TIERS:
            raise BadMockOption("--tier", tier, f"choose one of {', '.join(TIERS)}")
        self.tier = tier
        self._overrides = overrides or Limits()
        self._known: dict[str, Family | None] = {}
        self._table: tiers.Table | None = None
        self._wanted: set[str] | None = None
        if isinstance(models, Mapping):
            for name, limits in models.items():
                self._known[name] = Family(name, self._overrides.over(limits), name)
        else:
            self._table = tiers.load()
            self._wanted = None if models is None else {self._must_have(name, self._table) for name in models}

    def find(self, asked: str) -> Family | None:
        """The family of a model name, or None where this server does not have it."""
        try:
            return self._known[asked]
        except KeyError:
            found = self._look_up(asked)
            if len(self._known) < 10_000:  # clients choose these names
                self._known[asked] = found
            return found

    def families(self) -> list[Family]:
        """Everything this server has."""
        if self._table is None:
            return [each for each in self._known.values() if each is not None]
        names = set(self._table.models) if self._wanted is None else self._wanted
        return [each for name in sorted(names) if (each := self.find(name)) is not None]

    def _must_have(self, name: str, table: tiers.Table) -> str:
        """The family name of a model that was asked for; raises as the table does where the tier has no such model."""
        table.on(name, self.tier)
        return table.find(name).name

    def _look_up(self, asked: str) -> Family | None:
        if self._table is None:
            return None
        try:
            model = self._table.find(asked)
        except RateLimitError:
            return None
        if model.long_context_of or (self._wanted is not None and model.name not in self._wanted):
            return None
        return self._family(model, self._table)

    def _family(self, model: tiers.Model, table: tiers.Table) -> Family | None:
        given = model.tiers.get(self.tier)
        if given is None:
            return None
        limits = Limits(given.rpm, given.rpd, given.tpm, batch_queue=given.batch_queue)
        # Any number of tokens above the threshold finds the part of the family that counts long requests.
        long = table.for_input(model.name, _UNBOUNDED) if model.long_context_of is None else model
        return Family(
            model.name,
            self._overrides.over(limits),
            next(iter(model.snapshots), model.name),
            model.context_window or _UNBOUNDED,
            model.max_output or _UNBOUNDED,
            model.reasoning,
            self._family(long, table) if long is not model else None,
            long.long_context_over or _UNBOUNDED,
        )
