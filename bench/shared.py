"""Programs that share one key's limits: real processes, and the mock server in a process of its own as judge.

Every case is run with a file and with a Redis server of the bench's own; where there is none, the record says so.
Programs want more than there is, but for the idle one. What is measured begins when all have been answered and the
opening burst is over: the mock is asked every second, and the burst has ended when two seconds in a row have brought no
more than the limit refills. From there to the end of the case, what it has admitted is held against what the limit
allows. Refusals are counted from the first request on, the opening included.

Another part has no server: so many admissions a second of a lane that is far from its limits, alone and shared, in
processor time (the store's thread included, the Redis server not) and in waiting that there was no limit for.

A case takes at most about 30 s, and all of them five minutes: two run at a time, each with servers and limits of its
own.

    python -m bench shared [--quick] [--only TEXT]
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
from bench.server import Mock, serving
from bench.sharers import ADMISSIONS, MODEL, Sharer, program
from bench.stores import Redis, why_no_redis
from ratelimit.limits.tiers import load

TIER = "tier-2"
TARGETS = {
    "utilisation": ">= 0.98",
    "hungry": ">= 0.97",
    "off_weight": "<= 0.03",
    "refused_per_1000": "<= 1",
    "meanwhile": ">= 0.9",
    "refused_amid_faults_per_1000": "<= 2",
    "cpu_us": "<= 200",
    "wait_p99_ms": "<= 20",
}
WORDS = {"RPM": 1, "TPM": 600}
ADMITTING = f"{ADMISSIONS} admissions a second"
AWAY = 6.0
FROZEN = 4.0
_BURST = 1.15  # times the limit: what is above is still the burst
_LONGEST_BURST = 14.0
_PERIOD = 1.0
_AT_ONCE = 2  # cases, each with servers and limits of its own: most of the time they wait


Play = Callable[["Scene", Redis | None], Row]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the mock had counted at a moment."""

    at: float
    admitted: int
    amount: float


class Scene:
    """The programs of one case, and the server that judges them."""

    def __init__(self, mock: Mock, bound: str, environment: dict[str, str], seconds: float) -> None:
        on = load().on(MODEL, TIER)
        self.seconds = seconds
        self.programs: list[Sharer] = []
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
        """Wait until all are connected and the burst is over."""
        for each in self.programs:
            each.connected()
        calm, mark, end = 0, self.mark(), time.monotonic() + _LONGEST_BURST
        while calm < 2 and time.monotonic() < end:
            mark, before = self.after(_PERIOD), mark
            calm = calm + 1 if self.used(before, mark) <= _BURST else 0
        return mark

    def mark(self) -> Mark:
        """Ask the mock."""
        stats = self._mock.stats()
        return Mark(time.monotonic(), stats["admitted"], stats[self._unit])

    def after(self, seconds: float) -> Mark:
        """Ask the mock so much later."""
        time.sleep(seconds)
        return self.mark()

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

    def case(scene: Scene, _: Redis | None) -> Row:
        for _each in range(many):
            scene.start()
        since = scene.settled()
        until = scene.after(scene.seconds)
        return {"utilisation": scene.used(since, until), "refused_per_1000": scene.refused_per_1000()}

    return case


def weighted(scene: Scene, _: Redis | None) -> Row:
    """One has three times the other's weight."""
    scene.start(weight="3")
    scene.start()
    since = scene.settled()
    until = scene.after(scene.seconds)
    row = {"utilisation": scene.used(since, until), "refused_per_1000": scene.refused_per_1000()}
    heavy, light = scene.ended(since, until)
    return {**row, "heavy": heavy / (heavy + light), "off_weight": abs(heavy / (heavy + light) - 0.75)}


def beside_idle(scene: Scene, _: Redis | None) -> Row:
    """One wants everything, the other a request a second."""
    scene.start()
    scene.start("sip")
    since = scene.settled()
    until = scene.after(scene.seconds)
    row = {"refused_per_1000": scene.refused_per_1000()}
    hungry, _idle = scene.ended(since, until)
    return {**row, "hungry": hungry / (scene.rate * (until.at - since.at))}


def died_and_frozen(scene: Scene, _: Redis | None) -> Row:
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


def outage(end: Callable[[Redis], None], begin: Callable[[Redis], None]) -> Play:
    """Three, and the server is away."""

    def case(scene: Scene, redis: Redis | None) -> Row:
        assert redis
        for _each in range(3):
            scene.start()
        since = scene.settled()
        end(redis)
        time.sleep(AWAY)
        begin(redis)
        return judged(scene, since, scene.after(1))

    return case


def judged(scene: Scene, since: Mark, over: Mark) -> Row:
    """Return how it went from the first fault to a second after the last, and from there on."""
    until = scene.after(scene.seconds)
    return {
        "utilisation": scene.used(over, until),
        "meanwhile": scene.used(since, over),
        "refused_amid_faults_per_1000": scene.refused_per_1000(),
    }


