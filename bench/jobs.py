"""What a job costs its client: memory, processor time for each request, the start of a resumed run, and use of limits.

The client is `ratelimit run` in a process of its own, the service the mock in another, on one machine. Processor time
is that of the client's process alone, less that of a run of one row, and is compared with a bare aiohttp loop that
posts the same bodies, as many at once, and reads the replies. Memory is sampled while the job runs. `--real` adds two
jobs of two minutes, one bound by requests a minute and one by tokens, and compares their time with the least that the
limits allow.

    python -m bench jobs [--quick] [--rows 20000] [--real]

Ends with 1 where a target is missed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.record import Progress, Record, concluded, machine, parser_of, place, versions
from bench.server import serving

TARGETS = {"peak_mb": "<= 200", "growth": "<= 1.1", "resume_s": "<= 10", "to_bare": ">= 0.7", "fluid": ">= 0.98"}
RATELIMIT = [sys.executable, "-m", "ratelimit"]
IN_FLIGHT = 100
UNLIMITED = ["--rpm", "100000000", "--tpm", "1000000000000"]
BARE = """
import asyncio, json, sys
import aiohttp

async def main(url, path, in_flight):
    rows = open(path, "rb")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as http:
        async def work():
            for line in rows:
                body = json.dumps(json.loads(line)["body"]).encode()
                async with http.post(url + "/chat/completions", data=body,
                                     headers={"Content-Type": "application/json"}) as reply:
                    json.loads(await reply.read())
        await asyncio.gather(*(work() for _ in range(in_flight)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def write(path: Path, rows: int, size: int = 500, **more: Any) -> None:
    """Write a job of so many lines of about so many bytes."""
    text = "word " * ((size - 130) // 5)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}
            outer = {"custom_id": f"row-{number:08}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(outer) + "\n")


@contextmanager
def mock(*options: str) -> Iterator[str]:
    """The mock in a process of its own; yields its base URL."""
    with serving(["--output-tokens", "20", "--seed", "1", *options]) as server:
        yield server.base_url


def run(url: str, place: Path, output: str, *options: str) -> dict[str, Any]:
    """Run a job; returns its summary, its processor time, and its memory as (part of the rows answered, megabytes)."""
    command = [*RATELIMIT, "run", "r.jsonl", "-o", output, "--quiet", "--json", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    client = subprocess.Popen(
        command,
        cwd=place,
        env={**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-bench"},
        stdout=subprocess.PIPE,
        text=True,
    )
    memory, first_sent = [], None
    journal = place / output.replace(".jsonl", ".journal.jsonl")
    size = journal.stat().st_size if journal.exists() else 0
    while client.poll() is None:
        if first_sent is None and journal.exists() and journal.stat().st_size > size + 400:
            first_sent = time.monotonic() - started
        try:
            pages = int(Path(f"/proc/{client.pid}/statm").read_text(encoding="ascii").split()[1])
            memory.append(((place / output).stat().st_size, pages * resource.getpagesize() / 2**20))
        except (OSError, IndexError):
            pass
        time.sleep(0.05)
    assert client.stdout is not None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = (place / output).stat().st_size
    return {
        "summary": json.loads(client.stdout.read()),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": [(size / written, megabytes) for size, megabytes in memory],
        "first_sent": first_sent,
    }


def bare(url: str, path: Path) -> float:
    """Return the processor time of a bare loop over the same rows."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", BARE, url, str(path), str(IN_FLIGHT)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plain(rows: int) -> dict[str, Any]:
    """Measure memory, processor time and resuming, with nothing in the way."""
    with tempfile.TemporaryDirectory() as name, mock(*UNLIMITED, "--rpd", "100000000") as url:
        place = Path(name)
        options = [*UNLIMITED, "--rpd", "100000000", "--concurrency", str(IN_FLIGHT)]
        write(place / "r.jsonl", 1)
        start = run(url, place, "one.jsonl", *options)["cpu"]
        start_bare = bare(url, place / "r.jsonl")
        write(place / "r.jsonl", rows)
        ours = run(url, place, "o.jsonl", *options)
        theirs = bare(url, place / "r.jsonl")
        assert ours["summary"]["answered"] == rows
        for output in ("o.jsonl", "o.journal.jsonl"):  # as if killed when 99 % was done
            lines = (place / output).read_bytes().splitlines(keepends=True)
            (place / output).write_bytes(b"".join(lines[: rows * 99 // 100]))
        resumed = run(url, place, "o.jsonl", *options)
        assert resumed["summary"]["answered"] >= rows // 100
    early = max(megabytes for part, megabytes in ours["memory"] if part <= 0.1)
    peak = max(megabytes for _, megabytes in ours["memory"])
    each, each_bare = (ours["cpu"] - start) / rows, (theirs - start_bare) / rows
    return {
        "what": "no limit in the way",
        "rows": rows,
        "seconds": round(ours["summary"]["seconds"], 1),
        "peak_mb": round(peak, 1),
        "growth": round(peak / early, 3),
        "resume_s": None if resumed["first_sent"] is None else round(resumed["first_sent"], 2),
        "cpu_us": round(each * 1e6),
        "cpu_us_bare": round(each_bare * 1e6),
        "to_bare": round(each_bare / each, 3),
    }


def real(kind: str) -> dict[str, Any]:
    """Measure a job of two minutes that one limit binds: the least time the limits allow, by the time it took."""
    with tempfile.TemporaryDirectory() as name, mock("--tier", "tier-1", "--latency", "0.3") as url:
        place = Path(name)
        if kind == "RPM":
            rows, size, limit, each = 1500, 200, 500, 1
            write(place / "r.jsonl", rows, size)
        else:
            rows, size, limit = 240, 10_000, 200_000
            write(place / "r.jsonl", rows, size)
        done = run(url, place, "o.jsonl", "--tier", "tier-1")
        with urlopen(url.removesuffix("/v1") + "/_mock/stats") as reply:  # noqa: S310 - our own mock
            tokens = json.load(reply)["tokens"]
    need = rows * each if kind == "RPM" else tokens
    least = (need - limit) / limit * 60
    seconds = done["summary"]["seconds"]
    return {
        "what": f"bound by {kind}",
        "rows": rows,
        "least_s": round(least, 2),
        "seconds": round(seconds, 2),
        "refused": done["summary"]["refused"],
        "fluid": round(least / seconds, 4),
    }


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    options = parser_of("jobs", __doc__, "2,000 rows")
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--real", action="store_true", help="also the two jobs of two minutes")
    given = options.parse_args(arguments)
    before, rows = machine(), 2_000 if given.quick else given.rows
    kinds = ("RPM", "TPM") if given.real else ()
    progress, found = Progress(1 + len(kinds)), [plain(rows)]
    progress.say("unlimited")
    for kind in kinds:
        found.append(real(kind))
        progress.say(f"bound by {kind}")
    targets = {name: target for name, target in TARGETS.items() if given.real or name != "fluid"}
    record = Record(
        bench="jobs",
        rows=found,
        targets=targets,
        command=" ".join(["python -m bench jobs", *arguments]),
        machine=before,
        versions=versions("aiohttp", "msgspec"),
    )
    return concluded(record, place(given, "jobs"))
