"""A job in real processes: a mock that logs what it serves, runs that are killed, and what is left of them.

Answers are checked against their questions (the mock echoes), every line of every file must be whole, and what each
continued run calls possibly billed is compared with what the mock had served until then.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

RATELIMIT = [sys.executable, "-m", "ratelimit"]
DOUBT = re.compile(
    r"^([\d,]+) requests? w(?:as|ere) in flight when the last run ended; they may have been billed", re.MULTILINE
)

_LAST = 120.0  # seconds; more than what is left takes, when nothing is killed any more


@dataclass
class Outcome:
    """What came of a job that was killed over and over."""

    rows: int
    kills: int = 0
    answered: int = 0
    wrong: int = 0
    sent: int = 0
    sent_twice: int = 0
    served_twice: int = 0
    in_flight_at_kills: int = 0
    most_in_flight: int = 0
    unreported: list[str] = field(default_factory=list)  # served, not in the file, and not said to be in doubt
    miscounted: list[str] = field(default_factory=list)  # what was said, where it was another number
    seconds: float = 0.0


@contextmanager
def mock(*options: str) -> Iterator[str]:
    """A mock that echoes in a process of its own; yields its base URL."""
    command = [*RATELIMIT, "mock", "--port", "0", "--echo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        greeting = server.stdout.readline()
        threading.Thread(target=server.stdout.read, daemon=True).start()
        try:
            yield re.findall(r"http://[^ ,]+", greeting)[0]
        finally:
            server.terminate()


def write_requests(path: Path, count: int, **more: Any) -> dict[str, str]:
    """Write a job; returns the answer that each id is to get."""
    answers = {f"row-{number}": f"what is {number}?" for number in range(count)}
    with path.open("w", encoding="utf-8") as file:
        for identifier, text in answers.items():
            message = {"role": "user", "content": text}
            body = {"model": "gpt-4o-mini", "messages": [message], "metadata": {"custom_id": identifier}, **more}
            line = {"custom_id": identifier, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return answers


def environment(url: str) -> dict[str, str]:
    """Where the service is, and a key."""
    return {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-test"}


def statistics(url: str) -> Any:
    """What the mock has counted."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_mock/stats") as reply:
        return json.load(reply)


def records(path: Path) -> list[Any]:
    """What the whole lines of a file hold."""
    whole = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in whole[: whole.rfind(b"\n") + 1].split(b"\n")[:-1]]


def answers_in(path: Path) -> list[tuple[str, str]]:
    """Each id and its answer, in the order of the file."""
    return [
        (record["custom_id"], record["response"]["body"]["choices"][0]["message"]["content"])
        for record in records(path)
    ]


def in_doubt(journal: Path, known: set[str]) -> set[str]:
    """What a journal says was sent, less what is known: read in a way of this file's own."""
    return {entry["sent"] for entry in records(journal) if "sent" in entry} - known


