"""Metrics, as Prometheus' own parser reads them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jobbing import Place, ask, batch_line
from prometheus_client.parser import text_string_to_metric_families

import ratelimit
from ratelimit.admission.events import Granted, Refused, ServiceBack, ServiceDown
from ratelimit.admission.scheduler import Scheduler
from ratelimit.jobs.dashboard import _charts
from ratelimit.jobs.exposition import Exposition
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.standing import Standing
from ratelimit.jobs.tally import Point, Tally
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.tiers import load
from ratelimit.metrics import Metrics
from ratelimit.testing.mock import MockServer
from ratelimit.watch.serving import address, bind

DOCS = Path(__file__).parents[2] / "docs" / "watching.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """All samples by name and labels; each stands once."""
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"ratelimit_{name}", frozenset(labels.items())]


async def test_of_a_cap_beside_the_published_limit_the_lower_is_shown_and_nothing_twice() -> None:
    limits = [Limit("requests", 6, MINUTE, own=True), Limit("requests", 500, MINUTE), Limit("tokens", 9, MINUTE)]
    scheduler, metrics = Scheduler({"m": limits}), Metrics()
    scheduler.lane("m")
    metrics.follow(scheduler)
    samples = read(metrics.text())
    assert [value(samples, "limit", model="m", dim=dim) for dim in ("RPM", "TPM")] == [6, 9]
    of = {**dict.fromkeys(Standing.__dataclass_fields__, 0), "lanes": scheduler.snapshot(), "ended": True}
    tally = Tally(load())
    tally.sent(0.0)
    assert [chart["cap"] for chart in _charts(Standing(**of), tally)] == [6, 9]  # type: ignore[arg-type]


async def test_a_client_is_counted_and_its_lanes_are_shown() -> None:
    metrics = Metrics()
    body = {**ask("hi"), "model": "gpt-4o-mini"}
    async with MockServer(tier="tier-1", echo=True, rpm=60, faults=["500:from=2,to=3"], latency="1") as mock:
        client = ratelimit.open(base_url=mock.base_url, api_key="sk-x", tier="tier-1", observer=metrics, rpm=60)
        async with client, metrics.served(0) as url:
            metrics.follow(client)
            async for result in client.map([body] * 200):
                result.unwrap()
            with pytest.raises(ratelimit.RateLimitError):
                await client.send({**body, "messages": []})
            async with aiohttp.ClientSession() as http, http.get(url) as reply:
                assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                samples = read(await reply.text())
                used = client.snapshot()[0].limits[0].used_last_minute
    model = "gpt-4o-mini"
    assert value(samples, "requests_total", model=model, code="200") == 200
    assert value(samples, "requests_total", model=model, code="400") == 1
    assert value(samples, "attempts_total", model=model, code="500") == 2
    assert value(samples, "retries_total", model=model) == 2
    assert value(samples, "tokens_total", model=model, direction="input") == 200 * 7
    assert value(samples, "tokens_total", model=model, direction="output") == 200
    assert value(samples, "cost_usd_total", model=model) == pytest.approx(200 * (7 * 0.15 + 0.6) / 1e6)
    assert value(samples, "limit", model=model, dim="RPM") == 60
    assert value(samples, "utilisation", model=model, dim="RPM") == pytest.approx(used)
    assert value(samples, "share", model=model, dim="RPM") == 1
    assert (value(samples, "inflight", model=model), value(samples, "queue_depth", model=model)) == (0, 0)
    waits = {labels: count for (name, labels), count in samples.items() if name == "ratelimit_wait_seconds_count"}
    assert sum(waits.values()) == 203
    assert value(samples, "wait_seconds_count", model=model, dim="RPM") > 20
    for labels, count in waits.items():
        assert samples["ratelimit_wait_seconds_bucket", labels | {("le", "+Inf")}] == count


def test_waits_lie_in_buckets_and_names_are_escaped() -> None:
    metrics = Metrics()
    for waited in (0.0, 0.1, 0.11, 1000.0):
        metrics(Granted('a"\\\n', 0, waited, 5, "RPM"))
    metrics(Refused("m", 0, None, None))
    metrics(ServiceDown("m", 0))
    samples = read(metrics.text())
    known: dict[str, Any] = {"model": 'a"\\\n', "dim": "RPM"}
    counts = [value(samples, "wait_seconds_bucket", **known, le=le) for le in ("0.01", "0.1", "0.5", "600", "+Inf")]
    assert counts == [1, 2, 3, 3, 4]
    assert value(samples, "wait_seconds_sum", **known) == pytest.approx(1000.21)
    assert value(samples, "refusals_total", model="m", dim="unknown") == 1
    assert value(samples, "service_down") == 1
    metrics(ServiceBack("m", 0))
    assert value(read(metrics.text()), "service_down") == 0


async def test_a_run_also_tells_of_its_rows(place: Place) -> None:
    class Reads(Exposition):
        async def watch(self, run: Watched, client: Sending) -> None:
            serving = asyncio.create_task(super().watch(run, client))
            await asyncio.sleep(20)
            async with aiohttp.ClientSession() as http, http.get(f"{address(taken)}metrics") as reply:
                told.update(read(await reply.text()))
            await serving

    told: Samples = {}
    taken, metrics = bind(0), Metrics()
    watcher: Watcher = Reads(taken, metrics)
    place.write([*(batch_line(f"row-{n}") for n in range(90)), batch_line("bad", ask("hi") | {"messages": []})])
    async with MockServer(tier="tier-1", echo=True, rpm=60) as mock:
        await place.run(mock, watcher=watcher, observer=metrics, rpm=60)
    documented = re.findall(r"^\| `(ratelimit_\w+)` \|", DOCS.read_text("utf-8"), flags=re.MULTILINE)
    assert {re.sub("_(bucket|sum|count)$", "", name) for name, _ in told} <= set(documented)
    rows = {outcome: value(told, "rows", outcome=outcome) for outcome in ("answered", "failed", "left")}
    assert 60 < rows["answered"] < 90
    assert rows["answered"] + rows["failed"] + rows["left"] == 91
    assert value(told, "eta_seconds") > 0
    assert value(told, "requests_total", model="gpt-4o-mini", code="200") == rows["answered"]


def test_a_minute_is_counted_as_limits_count_it_whatever_the_stretch() -> None:
    tally = Tally(load())
    tally.points = [Point(float(second), sent=2, answered=1) for second in range(90)]
    assert tally.in_a_minute(lambda point: point.sent) == [min(second, 60) * 2 for second in range(1, 91)]
    assert tally.rate(90.0) == 1
    assert tally.rate(100.0) == 0.5
    tally.stretch = 120.0
    assert tally.in_a_minute(lambda point: point.sent) == [1.0] * 90
