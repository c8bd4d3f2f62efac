"""What happens in the cases of the bench of shared limits: programs start, send, die and freeze, and stores go away."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.record import Row
from bench.relay import Relay
from bench.server import Mock
from bench.sharers import MODEL, Sharer
from ratelimit.limits.tiers import load

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from redis_server import RedisServer

TIER = "tier-2"
WORDS = {"RPM": 1, "TPM": 600}
AWAY = 6.0
PARTED = 8.0
FROZEN = 4.0
_LONG = 60.0
_SHORT = 40.0
_BURST = 1.15  # times the limit: what is above is still the burst
_SAVED = 2.5  # seconds of refill: one is always kept back, and the first answer is seen a moment after it was given
_LONGEST_BURST = 50.0
_PERIOD = 1.0

Play = Callable[["Scene", RedisServer | None], Row]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the mock had counted at a moment."""

    at: float
    admitted: int
    amount: float


class Scene:
    """The programs of one case, and the server that judges them."""

    def __init__(self, mock: Mock, bound: str, environment: dict[str, str], parts: float) -> None:
        on = load().on(MODEL, TIER)
        self.parts = parts
        self.programs: list[Sharer] = []
        self.saved = 60.0
        self.rate: float = ((on.tpm if bound == "TPM" else on.rpm) or 0) / 60
        self._mock = mock
        self._unit = "tokens" if bound == "TPM" else "admitted"
        self._words = WORDS[bound]
        self._environment = environment

    def start(self, what: str = "flood", **settings: str) -> Sharer:
        """Start one more."""
        said = {f"RATELIMIT_{name.upper()}": text for name, text in settings.items()}
        sharer = Sharer(what, self._environment | said, self._words)
        self.programs.append(sharer)
        return sharer

    def settled(self) -> Mark:
        """Wait until all are connected, and what was saved up is gone; what is left of it is in seconds of refill."""
        self.programs[0].connected()
        first = time.monotonic()
        for each in self.programs[1:]:
            each.connected()
        calm, mark, end = 0, self.mark(), time.monotonic() + _LONGEST_BURST
        while calm < 2 and time.monotonic() < end:
            mark, before = self.after(_PERIOD), mark
            self.saved = 60 + mark.at - first - mark.amount / self.rate
            calm = calm + 1 if self.used(before, mark) <= _BURST and self.saved <= _SAVED else 0
        return mark

    def mark(self) -> Mark:
        """Ask the mock."""
        stats = self._mock.stats()
        return Mark(time.monotonic(), stats["admitted"], stats[self._unit])

    def after(self, seconds: float) -> Mark:
        """Ask the mock so much later."""
        time.sleep(seconds)
        return self.mark()

    def steadily(self, since: Mark, seconds: float) -> Mark:
        """Ask the mock so much later than it was asked; a quick run does not wait as long."""
        return self.after(max(since.at + seconds * self.parts - time.monotonic(), 0))

    def used(self, since: Mark, until: Mark) -> float:
        """Return what was admitted between, as a part of what the limit refills."""
        return (until.amount - since.amount) / self.rate / (until.at - since.at)

    def refused_per_1000(self) -> float:
        """Return refusals for a thousand admitted, since the first request."""
        stats = self._mock.stats()
        return float(sum(stats["refused"].values()) * 1000 / stats["admitted"])

    def ended(self, since: Mark, until: Mark) -> list[int]:
        """End all, and return how many answers each had between; none for who was killed."""
        for each in self.programs:
            each.signal(signal.SIGTERM)
        first, last = int(since.at * 10), int(until.at * 10)
        said = [each.ends().get("answers", {}) for each in self.programs]
        return [sum(many for tenth, many in answers.items() if first <= int(tenth) < last) for answers in said]


def steady(many: int) -> Play:
    """So many, and nothing happens."""

    def case(scene: Scene, _: RedisServer | None) -> Row:
        for _each in range(many):
            scene.start()
        since = scene.settled()
        until = scene.steadily(since, _LONG)
        return {"utilisation": scene.used(since, until), "refused_per_1000": scene.refused_per_1000()}

    return case


def weighted(scene: Scene, _: RedisServer | None) -> Row:
    """One has three times the other's weight."""
    scene.start(weight="3")
    scene.start()
    since = scene.settled()
    until = scene.steadily(since, _SHORT)
    row = {"utilisation": scene.used(since, until), "refused_per_1000": scene.refused_per_1000()}
    heavy, light = scene.ended(since, until)
    return {**row, "heavy": heavy / (heavy + light), "off_weight": abs(heavy / (heavy + light) - 0.75)}


def beside_idle(scene: Scene, _: RedisServer | None) -> Row:
    """One wants everything, the other a request a second."""
    scene.start()
    scene.start("sip")
    since = scene.settled()
    until = scene.steadily(since, _SHORT)
    row = {"refused_per_1000": scene.refused_per_1000()}
    hungry, _idle = scene.ended(since, until)
    return {**row, "hungry": hungry / (scene.rate * (until.at - since.at))}


def died_and_frozen(scene: Scene, _: RedisServer | None) -> Row:
    """Of three, one is killed, and then another frozen for a while."""
    for _each in range(3):
        scene.start()
    since = scene.settled()
    scene.programs[0].signal(signal.SIGKILL)
    time.sleep(1)
    scene.programs[1].signal(signal.SIGSTOP)
    time.sleep(FROZEN)
    scene.programs[1].signal(signal.SIGCONT)
    return judged(scene, since, scene.after(1))


def outage(end: Callable[[RedisServer], None], begin: Callable[[RedisServer], None]) -> Play:
    """Three, and the server is away."""

    def case(scene: Scene, redis: RedisServer | None) -> Row:
        assert redis
        for _each in range(3):
            scene.start()
        since = scene.settled()
        end(redis)
        time.sleep(AWAY)
        begin(redis)
        return judged(scene, since, scene.after(1))

    return case


def parted(scene: Scene, redis: RedisServer | None) -> Row:
    """Of three, one is cut off from the server."""
    assert redis
    with Relay(redis.port) as relay:
        for port in (relay.port, redis.port, redis.port):
            scene.start(shared=f"redis://127.0.0.1:{port}")
        since = scene.settled()
        relay.cut()
        time.sleep(PARTED)
        relay.heal()
        return judged(scene, since, scene.after(1))


def judged(scene: Scene, since: Mark, over: Mark) -> Row:
    """Return how it went from the first fault to a second after the last, and from there on."""
    until = scene.steadily(over, _LONG)
    return {
        "utilisation": scene.used(over, until),
        "meanwhile": scene.used(since, over),
        "refused_amid_faults_per_1000": scene.refused_per_1000(),
    }