def kill_over_and_over(
    place: Path, *, rows: int, kills: int, within: tuple[float, float], seed: int, minutes: float = inf
) -> Outcome:
    """Run a job, kill it so many times, or for so long, let it end, and look at what is there."""
    began, chance, outcome = time.monotonic(), random.Random(seed), Outcome(rows)
    requests, output, log = place / "requests.jsonl", place / "results.jsonl", place / "served.jsonl"
    journal = place / "results.journal.jsonl"
    expected = write_requests(requests, rows)
    command = [*RATELIMIT, "run", str(requests), "-o", str(output), "--tier", "tier-5", "--concurrency", "48"]
    with mock("--tier", "tier-5", "--latency", "0.02-0.2", "--log", str(log)) as url:
        doubtful: set[str] = set()
        while True:
            last = outcome.kills == kills or time.monotonic() - began > minutes * 60
            size = _size(journal)
            run = subprocess.Popen([*command, "--no-progress"], env=environment(url), stderr=subprocess.PIPE, text=True)
            if last:
                _, said = run.communicate(timeout=_LAST)
                assert run.returncode == 0, said
            else:
                _wait_until_it_sends(run, journal, size)
                time.sleep(chance.uniform(*within))
                run.kill()
                _, said = run.communicate()
            _compare(said, doubtful, outcome)
            if last:
                break
            outcome.kills += 1
            while statistics(url)["in_flight"]:
                time.sleep(0.005)
            done = {identifier for identifier, _ in answers_in(output)}
            doubtful = in_doubt(journal, done)
            served = {record["custom_id"] for record in records(log) if record["status"] == 200}
            outcome.unreported += sorted(served - done - doubtful)
            outcome.in_flight_at_kills += len(doubtful)
            outcome.most_in_flight = max(outcome.most_in_flight, len(doubtful))
    found = answers_in(output)
    outcome.answered = len(found)
    outcome.wrong = sum(expected.get(identifier) != answer for identifier, answer in found)
    outcome.wrong += len(expected) - len({identifier for identifier, _ in found})
    arrived = Counter(record["custom_id"] for record in records(log))
    outcome.sent = arrived.total()
    outcome.sent_twice = outcome.sent - len(arrived)
    outcome.served_twice = sum(record["status"] == 200 for record in records(log)) - rows
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def kill_batches_over_and_over(place: Path, *, rows: int, kills: int, seed: int, minutes: float = inf) -> Outcome:
    """Do the same to a job that goes through the Batch API, where what has been executed is paid for."""
    began, chance, outcome = time.monotonic(), random.Random(seed), Outcome(rows)
    requests, output = place / "requests.jsonl", place / "results.jsonl"
    expected = write_requests(requests, rows)
    command = [*RATELIMIT, "run", str(requests), "-o", str(output), "--tier", "tier-1", "--via", "batch", "--quiet"]
    service = ["--tier", "tier-1", "--batch-speed", "20", "--batch-delay", "0.3", "--batch-queue", "2000"]
    table = place / "tiers.toml"
    table.write_text("[models.gpt-4o-mini.tiers.tier-1]\nrpm = 500\ntpm = 200000\nbatch_queue = 2000\n")
    with mock(*service) as url:
        while True:
            last = outcome.kills == kills or time.monotonic() - began > minutes * 60
            run = subprocess.Popen([*command, "--tiers-file", str(table)], env=environment(url))
            if last:
                run.wait(_LAST + rows / 20)  # what a batch at this speed takes for all of them
            with suppress(subprocess.TimeoutExpired):
                run.wait(chance.uniform(0.3, 3.5))
            if run.poll() is not None:
                assert run.returncode == 0
                break
            run.kill()
            run.wait()
            outcome.kills += 1
        outcome.sent = sum(batch["request_counts"]["completed"] for batch in batches(url))
    found = answers_in(output)
    outcome.answered = len(found)
    outcome.wrong = sum(expected.get(identifier) != answer for identifier, answer in found)
    outcome.wrong += len(expected) - len({identifier for identifier, _ in found})
    outcome.sent_twice = outcome.served_twice = outcome.sent - rows
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def kill_three_over_and_over(place: Path, *, rows: int, kills: int, seed: int, minutes: float = inf) -> Outcome:
    """Do the same to three jobs that share one key and one lane; each has files of its own."""
    began, chance, outcome = time.monotonic(), random.Random(seed), Outcome(3 * rows)
    log, names = place / "served.jsonl", ("one", "two", "three")
    expected, running, sizes = {}, dict[str, subprocess.Popen[bytes]](), dict[str, int]()
    for name in names:
        (place / name).mkdir()
        expected[name] = write_requests(place / name / "requests.jsonl", rows, user=name)
    with mock("--tier", "tier-5", "--latency", "0.02-0.2", "--log", str(log)) as url:
        settings = environment(url) | {"XDG_STATE_HOME": str(place / "state"), "RATELIMIT_SHARED": "file"}

        def start(name: str) -> None:
            files = [str(place / name / "requests.jsonl"), "-o", str(place / name / "results.jsonl"), "--quiet"]
            command = [*RATELIMIT, "run", *files, "--tier", "tier-5", "--concurrency", "16"]
            sizes[name] = _size(place / name / "results.journal.jsonl")
            running[name] = subprocess.Popen(command, env=settings)

        for name in names:
            start(name)
        while outcome.kills < kills and time.monotonic() - began < minutes * 60:
            time.sleep(chance.uniform(0.1, 0.9))  # any moment is as good as another
            name = chance.choice(names)
            if running[name].poll() is None:
                running[name].kill()
                running[name].wait()
                known = {identifier for identifier, _ in answers_in(place / name / "results.jsonl")}
                outcome.in_flight_at_kills += len(in_doubt(place / name / "results.journal.jsonl", known))
                outcome.kills += 1
                start(name)
            elif all(each.poll() is not None for each in running.values()):
                break
        for each in running.values():
            assert each.wait(_LAST) == 0
        refused = statistics(url)["refused"]
        outcome.unreported = [f"refused by {limit}: {count}" for limit, count in refused.items()]
    for name in names:
        found = answers_in(place / name / "results.jsonl")
        outcome.answered += len(found)
        outcome.wrong += sum(expected[name].get(identifier) != answer for identifier, answer in found)
        outcome.wrong += rows - len({identifier for identifier, _ in found})
    outcome.sent = len(records(log))
    outcome.served_twice = sum(record["status"] == 200 for record in records(log)) - outcome.rows
    outcome.sent_twice = outcome.sent - outcome.rows
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _wait_until_it_sends(run: subprocess.Popen[Any], journal: Path, size: int) -> None:
    """Wait until a journal tells of a request beyond what it did: only a run that sends can lose anything."""
    while run.poll() is None and (_size(journal) <= size or b'"sent"' not in journal.read_bytes()[size:]):
        time.sleep(0.005)


def batches(url: str) -> list[Any]:
    """Every batch the mock has."""
    found: list[Any] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        asked = urllib.request.Request(f"{url}/batches?limit=100{after}", headers={"Authorization": "Bearer sk-test"})
        with urllib.request.urlopen(asked) as reply:
            page = json.load(reply)
        found += page["data"]
        if not page["has_more"]:
            return found


def _compare(said: str, doubtful: set[str], outcome: Outcome) -> None:
    found = DOUBT.search(said)
    count = int(found[1].replace(",", "")) if found else 0
    if count != len(doubtful) and (found or "ended" in said or doubtful) and said:
        outcome.miscounted.append(f"{len(doubtful)} in doubt, said: {said!r}")
