"""Give every peer the same jobs, each against a mock server of its own, and set what came of it side by side.

Peers of one scenario run at the same time, a few at once, so that a busy machine is busy for all. Each lives in a
virtual environment under `.bench-envs`, made on first use; one that cannot be installed or run is reported and has no
row.

    python -m bench peers [--quick] [--scenario NAME] [--peer NAME] [--at-once 9]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from bench import envs
from bench.peers.scenarios import LATENCY, MODEL, TIER, Scenario, body, scenarios
from bench.record import Progress, Record, concluded, machine, parser_of, place, versions
from bench.server import serving

_COLUMNS = (
    "scenario",
    "peer",
    "bound_to_wall",
    "refused_per_1000",
    "lost",
    "sent_twice",
    "cpu_ms_per_1000",
    "rss_mb",
    "behind",
)
_GRACE = 60.0
# Two utilisations closer than this are equal: answers are drawn at random.
TARGETS = {"behind": "<= 0.01", "more_refused": "<= 0", "not_once": "<= 0"}


@dataclass(frozen=True, slots=True)
class Peer:
    """What people use, and what to install for it; nothing for what is installed here."""

    name: str
    module: str
    packages: tuple[str, ...] = ()
    env: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment, made on first use; raises `CannotInstall`."""
        return envs.python_of(self.env, self.packages) if self.env else Path(sys.executable)


PEERS = (
    Peer("ratelimit", "ours"),
    Peer("official SDK", "sdk", ("openai",), "sdk"),
    Peer("aiolimiter, tenacity, aiohttp", "byhand", ("aiohttp", "aiolimiter", "tenacity"), "aiolimiter"),
    Peer("cookbook algorithm", "cookbook", ("aiohttp",), "cookbook"),
    Peer("LiteLLM Router", "litellm", ("litellm",), "litellm"),
    Peer("LangChain", "langchain", ("langchain-core", "langchain-openai"), "langchain"),
    Peer("lm-deluge", "deluge", ("lm-deluge",), "lm-deluge"),
    Peer("async-batch-llm", "asyncbatch", ("async-batch-llm[openai]",), "async-batch-llm"),
    Peer("bespokelabs-curator", "curator", ("bespokelabs-curator",), "curator"),
    Peer("token-throttle", "throttle", ("token-throttle", "openai"), "token-throttle"),
)


class Rival:
    """Another program on the same key, at even distances, on a thread of its own; it counts what it took and missed."""

    def __init__(self, base_url: str, rpm: float) -> None:
        self.answered = 0
        self.refused = 0
        self._url = f"{base_url}/chat/completions"
        self._pause = 60 / rpm if rpm else 0.0
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._pause:
            self._clock.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._pause:
            self._clock.join()
        self._pool.shutdown(wait=True)

    def _tick(self) -> None:
        while not self._stop.wait(self._pause):
            self._pool.submit(self._send)

    def _send(self) -> None:
        headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
        asked = urllib.request.Request(self._url, json.dumps(body(10)).encode(), headers)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(asked, timeout=30) as reply:  # noqa: S310 - loopback
                reply.read()
            self.answered += 1
        except urllib.error.HTTPError:
            self.refused += 1


def play(peer: Peer, scenario: Scenario, start: threading.Barrier) -> dict[str, Any]:
    """Give one peer one job, as soon as all that run beside it are ready."""
    options = ["--tier", TIER, "--model", MODEL, "--latency", LATENCY, "--output-tokens", "16-64"]
    options += ["--rpm", str(scenario.rpm), "--tpm", str(scenario.tpm), *scenario.server]
    with tempfile.TemporaryDirectory() as folder, serving(options) as mock:
        job = Path(folder) / "job.jsonl"
        job.write_text("".join(json.dumps(each) + "\n" for each in scenario.bodies), encoding="utf-8")
        command = [str(peer.python), "-m", f"bench.peers.clients.{peer.module}", str(job)]
        command += ["--base-url", mock.base_url, "--rpm", str(scenario.rpm), "--tpm", str(scenario.tpm)]
        command += ["--deadline", str(scenario.deadline)]
        pipe = subprocess.PIPE
        client = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=envs.ROOT)
        assert client.stdout is not None
        client.stdout.readline()  # it is ready, or it has ended
        start.wait()
        with Rival(mock.base_url, scenario.rival_rpm) as rival:
            try:
                said, errors = client.communicate("go\n", timeout=scenario.deadline + _GRACE)
            except subprocess.TimeoutExpired:
                client.kill()
                said, errors = client.communicate()
        stats = mock.stats()
    try:
        report = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        return {"scenario": scenario.name, "peer": peer.name, "skipped": errors.strip()[-300:] or "no report"}
    if report["crash"] and not report["answered"]:
        return {"scenario": scenario.name, "peer": peer.name, "skipped": report["crash"]}
    return row(peer, scenario, report, stats, rival)


