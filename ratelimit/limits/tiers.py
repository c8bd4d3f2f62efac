"""Stand-in until the tier tables land: two models, the agreed signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratelimit.errors import RateLimitError
from ratelimit.limits.bucket import DAY, MINUTE, Limit

TIERS = ("free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5")


@dataclass(frozen=True, slots=True)
class TierLimits:
    rpm: float | None = None
    rpd: float | None = None
    tpm: float | None = None
    batch_queue: float | None = None

    def limits(self) -> tuple[Limit, ...]:
        rows = (("requests", self.rpm, MINUTE), ("requests", self.rpd, DAY), ("tokens", self.tpm, MINUTE))
        return tuple(Limit(unit, amount, window) for unit, amount, window in rows if amount is not None)


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    snapshots: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output: int | None = None
    endpoints: tuple[str, ...] = ("chat/completions", "responses")
    reasoning: bool = False
    tiers: Mapping[str, TierLimits | None] = field(default_factory=dict)
    prices: None = None


@dataclass(frozen=True, slots=True)
class Table:
    models: Mapping[str, Model]

    def find(self, name: str) -> Model:
        for model in self.models.values():
            if name in {model.name, *model.snapshots} or name.startswith(f"ft:{model.name}"):
                return model
        raise RateLimitError(f"the model {name!r} is in no table")

    def limits(self, name: str, tier: str) -> tuple[Limit, ...]:
        found = self.find(name).tiers.get(tier)
        if found is None:
            raise RateLimitError(f"{name} is not in {tier}")
        return found.limits()


def load(*user_files: Path) -> Table:
    del user_files
    t = TierLimits
    return Table(
        {
            "gpt-4o-mini": Model(
                "gpt-4o-mini", ("gpt-4o-mini-2024-07-18",), (), 128_000, 16_384,
                tiers={
                    "free": t(3, 200, 40e3), "tier-1": t(500, 10e3, 200e3, 2e6), "tier-2": t(5e3, None, 2e6, 20e6),
                    "tier-3": t(5e3, None, 4e6, 40e6), "tier-4": t(10e3, None, 10e6, 1e9), "tier-5": t(30e3, None, 150e6, 15e9),
                },
            ),
            "o4-mini": Model(
                "o4-mini", ("o4-mini-2025-04-16",), (), 200_000, 100_000, reasoning=True,
                tiers={
                    "free": None, "tier-1": t(1e3, None, 100e3, 1e6), "tier-2": t(2e3, None, 2e6, 2e6),
                    "tier-3": t(5e3, None, 4e6, 40e6), "tier-4": t(10e3, None, 10e6, 1e9), "tier-5": t(30e3, None, 150e6, 15e9),
                },
            ),
        }
    )  # fmt: skip
