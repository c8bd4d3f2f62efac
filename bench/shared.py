"""Programs that share one key's limits: real processes, and the mock server in a process of its own as judge.

Every case is run with a file and with a Redis server of the bench's own; where there is none, the record says so.
Programs want more than there is, but for the idle one. What is measured begins when all have been answered and the
opening burst is over: the mock is asked every second, and the burst has ended when two seconds in a row have brought no
more than the limit refills, and no more is left of what was saved up than programs keep back. That takes half a minute,
for a lane saves up a minute's worth and lets the last of it go slowly. Where it takes longer than 50 s, `saved_s` shows
how many seconds of refill were left when it was no longer waited for. From there to the end of the case, what the mock
has admitted is held against what the limit allows. Refusals are counted from the first request on.

Another part has no server: so many admissions a second of a lane that is far from its limits, alone and shared, in
processor time (the store's thread included, the Redis server not) and in waiting that there was no limit for.

A day's limit is shared in virtual time, by a store in memory and against the scripted service of the tests.

A case takes up to 100 s, and all of them ten minutes: four run at a time, each with servers and limits of its own.

    python -m bench shared [--quick] [--only TEXT]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
from bench.scenes import (
    AWAY,
    FROZEN,
    PARTED,
    TIER,
    WORDS,
    Play,
    Scene,
    beside_idle,
    died_and_frozen,
    outage,
    parted,
    steady,
    weighted,
)
from bench.server import serving
from bench.sharers import ADMISSIONS, MODEL, Sharer, program
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.testing.clock import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from redis_server import RedisServer, missing
from servers import Network, Service
from sharing import Program, wall_clock

TARGETS = {
    "utilisation": ">= 0.98",
    "of_a_day": ">= 0.99",
    "hungry": ">= 0.97",
    "off_weight": "<= 0.03",
    "refused_per_1000": "<= 1",
    "meanwhile": ">= 0.9",
    "refused_amid_faults_per_1000": "<= 2",
    "cpu_us": "<= 200",
    "wait_p99_ms": "<= 20",
}
ADMITTING = f"{ADMISSIONS} admissions a second"
HOURS = 2
MOST = 8
_AT_ONCE = 4  # cases, each with servers and limits of its own: most of the time they wait


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
        (f"{many} program{'s' if many > 1 else ''}", bound, steady(many)) for many in (1, 2, MOST) for bound in WORDS
    ]
    both += [
        ("weights 3 and 1", "RPM", weighted),
        ("one beside an idle one", "RPM", beside_idle),
        (f"of three one killed, one frozen for {FROZEN:g} s", "RPM", died_and_frozen),
    ]
    for case in both:
        yield Case("file", *case)
        yield Case("redis", *case)
    yield Case("redis", f"three, the server frozen for {AWAY:g} s", "RPM", outage(RedisServer.freeze, RedisServer.thaw))
    again = outage(RedisServer.kill, RedisServer.start)
    yield Case("redis", f"three, the server killed, empty {AWAY:g} s later", "RPM", again)
    yield Case("redis", f"three, one cut off from the server for {PARTED:g} s", "RPM", parted)


def apart(chosen: list[Case]) -> list[Case]:
    """Return the cases in an order in which those of many programs are not played together."""
    many = [case for case in chosen if case.what.startswith(f"{MOST} ")]
    few = [case for case in chosen if case not in many]
    step = len(few) // len(many) if many else 0
    return [each for at, case in enumerate(many) for each in (case, *few[at * step : (at + 1) * step])] + few[
        len(many) * step :
    ]


def environment_of(store: str, folder: Path, redis: RedisServer | None) -> dict[str, str]:
    """Return what tells programs where their limits are kept."""
    return {
        "RATELIMIT_SHARED": redis.fresh() if redis else store,
        "XDG_STATE_HOME": str(folder),
        "OPENAI_API_KEY": "sk-bench",
    }


@contextmanager
def kept_in(store: str) -> Iterator[tuple[dict[str, str], RedisServer | None]]:
    """Have a store that is new, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder)) if store == "redis" else None
        try:
            if redis:
                redis.start()
            yield environment_of(store, Path(folder), redis), redis
        finally:
            if redis:
                redis.kill()


def played(case: Case, parts: float) -> Row:
    """Return how one case went."""
    options = ["--tier", TIER, "--model", MODEL, "--latency", "0.05", "--output-tokens", "16"]
    started = time.monotonic()
    with kept_in(case.store) as (environment, redis), serving(options) as mock:
        there = {"OPENAI_BASE_URL": mock.base_url, "RATELIMIT_TIER": TIER}
        scene = Scene(mock, case.bound, environment | there, parts)
        try:
            found = case.play(scene, redis)
        finally:
            for each in scene.programs:
                each.abandon()
    head = {"store": case.store, "what": case.what, "bound": case.bound}
    figures = {name: round(figure, 4) for name, figure in found.items()}
    return head | figures | {"saved_s": round(scene.saved, 1), "took_s": since(started)}


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


def in_a_day() -> Row:
    """Return how much of a day's limit three use that are started hours apart, and who have no other to keep to."""
    started = time.monotonic()
    limits = [Limit("requests", 500, MINUTE), Limit("requests", 2_000, DAY)]
    service, ends = Service.of(limits), 4 * HOURS * 3600.0

    async def whole() -> None:
        store = wall_clock()
        programs = [Program(number, store, limits) for number in range(3)]
        network = Network.steady(0.02, 0.3)
        await asyncio.gather(
            *(
                each.flood(service, network, number * HOURS * 3600, ends, backlog=5)
                for number, each in enumerate(programs)
            )
        )

    run(whole())
    allowed = limits[1].amount + limits[1].rate * (ends - 1)  # of which a second's worth is always kept back
    figures = {"of_a_day": len(service.admitted) / allowed, "refused_per_1000": service.refusals() * 1000 / allowed}
    head = {"store": "memory", "what": f"three started {HOURS} h apart", "bound": "RPD"}
    return head | {name: round(figure, 4) for name, figure in figures.items()} | {"took_s": since(started)}


def since(moment: float) -> float:
    """Return how long ago that was."""
    return round(time.monotonic() - moment, 1)


def main(arguments: list[str]) -> int:
    """Play all cases, print, keep, and judge."""
    parser = parser_of("shared", __doc__, "a fifth of the time is measured, with a file only")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in 'STORE, WHAT, BOUND'")
    parser.add_argument("--program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.program:
        return program(options.program[0], options.program[1:])
    before, lacking = machine(), missing()
    stores = ("file",) if options.quick or lacking else ("file", "redis")
    parts = 0.2 if options.quick else 1.0
    chosen = [case for case in cases() if case.store in stores and options.only in case.name]
    lone = [store for store in ("off", *stores) if options.only in f"{store}, {ADMITTING}"]
    daily = [in_a_day] if options.only in f"memory, three started {HOURS} h apart, RPD" else []
    progress, rows = Progress(len(chosen) + len(lone) + len(daily)), list[Row]()
    found = dict[Case, Row]()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for case, row in threads.map(lambda case: (case, played(case, parts)), apart(chosen)):
            found[case] = row
            progress.say(case.name)
    rows += [found[case] for case in chosen]
    for store in lone:
        rows.append(admitted(store, 8 * parts))
        progress.say(f"{store}, {ADMITTING}")
    for play in daily:
        rows.append(play())
        progress.say(str(rows[-1]["what"]))
    record = Record(
        bench="shared",
        rows=compared(rows),
        targets=TARGETS,
        command=" ".join(["python -m bench shared", *arguments]),
        notes=[f"left out what needs a Redis server: {lacking}"] if lacking else [],
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
