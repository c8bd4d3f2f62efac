"""A hundred times everything: models, lanes, requests in flight, limits; it works, or refuses before it sends."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from checking import check
from jobbing import Place, ask, batch_line
from killing import RATELIMIT, environment, mock, statistics, write_requests
from wire_rig import Raw, reply

from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import BadSettings, RateLimitError
from ratelimit.jobs.budget import Options
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.mock import MockServer

HUGE = 10**12


def test_where_few_files_may_be_open_fewer_are_in_flight_and_that_is_said(tmp_path: Path) -> None:
    expected, output = write_requests(tmp_path / "requests.jsonl", 250), tmp_path / "results.jsonl"
    command = [*RATELIMIT, "run", str(tmp_path / "requests.jsonl"), "-o", str(output), "--no-progress"]
    limit = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *command, "--tier", "tier-5", "--concurrency", "1000"]
    with mock("--tier", "tier-5", "--latency", "0.7") as url:
        run = subprocess.run(limit, env=environment(url), capture_output=True, text=True, check=False, timeout=60)
        counted = statistics(url)
    check(output, expected, exit_code=run.returncode)
    assert run.stderr.splitlines()[0] == (
        "192 requests are in flight at most, not 1,000: this process may open no more files; raise that with ulimit -n"
    )
    assert (counted["arrived"], counted["most_in_flight"]) == (250, 192)


def tiers(path: Path, models: int = 1, **limits: int) -> Path:
    """A tier table of models that are called model-0 and so on."""
    rows = "".join(f"{name} = {amount}\n" for name, amount in limits.items())
    path.write_text("".join(f"[models.model-{n}.tiers.tier-1]\n{rows}" for n in range(models)))
    return path


async def test_a_hundred_models_in_one_file_each_at_its_own_speed(place: Place) -> None:
    place.write(batch_line(f"row-{n}", ask("hi", f"model-{n % 100}")) for n in range(600))
    table = tiers(place.path / "tiers.toml", 100, rpm=4, tpm=100_000)
    async with Raw(reply()) as server, MockServer() as unused:
        summary = await place.run(unused, base_url=server.url, tier="tier-1", tiers_file=table)
    assert len(server.requests) == 600
    check(place.output, {f"row-{n}": "hello there" for n in range(600)}, exit_code=summary.exit_code)
    assert summary.seconds <= 30 + 15  # of six each, four are a full bucket and two come back in half a minute


async def test_a_thousand_lanes_in_one_scheduler_hold_each_other_up_in_nothing() -> None:
    names = [f"lane-{n}" for n in range(1_000)]
    scheduler = Scheduler({name: [Limit("requests", 2, MINUTE)] for name in names})

    async def one(name: str) -> None:
        async with scheduler.reserve(name) as turn:
            turn.used()

    await asyncio.gather(*(one(name) for name in names for _ in range(3)))
    assert asyncio.get_running_loop().time() == pytest.approx(30, abs=1)
    assert len(scheduler.snapshot()) == 1_000


async def test_a_hundred_thousand_in_flight_may_be_asked_for(place: Place) -> None:
    place.write(batch_line(f"row-{n}") for n in range(500))
    async with MockServer(tier="tier-5", echo=True, latency="5") as server:
        summary = await place.run(server, Options(concurrency=100_000), concurrency=100_000)
        assert server.stats.most_in_flight >= 400
    check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(500)}, exit_code=summary.exit_code)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert bool(place.said) == (allowed != resource.RLIM_INFINITY and allowed < 100_000)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"rpm": 1, "tpm": 1}, "2 of 2 lines of {requests} cannot be sent, and nothing was"),
        ({"rpm": HUGE, "tpm": 100}, "1000000000000 is no whole number from 1 to 999,999,999,999"),
        ({"rpm": HUGE - 1, "tpm": HUGE - 1, "rpd": HUGE - 1}, None),
    ],
)
async def test_limits_of_one_token_and_of_a_million_million(
    place: Place, limits: dict[str, int], said: str | None
) -> None:
    place.write(batch_line(f"row-{n}", ask("hi", "model-0")) for n in range(2))
    table = tiers(place.path / "tiers.toml", **limits)
    async with Raw(reply()) as server, MockServer() as unused:
        settings: dict[str, Any] = {"base_url": server.url, "tier": "tier-1", "tiers_file": table}
        if said is None:
            await place.run(unused, **settings)
            assert set(place.answers()) == {"row-0", "row-1"}
        else:
            with pytest.raises(RateLimitError) as caught:
                await place.run(unused, **settings)
            assert said.format(requests=place.requests) in str(caught.value)
            assert server.requests == []


async def test_caps_of_ones_own_may_be_as_large_as_they_like(place: Place) -> None:
    place.write([batch_line("row-0")])
    async with MockServer(tier="tier-1", echo=True) as server:
        await place.run(server, rpm=HUGE, tpm=HUGE, rpd=HUGE)
        with pytest.raises(BadSettings):
            await place.run(server, rpm=0)
    check(place.output, {"row-0": "what is row-0?"})
