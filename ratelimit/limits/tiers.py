"""What each model may be asked for on each usage tier, as plain values.

A model here is a *family*: an alias, its dated snapshots and what was fine-tuned from them share one set of limits, so
they share one name. The figures come from TOML files, the one that ships and the user's own over it, and are read once.
They are what the account is expected to allow, no more: what the service says in its headers counts for more.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from ratelimit.errors import ModelNotInTier, UnknownModel, UnknownTier
from ratelimit.limits.bucket import DAY, MINUTE, Limit

TIERS = ("free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5")

Group = Literal["limits", "sizes", "prices"]
Grade = Literal["documented", "observed", "inferred", "yours"]

_DATED = re.compile(r"(.+)-\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class TierLimits:
    """What one model may take on one tier; None is no such limit.

    `batch_queue` is the most input tokens that may be enqueued in the Batch API at one time, and no rate.
    """

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    batch_queue: int | None = None

    def limits(self) -> tuple[Limit, ...]:
        """The rates among them."""
        rows = (("requests", self.rpm, MINUTE), ("requests", self.rpd, DAY), ("tokens", self.tpm, MINUTE))
        return tuple(Limit(unit, amount, window) for unit, amount, window in rows if amount is not None)


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens; None where it is not known. `batch_discount` is the part that the Batch API saves."""

    input: float
    cached_input: float | None
    output: float
    batch_discount: float | None = None
    fine_tuned_input: float | None = None
    fine_tuned_output: float | None = None
    training: float | None = None

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Return what so many tokens cost, in dollars."""
        return (tokens_in * self.input + tokens_out * self.output) / 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where a group of figures comes from, when it said so, and how far to trust it."""

    text: str
    as_of: date | None = None
    grade: Grade = "yours"


@dataclass(frozen=True, slots=True)
class Model:
    """One family of models.

    The first of `snapshots` is the one the alias points to. In `tiers`, None says that the tier cannot use the model; a
    tier that is missing is one nobody has figures for. A family with `long_context_of` is the part of another that
    counts its requests of more than `long_context_over` input tokens.
    """

    name: str
    snapshots: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output: int | None = None
    prices: Prices | None = None
    endpoints: tuple[str, ...] = ()
    reasoning: bool = False
    tiers: Mapping[str, TierLimits | None] = field(default_factory=dict)
    sources: Mapping[Group, Source] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provider: str | None = None
    base_url: str | None = None
    long_context_of: str | None = None
    long_context_over: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything it is known by."""
        return (self.name, *self.aliases, *self.snapshots)


_MOST_STRANGE = 1_000  # names of models that no table has, for which the nearest are kept


@dataclass(frozen=True, slots=True)
class Table:
    """All models, by the name of the family; finds them by any name."""

    models: Mapping[str, Model]
    _index: Mapping[str, Model] = field(init=False, repr=False, compare=False)
    _long: Mapping[str, Model] = field(init=False, repr=False, compare=False)
    _near: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        index = {name: model for model in self.models.values() for name in model.names}
        long = {model.long_context_of: model for model in self.models.values() if model.long_context_of}
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_long", long)

    def find(self, name: str) -> Model:
        """The family of a model, of a snapshot, even one newer than the table, or of a fine-tune; else UnknownModel."""
        found = self._known(name)
        if found is None and name.startswith("ft:"):
            found = self._known(name.split(":")[1])
        if found is None:
            raise UnknownModel(name, self._like(name))
        return found

    def for_input(self, name: str, tokens: int) -> Model:
        """The family whose limits a request of so many input tokens counts against."""
        model = self.find(name)
        long = self._long.get(model.name)
        return long if long and long.long_context_over is not None and tokens > long.long_context_over else model

    def limits(self, name: str, tier: str) -> tuple[Limit, ...]:
        """The rates of a model on a tier; UnknownTier, UnknownModel or ModelNotInTier where there is no answer."""
        return self.on(name, tier).limits()

    def on(self, name: str, tier: str) -> TierLimits:
        """Everything a tier allows for a model; raises as `limits` does."""
        if tier not in TIERS:
            raise UnknownTier(tier, TIERS)
        model = self.find(name)
        found = model.tiers.get(tier)
        if found is None:
            able = [each for each in TIERS if model.tiers.get(each) is not None]
            raise ModelNotInTier(model.name, tier, able, known=tier in model.tiers)
        return found

    def _like(self, name: str) -> list[str]:
        """Return the names nearest to one; to look for them takes long, and a file may ask a million times."""
        base = (name.removeprefix("ft:").split(":")[0] if name.startswith("ft:") else name)[:100]
        if (near := self._near.get(base)) is None:
            near = difflib.get_close_matches(base, self._index, n=3, cutoff=0.6)
            if len(self._near) < _MOST_STRANGE:
                self._near[base] = near
        return near

    def _known(self, name: str) -> Model | None:
        found = self._index.get(name)
        if found is None and (dated := _DATED.fullmatch(name)):
            found = self._index.get(dated[1])
        return found


def load(*user_files: Path) -> Table:
    """The table that ships, and the user's files over it, the later over the earlier; BadTable says what is wrong."""
    if not user_files:
        return _shipped()
    from ratelimit.limits import tables  # noqa: PLC0415 - pydantic takes 0.1 s, for those who need a table alone

    return tables.read(shipped_path(), *user_files)


@cache
def _shipped() -> Table:
    from ratelimit.limits import tables  # noqa: PLC0415 - as above

    return tables.read(shipped_path())


def shipped_path() -> Path:
    """The table that ships: inside a wheel's package, else beside the package in the project it is worked on in."""
    package = Path(__file__).parent.parent
    inside = package / "tiers.toml"
    return inside if inside.exists() else package.parent / "config" / "tiers.toml"
