"""The script and its model give the same answers, to the last bit, whatever they are asked."""

from __future__ import annotations

import random

import msgspec
import pytest
from redis_server import RedisServer
from sharing import Hands

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.redis import RedisStore
from ratelimit.admission.shared.store import NO_BURST, Answer, Ask, LimitTold

pytestmark = pytest.mark.real_time

UNITS = ["requests", "tokens"]


class Asker:
    """A program that says whatever may be said."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name, self.dice = name, dice
        self.number, self.life = 0, 0
        self.has, self.total = [0.0, 0.0], [0.0, 0.0]
        self.last: Answer | None = None
        self.units = UNITS if dice.random() < 0.8 else UNITS[:1]

    def question(self, now: int) -> Ask:
        dice, size = self.dice, len(self.units)
        if dice.random() < 0.05:
            self.life, self.number, self.total, self.has = self.life + 1, 0, [0.0, 0.0], [0.0, 0.0]
        if dice.random() > 0.1:  # else it asks again with the same number
            self.number += 1
        self.has = [dice.choice([amount, amount // 2, 0.0]) for amount in self.has]
        scale = [1, 700][:size]
        need = [dice.choice([0, 1, 1, 3, 90]) * each * 1.0 for each in scale]
        want = [amount + dice.choice([0, 0, 5, 40, 1000]) * each for amount, each in zip(need, scale, strict=True)]
        known = self.last.epoch if self.last else 0
        return Ask(
            lane="m",
            holder=f"{self.name}.{self.life}",
            name=self.name,
            number=self.number,
            weight=dice.choice([1, 1, 2.5, 0.1]),
            lasts=dice.choice([1_000_000, 5_000_000, 0]) if dice.random() < 0.3 else 1_000_000,
            at=now - dice.choice([0, 0, 0, 700_000]) if dice.random() < 0.3 else 0,
            jump=3_000_000 if dice.random() < 0.02 else 0,
            epoch=known if dice.random() < 0.97 else 12345,
            answered=dice.random() < 0.5,
            priority=dice.choice([0, 0, 0, -1]),
            pace=dice.choice([10, 3]),
            units=self.units,
            need=need,
            want=want,
            has=self.has[:size],
            keep=[dice.choice([amount, 0.0]) for amount in self.has[:size]],
            total=[amount + (5 if dice.random() < 0.02 else 0) for amount in self.total[:size]],
            give=[dice.choice([0, 0, 3.5, -2]) * each for each in scale],
            spent=[dice.choice([0, 0, 0, 8]) * each * 1.0 for each in scale] if dice.random() < 0.1 else [0.0] * size,
            limits=[self.told("requests", 600, 60.0), *([self.told("tokens", 90_000, 60.0)] if size > 1 else [])]
            + ([self.told("requests", 10_000, 86_400.0)] if dice.random() < 0.5 else []),
            facts=[("charge", dice.choice("abc"))] if dice.random() < 0.1 else [],
        )

    def told(self, unit: str, amount: float, window: float) -> LimitTold:
        dice = self.dice
        kept = next((k for k in self.last.limits if (k.unit, k.window) == (unit, window)), None) if self.last else None
        return LimitTold(
            unit,
            window,
            "",
            amount * dice.choice([1, 1, 1, 0.7]),
            dice.choice([1, 1, 0.9]),
            amount / 60,
            dice.choice([NO_BURST, NO_BURST, amount / 3000]),
            1,
            version=kept.version if kept else 0,
            changed=dice.random() < 0.1,
            closed=300_000 if dice.random() < 0.03 else 0,
            shift=dice.choice([-7.25, 12.5]) if dice.random() < 0.1 else 0,
            basis=kept.corrected if kept else 0,
            missing=dice.choice([0, amount / 3]),
        )

    def hear(self, ask: Ask, answer: Answer) -> None:
        if answer.late or answer.number != ask.number:
            return
        self.last = answer
        for at, granted in enumerate(answer.granted):
            self.total[at] += max(granted - ask.has[at], 0)
            self.has[at] = granted


@pytest.mark.parametrize("seed", range(12))
async def test_script_and_model_agree_step_by_step(seed: int, redis_server: RedisServer) -> None:
    dice, hands = random.Random(seed), Hands()
    model, script = MemoryStore(hands), RedisStore(redis_server.fresh(), hands)
    askers = [Asker(f"p{number}", dice) for number in range(dice.choice([1, 2, 5]))]
    granted = 0.0
    for _ in range(250):
        asker = dice.choice(askers)
        ask = asker.question(hands())
        told = await model.lease("g", ask)
        assert msgspec.to_builtins(await script.lease("g", ask)) == msgspec.to_builtins(told)
        assert await script.peek() == await model.peek()
        asker.hear(ask, told)
        granted += sum(told.granted)
        hands.pass_by(dice.choice([0, 0.001, 0.1, 0.1, 0.35, 2.0, -0.5 if dice.random() < 0.05 else 0.02]))
    assert granted
    await script.aclose()