@dataclass(frozen=True, slots=True)
class Case:
    """One case: where limits are kept, which of them is scarce, and what happens."""

    store: str
    what: str
    bound: str
    play: Play

    @property
    def name(self) -> str:
        """What it is called on the way."""
        return f"{self.store}, {self.what}, {self.bound}"


def cases() -> Iterator[Case]:
    """Yield all of them."""
    both: list[tuple[str, str, Play]] = [
        (f"{many} program{'s' if many > 1 else ''}", bound, steady(many)) for many in (1, 2, 8) for bound in WORDS
    ]
    both += [
        ("weights 3 and 1", "RPM", weighted),
        ("one beside an idle one", "RPM", beside_idle),
        (f"of three one killed, one frozen for {FROZEN:g} s", "RPM", died_and_frozen),
    ]
    for case in both:
        yield Case("file", *case)
        yield Case("redis", *case)
    yield Case("redis", f"three, the server frozen for {AWAY:g} s", "RPM", outage(Redis.freeze, Redis.thaw))
    yield Case("redis", f"three, the server killed, empty {AWAY:g} s later", "RPM", outage(Redis.kill, Redis.start))


def environment_of(store: str, folder: Path, redis: Redis | None) -> dict[str, str]:
    """Return what tells programs where their limits are kept."""
    return {
        "RATELIMIT_SHARED": redis.address if redis else store,
        "XDG_STATE_HOME": str(folder),
        "OPENAI_API_KEY": "sk-bench",
    }


@contextmanager
def kept_in(store: str) -> Iterator[tuple[dict[str, str], Redis | None]]:
    """Have a store that is new, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(Path(folder)) if store == "redis" else None
        try:
            yield environment_of(store, Path(folder), redis), redis
        finally:
            if redis:
                redis.kill()


def played(case: Case, seconds: float) -> Row:
    """Return how one case went."""
    options = ["--tier", TIER, "--model", MODEL, "--latency", "0.05", "--output-tokens", "16"]
    started = time.monotonic()
    with kept_in(case.store) as (environment, redis), serving(options) as mock:
        there = {"OPENAI_BASE_URL": mock.base_url, "RATELIMIT_TIER": TIER}
        scene = Scene(mock, case.bound, environment | there, seconds)
        try:
            found = case.play(scene, redis)
        finally:
            for each in scene.programs:
                each.abandon()
    head = {"store": case.store, "what": case.what, "bound": case.bound}
    return head | {name: round(figure, 4) for name, figure in found.items()} | {"took_s": since(started)}


def admitted(store: str, seconds: float) -> Row:
    """Return what an admission costs in a process of its own, and how long it waits."""
    started = time.monotonic()
    with kept_in(store) as (environment, _):
        sharer = Sharer("admit", environment | {"RATELIMIT_TIER": "tier-5"}, seconds)
        try:
            found = sharer.ends()
        finally:
            sharer.abandon()
    figures = {name: round(figure, 2) for name, figure in found.items()}
    return {"store": store, "what": ADMITTING, **figures, "took_s": since(started)}


def since(moment: float) -> float:
    """Return how long ago that was."""
    return round(time.monotonic() - moment, 1)


def main(arguments: list[str]) -> int:
    """Play all cases, print, keep, and judge."""
    parser = parser_of("shared", __doc__, "half as long, with a file only")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in 'STORE, WHAT, BOUND'")
    parser.add_argument("--program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.program:
        return program(options.program[0], options.program[1:])
    before, missing = machine(), why_no_redis()
    stores = ("file",) if options.quick or missing else ("file", "redis")
    seconds = 4.0 if options.quick else 6.0
    chosen = [case for case in cases() if case.store in stores and options.only in case.name]
    lone = [store for store in ("off", *stores) if options.only in f"{store}, {ADMITTING}"]
    progress, rows = Progress(len(chosen) + len(lone)), list[Row]()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for row in threads.map(lambda case: played(case, seconds), chosen):
            rows.append(row)
            progress.say(f"{row['store']}, {row['what']}, {row['bound']}")
    for store in lone:
        rows.append(admitted(store, seconds))
        progress.say(f"{store}, {ADMITTING}")
    record = Record(
        bench="shared",
        rows=compared(rows),
        targets=TARGETS,
        command=" ".join(["python -m bench shared", *arguments]),
        notes=[f"left out what needs a Redis server: {missing}"] if missing else [],
        machine=before,
        versions=versions("aiohttp", "redis"),
    )
    return concluded(record, place(options, "shared", partial=bool(options.only)))


def compared(rows: list[Row]) -> list[Row]:
    """Return the rows with what sharing adds to a ledger that is alone, which is judged by nothing."""
    alone = next((row["cpu_us"] for row in rows if row["store"] == "off" and "cpu_us" in row), None)
    for row in rows:
        if alone and "cpu_us" in row and row["store"] != "off":
            row |= {"cpu_us_more": round(row["cpu_us"] - alone, 1), "to_alone": round(row["cpu_us"] / alone, 2)}
    return rows
