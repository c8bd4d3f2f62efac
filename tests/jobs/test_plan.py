"""A plan says what a run then does: figures against ones computed by hand, and time against a run in virtual time."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobbing import Place, ask, batch_line

from ratelimit.errors import ModelNotInTier
from ratelimit.jobs.batches.routes import foretold
from ratelimit.jobs.plan import TierPlan, fluid_bound, lived_through, plan
from ratelimit.jobs.source import Source
from ratelimit.jobs.survey import Load, Survey, survey
from ratelimit.limits.bucket import Limit
from ratelimit.limits.tiers import TIERS, load
from ratelimit.testing.mock import MockServer

TABLE = load()


def surveyed(place: Place, **options: Any) -> Survey:
    found = Survey()
    for found in survey(Source(str(place.requests)), TABLE, **options):  # noqa: B007 - the last one is the whole
        pass
    return found


def planned(found: Survey, tier: str = "tier-1") -> TierPlan:
    limits: dict[str, Any] = {}
    for name in found.loads:
        try:
            limits[name] = TABLE.on(name, tier)
        except ModelNotInTier as error:
            limits[name] = error
    return plan(found, tier, limits, concurrency=1000)


def test_figures_against_hand_computed_ones(place: Place) -> None:
    # "hello " 100 times is 101 tokens with the space at its end, and 3 + 3 + 1 go round it: 108 a request.
    text = "hello" + " hello" * 99
    place.write(batch_line(f"r{n}", ask(text, max_tokens=200)) for n in range(1000))
    (lane,) = planned(surveyed(place, expected_output=50)).lanes
    tokens = 1000 * 107
    assert (lane.model, lane.requests, lane.input_tokens, lane.oversize) == ("gpt-4o-mini", 1000, tokens, 0)
    assert lane.cost is not None
    assert lane.cost.least == pytest.approx(tokens * 0.075 / 1e6)
    assert lane.cost.expected == pytest.approx((tokens * 0.15 + 50_000 * 0.6) / 1e6)
    assert lane.cost.most == pytest.approx((tokens * 0.15 + 200_000 * 0.6) / 1e6)
    assert lane.batches is not None
    assert lane.batches.cost == pytest.approx(lane.cost.expected / 2)
    assert (lane.batches.files, lane.batches.rounds) == (1, 1)
    # 500 at once and 500 more at 500 a minute; the last is answered a second later.
    assert lane.seconds is not None
    assert 60 < lane.seconds < 64  # beside the limit: a first request alone, a second of slack, the last answer
    assert lane.binding == "RPM"


def test_batches_within_rows_and_queue(place: Place) -> None:
    place.write(batch_line(f"r{n}", ask("word " * 9_900)) for n in range(250))
    (lane,) = planned(surveyed(place)).lanes
    assert lane.batches is not None
    assert TABLE.on("gpt-4o-mini", "tier-1").batch_queue == 2_000_000
    assert lane.input_tokens == 250 * 9_908
    assert (lane.batches.files, lane.batches.rounds) == (2, 2)


def test_every_tier(place: Place) -> None:
    place.write(batch_line(f"r{n}", ask("hi", "gpt-4o")) for n in range(700))
    found = surveyed(place)
    seconds = {tier: planned(found, tier).seconds for tier in TIERS}
    assert seconds["free"] is None
    (lane,) = planned(found, "free").lanes
    assert lane.unusable is not None
    assert lane.unusable.startswith(
        "nobody has said what free allows for gpt-4o; the lowest tier with figures is tier-1: choose it"
    )
    known = [seconds[tier] for tier in TIERS if tier != "free"]
    assert known == sorted(known, key=lambda each: -(each or 0))


def test_what_can_never_pass_is_counted_and_left_out_of_the_time(place: Place) -> None:
    place.write([*(batch_line(f"r{n}") for n in range(5)), batch_line("big", ask("word " * 40_000, "gpt-4o"))])
    found = surveyed(place)
    by_model = {lane.model: lane for lane in planned(found).lanes}
    assert by_model["gpt-4o"].oversize == 1
    assert by_model["gpt-4o"].seconds == 0
    assert by_model["gpt-4o-mini"].oversize == 0


def test_bad_lines_and_duplicates_are_told(place: Place) -> None:
    place.write([batch_line("a"), batch_line("a"), "what?", batch_line("b", ask("hi", "gpt-17")), batch_line("a")])
    found = surveyed(place)
    assert (found.rows, found.measured, found.duplicates, sorted(found.problems)) == (5, 5, 2, [3, 4])


def test_a_sample_states_its_error(place: Place) -> None:
    words = [10 if n % 4 else 500 for n in range(4000)]
    place.write(batch_line(f"r{n}", ask("word " * count)) for n, count in enumerate(words))
    whole, part = surveyed(place), surveyed(place, every=7)
    assert (whole.error(), part.measured) == (0.0, 572)
    exact, estimated = planned(whole).lanes[0], planned(part).lanes[0]
    assert 0.05 < part.error() < 0.2
    assert abs(estimated.input_tokens - exact.input_tokens) <= part.error() * exact.input_tokens
    assert estimated.requests == exact.requests == 4000
    assert estimated.seconds == pytest.approx(exact.seconds, rel=part.error())


def test_the_least_time_the_limits_allow() -> None:
    size = Load(TABLE.find("gpt-4o-mini"))
    size.charges.extend([10.0] * 100)
    requests, tokens = Limit("requests", 40, 60.0), Limit("tokens", 100, 60.0)
    assert fluid_bound(size, (requests,)) == (90.0, "RPM")
    assert fluid_bound(size, (requests, tokens)) == (540.0, "TPM")
    assert fluid_bound(size, (requests,), scale=2.0) == (240.0, "RPM")
    assert fluid_bound(size, (Limit("requests", 1000, 60.0),)) == (0.0, None)
    assert fluid_bound(size, ()) == (0.0, None)


@pytest.mark.parametrize(("rpm", "words"), [(100, 3), (500, 2500)], ids=["requests", "tokens"])
async def test_the_planned_time_is_the_time_it_takes(place: Place, rpm: int, words: int) -> None:
    count = 400 if words == 3 else 250
    place.write(batch_line(f"r{n}", ask("word " * words, max_tokens=60)) for n in range(count))
    load_ = surveyed(place, expected_output=60).loads["gpt-4o-mini"]
    limits = (Limit("requests", rpm, 60.0), Limit("tokens", 200_000, 60.0))
    seconds = await asyncio.to_thread(lived_through, load_, limits, concurrency=1000)
    async with MockServer(tier="tier-1", output_tokens="60", latency="1.2", rpm=rpm) as mock:
        summary = await place.run(mock, rpm=rpm)
    assert summary.refused == 0
    assert seconds > 120
    assert summary.seconds == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(
    ("live", "queue", "batch", "part", "seconds"),
    [
        (600, 1.0, 3600, 1.0, 3600),  # batches are done in time, and nothing goes live
        (600, 0.25, 3600, 1.0, 4 * 3600),
        (600, 1.0, 86_400, 0.235, 20_500),  # what they have not answered moves over near the end
        (40_000, 1e-9, 3600, 0.0, 40_000),  # batches are no help, and the live API does what it can
        (21_600, 0.5, 3600, 0.95, 6_860),  # both at once, until batches have shown that they are in time
    ],
)
def test_the_mixture_of_routes_for_six_hours(
    live: float, queue: float, batch: float, part: float, seconds: float
) -> None:
    batched, took = foretold(6 * 3600.0, live=live, queue=queue, batch=batch)
    assert batched == pytest.approx(part, abs=0.01)
    assert took == pytest.approx(seconds, rel=0.02)


def test_a_plan_with_a_deadline(tmp_path: Path) -> None:
    """Rows of a template, both ways: what is saved is half of what batches answer."""
    (tmp_path / "rows.csv").write_text("id,word\n" + "".join(f"{n},w{n}\n" for n in range(2_000)))
    (tmp_path / "prompt.txt").write_text("explain {word}")
    command = [sys.executable, "-m", "ratelimit", "plan", "rows.csv", "--template", "prompt.txt", "--model"]
    command += ["gpt-4o-mini", "--deadline", "6h"]
    told = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    (lane,) = json.loads(told.stdout)["plans"][0]["lanes"]
    assert lane["requests"] == 2_000
    hour, _, day = lane["mixtures"]
    assert (hour["batched"], hour["live"]) == (2_000, 0)
    assert hour["saved"] == pytest.approx(lane["cost"]["expected"] / 2)
    assert day["batched"] + day["live"] == 2_000
    assert day["cost"] + day["saved"] == pytest.approx(lane["cost"]["expected"])
    assert 0 < day["saved"] < hour["saved"]
    assert day["seconds"] < 6 * 3600
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert shown.splitlines()[-5] == "with --via auto:"
    assert re.search(r"tier-1  gpt-4o-mini +1 h 00 min +2,000 +0 +1 h 00 min", shown)


def test_the_command(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write(batch_line(f"r{n}") for n in range(3))
    command = [sys.executable, "-m", "ratelimit", "plan", "requests.jsonl"]
    shown = subprocess.run([*command, "--all-tiers"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == "3 requests"
    assert [line.split()[0] for line in lines[1:]] == ["Tier", *TIERS]
    place.write([batch_line("a"), batch_line("a"), "\x1b[2J"])
    told = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    plans = json.loads(told.stdout)
    assert (plans["rows"], plans["duplicates"], list(plans["problems"])) == (3, 1, ["3"])
    assert plans["plans"][0]["lanes"][0]["requests"] == 2
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert "\x1b" not in said
    assert "1 line has an id that stands before it; `ratelimit run` will name it" in said
