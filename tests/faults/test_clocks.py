"""Clocks that jump and programs that stand still: no burst beyond the bucket, no hang, and a day's limit is a day's."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from checking import check
from jobbing import Place, batch_line
from killing import RATELIMIT, environment, mock, records, statistics, write_requests

from ratelimit import sharing
from ratelimit.jobs.job import Watcher
from ratelimit.testing.mock import MockServer

DAILY, MORE, LATER = 100, 2, 5  # what a day allows, and how many more there are to send, then and an hour later
EACH = 86_400 / DAILY  # seconds for one of a day's limit to come back
BACK, FORWARD = -3_600.0, 86_400.0
NAP = 7_200  # seconds


def tiers(path: Path, **limits: int) -> Path:
    """A tier table of our own with these limits for one model."""
    rows = "".join(f"{name} = {amount}\n" for name, amount in limits.items())
    path.write_text(f"[models.gpt-4o-mini.tiers.tier-1]\ntpm = 2000000\n{rows}")
    return path


class Wall(Watcher):
    """A wall clock over virtual time, which is set when a run has fifty answers."""

    def __init__(self, by: float) -> None:
        self._by = by
        self._epoch = 1_800_000_000.0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self._epoch + self._loop.time()

    def microseconds(self) -> int:
        return round(self.time() * 1_000_000)

    async def watch(self, runner: Any, client: Any) -> None:
        while runner.tally.answers < 50:  # noqa: ASYNC110 - nothing tells of answers but the count
            await asyncio.sleep(0.1)
        self._epoch += self._by


@pytest.mark.parametrize("shared", ["off", "file"])
@pytest.mark.parametrize("by", [BACK, FORWARD])
async def test_a_wall_clock_that_is_set_brings_no_day_nearer(
    place: Place, monkeypatch: pytest.MonkeyPatch, by: float, shared: str
) -> None:
    wall = Wall(by)
    monkeypatch.setattr(time, "time", wall.time)
    monkeypatch.setattr(sharing, "microseconds", wall.microseconds)
    monkeypatch.setattr(sharing, "boottime", asyncio.get_running_loop().time)
    settings: dict[str, Any] = {"tiers_file": tiers(place.path / "tiers.toml", rpm=60, rpd=DAILY), "shared": shared}
    place.write(batch_line(f"row-{n}") for n in range(DAILY + MORE))
    async with MockServer(tier="tier-1", echo=True, latency="0.2", rpm=60, rpd=DAILY) as server:
        summary = await place.run(server, watcher=wall, **settings)
        assert summary.seconds == pytest.approx(MORE * EACH, rel=0.02)
        await asyncio.sleep(3_600)
        place.write(batch_line(f"row-{n}") for n in range(DAILY + MORE + LATER))
        again = await place.run(server, **settings)
        assert again.seconds == pytest.approx(LATER * EACH - 3_600, abs=60)
        assert server.stats.refused.total() == 0
    noted = [each for each in place.records("results.journal.jsonl") if "spent" in each]
    if shared == "off":
        assert noted[-1]["spent"]["gpt-4o-mini"]["RPD"] == pytest.approx(DAILY, abs=1)
        assert noted[-1]["at"] == pytest.approx(wall.time(), abs=1)
    expected = {f"row-{n}": f"what is row-{n}?" for n in range(DAILY + MORE + LATER)}
    check(place.output, expected, exit_code=again.exit_code)


@pytest.mark.parametrize("shared", ["off", "file"])
async def test_a_laptop_that_sleeps_makes_no_burst_and_its_day_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """For two hours the loop's clock stands still, and that of the boot, the wall and the service go on."""
    loop, wall = asyncio.get_running_loop(), Wall(0)
    asleep = 0.0

    class Sleep(Watcher):
        async def watch(self, runner: Any, client: Any) -> None:
            nonlocal asleep
            while runner.tally.answers < DAILY:  # noqa: ASYNC110 - nothing tells of answers but the count
                await asyncio.sleep(0.1)
            asleep = NAP

    monkeypatch.setattr(time, "time", lambda: wall.time() + asleep)
    monkeypatch.setattr(sharing, "microseconds", lambda: round((wall.time() + asleep) * 1_000_000))
    monkeypatch.setattr(sharing, "boottime", lambda: loop.time() + asleep)
    settings: dict[str, Any] = {"tiers_file": tiers(place.path / "tiers.toml", rpm=60, rpd=DAILY), "shared": shared}
    rows = DAILY + NAP // round(EACH) + MORE
    place.write(batch_line(f"row-{n}") for n in range(rows))
    async with MockServer(tier="tier-1", echo=True, latency="0.2", rpm=60, rpd=DAILY) as server:
        monkeypatch.setattr(server.service, "_clock", lambda: loop.time() + asleep)
        summary = await place.run(server, watcher=Sleep(), **settings)
        assert server.stats.refused.total() == 0
    check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(rows)}, exit_code=summary.exit_code)
    # What came back in those two hours is used at once where the clock of the boot counts, or as the replies tell.
    assert summary.seconds <= DAILY + (MORE + 1) * EACH + NAP // round(EACH) + 60


def test_a_program_that_is_stopped_and_goes_on_makes_no_burst(tmp_path: Path) -> None:
    """Of two programs on one key one is stopped, past the end of its lease, while the other goes on."""
    table, log = tiers(tmp_path / "tiers.toml", rpm=120), tmp_path / "served.jsonl"
    runs, expected = [], []
    with mock("--tier", "tier-1", "--rpm", "120", "--latency", "0.1-0.5", "--log", str(log)) as url:
        for name in ("one", "two"):
            place = tmp_path / name
            place.mkdir()
            expected.append(write_requests(place / "requests.jsonl", 62))
            command = [*RATELIMIT, "run", str(place / "requests.jsonl"), "-o", str(place / "results.jsonl"), "--quiet"]
            command += ["--tier", "tier-1", "--tiers-file", str(table), "--shared", "file"]
            settings = {**environment(url), "RATELIMIT_PACE": "30"}  # all that a full bucket allows within two seconds
            runs.append(subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True))
        journal = tmp_path / "one" / "results.journal.jsonl"
        while sum("sent" in each for each in records(journal)) < 20:
            time.sleep(0.01)
        runs[0].send_signal(signal.SIGSTOP)
        time.sleep(3)  # in which its lease ends, and the other takes all
        runs[0].send_signal(signal.SIGCONT)
        said = [run.communicate(timeout=60)[1] for run in runs]
        assert statistics(url)["refused"] == {}, said
    for name, answers, run in zip(("one", "two"), expected, runs, strict=True):
        check(tmp_path / name / "results.jsonl", answers, exit_code=run.returncode)
    assert len(records(log)) == 124
