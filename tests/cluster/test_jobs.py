"""Jobs on a cluster: rows in, rows out, one key's limits over all workers, and nothing lost or paid twice."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobbing import batch_line
from killing import environment, mock, statistics, write_requests

from ratelimit.admission.shared.store import LaneSeen
from ratelimit.errors import BadSettings, NoKey, OutputUnusable
from ratelimit.ray import infer
from ratelimit.ray.luggage import Luggage
from ratelimit.ray.store import NAME
from ratelimit.secret import Secret
from ratelimit.settings import load_settings

KEY = "sk-CANARY-4711-not-to-be-seen"
EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_job.py"
UNLIMITED = ("--tier", "tier-5", "--rpm", "1000000", "--tpm", "1000000000")


def content(row: dict[str, Any]) -> str:
    found: str = json.loads(row["result"])["choices"][0]["message"]["content"]
    return found


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def workers_in(checkpoint: Path) -> list[int]:
    """The processes that write there."""
    found = [re.match(r"worker-(\d+)-", path.name) for path in checkpoint.iterdir()]
    return [int(each[1]) for each in found if each]


def lines_in(checkpoint: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in checkpoint.iterdir())


def test_rows_come_back_with_their_answers_and_what_is_wrong_with_them(ray: Any, tmp_path: Path) -> None:
    def request(row: dict[str, Any]) -> Any:
        message = {"role": "user", "content": row["text"], "name": None}
        body = {"model": "gpt-4o-mini", "messages": [message], "max_tokens": 100 // row["n"]}
        return {"custom_id": f"q{row['n']}", "body": body}

    rows = [{"n": n, "text": f"what is {n}?", "error": "of an earlier run"} for n in range(20)]
    with mock(*UNLIMITED) as url:
        settings: dict[str, Any] = {
            "checkpoint": tmp_path / "c",
            "base_url": url,
            "api_key": KEY,
            "workers": 1,
            "batch_size": 7,
        }
        found = infer(ray.data.from_items(rows), request, **settings).take_all()
        first, *others = sorted(found, key=lambda row: row["n"])
        assert statistics(url)["arrived"] == 19
    assert first == {
        **rows[0],
        "result": None,
        "error": "request_invalid: ZeroDivisionError: integer division or modulo by zero; mend this row of the input",
    }
    assert [row["error"] for row in others] == [None] * 19
    assert [content(row) for row in others] == [f"what is {n}?" for n in range(1, 20)]


def test_what_is_wrong_with_the_job_is_said_before_it_begins(ray: Any, tmp_path: Path) -> None:
    rows = ray.data.from_items([{"request": "{}"}])
    with pytest.raises(NoKey):
        infer(rows, checkpoint=tmp_path / "c")
    with pytest.raises(BadSettings):
        infer(rows, checkpoint=tmp_path / "c", api_key=KEY, teir="tier-1")
    with pytest.raises(OutputUnusable):
        infer(rows, checkpoint=__file__, api_key=KEY)


def test_the_key_is_seen_nowhere(ray: Any, tmp_path: Path) -> None:
    with mock(*UNLIMITED, "--fault", "invalid_key:times=1") as url:
        rows = ray.data.from_items([{"request": batch_line(f"row-{n}")} for n in range(4)])
        dataset = infer(rows, checkpoint=tmp_path / "c", base_url=url, api_key=KEY, workers=1)
        (error,) = {row["error"] for row in dataset.take_all()}
    assert error.startswith("key_rejected: ")
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    places = [path for root in (session, tmp_path) for path in root.rglob("*") if path.is_file()]
    assert len(places) > 10
    assert [path for path in places if KEY.encode() in path.read_bytes()] == []
    assert KEY not in f"{dataset!r}{dataset.stats()}{error}"


def test_a_killed_worker_costs_what_it_had_in_flight_and_no_row(ray: Any, tmp_path: Path) -> None:
    count, in_flight = 600, 16
    rows = ray.data.from_items([{"n": n, "request": batch_line(f"row-{n}")} for n in range(count)])
    checkpoint = tmp_path / "c"
    with mock(*UNLIMITED, "--latency", "0.1") as url:
        done: list[dict[str, Any]] = []
        settings: dict[str, Any] = {"base_url": url, "api_key": KEY, "tier": "tier-5", "concurrency": in_flight}
        dataset = infer(rows, checkpoint=checkpoint, batch_size=50, **settings)
        job = threading.Thread(target=lambda: done.extend(dataset.take_all()))
        job.start()
        until(lambda: checkpoint.exists() and lines_in(checkpoint) > count / 4)
        lanes = msgspec.msgpack.decode(
            ray.get(ray.get_actor(NAME, NAME).peek.remote(), timeout=10), type=list[LaneSeen]
        )
        os.kill(workers_in(checkpoint)[0], signal.SIGKILL)
        assert lines_in(checkpoint) < count
        job.join(120)
        counts = statistics(url)
    assert sorted(row["n"] for row in done) == list(range(count))
    assert [content(row) for row in done] == [f"what is row-{row['n']}?" for row in done]
    assert counts["statuses"]["200"] <= count + in_flight
    assert len(workers_in(checkpoint)) == 3
    # Both had leases from one place while both lived; what is left of those of earlier tests is nobody's.
    assert [len(lane.holders) for lane in lanes if lane.holders] == [2]
    assert counts["refused"] == {}


def test_a_killed_driver_costs_what_was_in_flight_and_no_row(ray: Any, tmp_path: Path) -> None:
    count = 300
    expected = write_requests(tmp_path / "requests.jsonl", count)
    checkpoint = tmp_path / "c"
    address = ray.get_runtime_context().gcs_address
    places = ["requests.jsonl", "results", "--checkpoint", "c"]
    command = [sys.executable, str(EXAMPLE), *places, "--address", address, "--workers", "1"]
    with mock(*UNLIMITED, "--latency", "0.1") as url:
        settings = {**environment(url), "RATELIMIT_TIER": "tier-5", "RATELIMIT_CONCURRENCY": "16"}
        with subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            until(lambda: checkpoint.exists() and lines_in(checkpoint) > count / 4)
            driver.kill()
        assert lines_in(checkpoint) < count
        subprocess.run(command, env=settings, check=True, capture_output=True)
        counts = statistics(url)
    answered = ray.data.read_parquet(str(tmp_path / "results")).take_all()
    assert sorted(map(content, answered)) == sorted(expected.values())
    assert counts["statuses"]["200"] <= count + 16


def test_what_carries_the_settings_shows_no_key() -> None:
    luggage = Luggage(load_settings(api_key=KEY, tier="tier-2"))
    assert repr(luggage) == "<Luggage: the settings of a worker>"
    assert pickle.loads(pickle.dumps(luggage)).settings == luggage.settings
    assert luggage.settings.api_key == Secret(KEY)
