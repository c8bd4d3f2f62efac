"""A job on a cluster of this machine: two workers under one key's limit, one of them killed halfway.

Five thousand rows, of which the workers would send all at once; the mock in a process of its own lets 2,400 a minute
pass, after an opening burst of as many. Once limits are kept by an actor of the cluster, once by a Redis server. When
half of the rows have been answered a worker is killed, and Ray starts another.

What is measured begins when the burst is over, and ends when nine of ten rows have been admitted: what is left then may
be the killed worker's, and is more a matter of Ray's than of the limit. From there to there, what the mock has admitted
is held against what the limit allows. Refusals are counted from the first request on.

    python -m bench ray [--quick]
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
from bench.server import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from jobbing import batch_line
from ray_cluster import cluster
from redis_server import RedisServer, missing

ROOT = Path(__file__).parents[1]
TARGETS = {"utilisation": ">= 0.95", "refused_per_1000": "<= 1", "without_one_result": "<= 0", "errors": "<= 0"}
ROWS = 5_000
RPM = 2_400
_SETTLED = 2.5  # seconds of refill that may be left when the burst is over: one is always kept back
_PATIENCE = 300.0


def played(ray: Any, store: str, rows: int, rpm: int) -> Row:
    """Return how one job went."""
    from ratelimit.ray import infer  # noqa: PLC0415 - an extra

    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = ["--tier", "tier-2", "--rpm", str(rpm), "--latency", "0.3", "--output-tokens", "16"]
        mock = stack.enter_context(serving(options))
        shared: dict[str, Any] = {}
        if store == "redis":
            shared["shared"] = stack.enter_context(RedisServer(folder)).fresh()
        asked = [{"n": number, "request": batch_line(f"row-{number}")} for number in range(rows)]
        job = infer(
            ray.data.from_items(asked),
            checkpoint=folder / "checkpoint",
            base_url=mock.base_url,
            api_key=f"sk-{store}",
            tier="tier-2",
            **shared,
        )
        answered: list[dict[str, Any]] = []
        working = threading.Thread(target=lambda: answered.extend(job.take_all()), daemon=True)
        working.start()
        until(lambda: mock.stats()["statuses"].get("200", 0) >= rows / 2)
        os.kill(next(workers(folder / "checkpoint")), signal.SIGKILL)
        working.join(_PATIENCE)
        counts = mock.stats()
    found = Counter(row["n"] for row in answered)
    steady = steadily([each["admitted"] for each in counts["timeline"]], rpm, rows)
    return {
        "store": store,
        "rows": rows,
        "rpm": rpm,
        "workers": 2,
        "killed": 1,
        "steady_s": len(steady),
        "utilisation": round(sum(steady) * 60 / rpm / max(len(steady), 1), 4),
        "refused_per_1000": round(sum(counts["refused"].values()) * 1000 / counts["admitted"], 3),
        "without_one_result": sum(found[number] != 1 for number in range(rows)),
        "errors": sum(row["error"] is not None for row in answered),
        "sent_twice": counts["admitted"] - rows,
        "took_s": round(time.monotonic() - started, 1),
    }


def steadily(admitted: list[int], rpm: int, rows: int) -> list[int]:
    """Return what was admitted in each second from the end of the burst until nine of ten rows were."""
    first = next(second for second, many in enumerate(admitted) if many)
    saved, done, steady = float(rpm), 0, list[int]()
    over = False
    for many in admitted[first:]:
        if done >= 0.9 * rows:
            break
        if over:
            steady.append(many)
        saved, done = saved + rpm / 60 - many, done + many
        over = over or saved <= _SETTLED * rpm / 60
    return steady[:-1]


def workers(checkpoint: Path) -> Iterator[int]:
    """Yield the processes that write there, as far as they live."""
    for path in checkpoint.iterdir():
        if (found := re.match(r"worker-(\d+)-", path.name)) and Path("/proc", found[1]).exists():
            yield int(found[1])


def until(true: Any) -> None:
    """Wait for something."""
    end = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("the job does not get on")
        time.sleep(0.2)


def main(arguments: list[str]) -> int:
    """Do the job with each store, print, keep, and judge."""
    options = parser_of("ray", __doc__, "a fifth of the rows and of the limit").parse_args(arguments)
    if find_spec("ray") is None:
        other = ROOT / ".venv-ray" / "bin" / "python"
        if not other.exists():
            sys.stderr.write("Ray is not installed here: make .venv-ray/ready makes an environment that has it\n")
            return 2
        return subprocess.call([str(other), "-m", "bench", "ray", *arguments], cwd=ROOT)
    before, lacking = machine(), missing()
    parts = 5 if options.quick else 1
    stores = ["actor"] if lacking else ["actor", "redis"]
    progress, rows = Progress(len(stores)), list[Row]()
    with cluster(logging_level="error", log_to_driver=False) as ray:
        for store in stores:
            rows.append(played(ray, store, ROWS // parts, RPM // parts))
            progress.say(store)
    record = Record(
        bench="ray",
        rows=rows,
        targets=TARGETS,
        command=" ".join(["python -m bench ray", *arguments]),
        notes=[f"left out what needs a Redis server: {lacking}"] if lacking else [],
        machine=before,
        versions=versions("ray", "aiohttp", "redis"),
    )
    return concluded(record, place(options, "ray"))