def beside(peers: Sequence[Peer], scenario: Scenario) -> Iterator[dict[str, Any]]:
    """Run some peers at the same time."""
    start = threading.Barrier(len(peers))
    with ThreadPoolExecutor(len(peers)) as pool:
        yield from pool.map(lambda peer: play(peer, scenario, start), peers)


def row(peer: Peer, scenario: Scenario, report: dict[str, Any], stats: dict[str, Any], rival: Rival) -> dict[str, Any]:
    """Return what became of a job, as a row of the table.

    What has not been answered when time is up is unfinished; the bound is then that of what was answered in time.
    """
    many, answered = len(scenario.bodies), report["answered"]
    refused = sum(stats["refused"].values()) - rival.refused
    good = stats["statuses"].get("200", 0) - rival.answered
    bound = scenario.bound if report["in_time"] else scenario.bound * answered / many
    return {
        "scenario": scenario.name,
        "what": scenario.what,
        "peer": peer.name,
        "requests": many,
        "bound": round(scenario.bound, 1),
        "wall": round(report["wall"], 1),
        "bound_to_wall": round(bound / report["wall"], 3) if report["wall"] else 0.0,
        "refused_per_1000": round(refused / many * 1000, 1),
        "lost": sum(report["errors"].values()),
        "unfinished": 0 if report["in_time"] else many - answered - sum(report["errors"].values()),
        "sent_twice": max(good - answered, 0) if report["in_time"] else 0,
        "cpu_ms_per_1000": round(report["cpu"] / max(answered, 1) * 1e6),
        "rss_mb": round(report["rss_mb"]),
        "errors": report["errors"],
    }


def judge(rows: list[dict[str, Any]]) -> None:
    """Say in our rows how far we are behind the best that lost nothing, and how much more refused than the least.

    No other row has these figures, so none but ours is judged.
    """
    for mine in rows:
        if mine["peer"] != "ratelimit" or "skipped" in mine:
            continue
        others = [each for each in rows if each["scenario"] == mine["scenario"] and each is not mine]
        others = [each for each in others if "skipped" not in each]
        whole = [each for each in others if not each["lost"] and not each["unfinished"]]
        best = max((each["bound_to_wall"] for each in whole), default=0.0)
        least = min((each["refused_per_1000"] for each in others), default=math.inf)
        mine["behind"] = round(max(best - mine["bound_to_wall"], 0.0), 3)
        mine["more_refused"] = round(max(mine["refused_per_1000"] - least, 0.0), 1)
        mine["not_once"] = mine["lost"] + mine["unfinished"] + mine["sent_twice"]


def chosen(options: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios asked for."""
    found = [each for each in scenarios(options.seed) if not options.scenario or each.name in options.scenario]
    if options.quick:
        found = [replace(each, deadline=30.0) for each in found if each.name == "short"]
    return found


def measure(options: argparse.Namespace, peers: Sequence[Peer]) -> Record:
    """Install what is to be compared, run it, and judge."""
    notes, usable, found = [], [], versions("aiohttp", "aiolimiter", "tenacity")
    for peer in peers:
        try:
            known = envs.versions_of(peer.python, peer.packages)
        except (envs.CannotInstall, OSError, subprocess.CalledProcessError) as why:
            notes.append(f"{peer.name} is left out: {why}")
            sys.stderr.write(notes[-1] + "\n")
        else:
            usable.append(peer)
            found |= {f"{name} ({peer.name})": number for name, number in known.items()}
    wanted = chosen(options)
    progress, rows = Progress(len(wanted) * len(usable)), list[dict[str, Any]]()
    before = machine()
    for scenario in wanted:
        for first in range(0, len(usable), options.at_once):
            for result in beside(usable[first : first + options.at_once], scenario):
                rows.append(result)
                progress.say(f"{scenario.name}: {result['peer']} {result.get('bound_to_wall', result.get('skipped'))}")
    judge(rows)
    failed = [f"{row['peer']} could not run {row['scenario']}: {row['skipped']}" for row in rows if "skipped" in row]
    rows = [row for row in rows if "skipped" not in row]
    return Record(
        bench="peers",
        rows=rows,
        targets=TARGETS,
        command=" ".join(["python -m bench peers", *(["--quick"] if options.quick else [])]),
        seed=options.seed,
        notes=[*notes, *failed],
        machine={**before, "load_average_after": machine()["load_average"]},
        versions=found,
    )


def main(arguments: list[str]) -> int:
    """Run, print, keep, and judge."""
    parser = parser_of("peers", __doc__, "the short job only")
    parser.add_argument("--scenario", action="append", choices=[each.name for each in scenarios()])
    parser.add_argument("--peer", action="append", choices=[each.module for each in PEERS])
    parser.add_argument("--at-once", type=int, default=9, help="peers that run at the same time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    peers = [each for each in PEERS if not options.peer or each.module in options.peer]
    record = measure(options, peers)
    part = options.scenario or options.peer
    return concluded(record, place(options, "peers", partial=bool(part)), _COLUMNS)
