"""`ratelimit run --via batch`, `status` and `cancel` as processes, some of which are killed."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from killing import RATELIMIT, answers_in, batches, environment, mock, write_requests

from ratelimit.jobs.batches.ledger import ledger_path


def command(url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RATELIMIT, *map(str, arguments)], env=environment(url), capture_output=True, text=True, check=False
    )


def _named(output: Path) -> bool:
    """Whether the ledger has the name of a batch."""
    return ledger_path(output).exists() and b'"batch_' in ledger_path(output).read_bytes()


def test_killed_runs_lose_nothing_and_enqueue_nothing_twice(tmp_path: Path) -> None:
    requests, output = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    expected, chance = write_requests(requests, 80), random.Random(3)
    tiers = tmp_path / "tiers.toml"
    tiers.write_text("[models.gpt-4o-mini.tiers.tier-1]\nrpm = 500\ntpm = 200000\nbatch_queue = 800\n")
    run = [*RATELIMIT, "run", str(requests), "-o", str(output), "--via", "batch", "--tiers-file", str(tiers)]
    with mock("--tier", "tier-1", "--batch-speed", "40", "--batch-delay", "0.05") as url:
        for _ in range(3):
            process = subprocess.Popen(run, env=environment(url), stderr=subprocess.DEVNULL)
            # From when on there is something to lose.
            while not ledger_path(output).exists() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 2.0))  # any moment is as good as another
            process.kill()
            process.wait()
        status = command(url, "status", output, "--offline")
        assert status.returncode == 0, status.stderr
        done = subprocess.run(run, env=environment(url), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        listed = command(url, "status", output)
    assert sorted(answers_in(output)) == sorted(expected.items())
    assert listed.stdout.splitlines()[-1].startswith("0 batches under way; over: ")


def test_status_and_cancel(tmp_path: Path) -> None:
    requests, output = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    write_requests(requests, 50)
    with mock("--tier", "tier-1", "--batch-speed", "1") as url:
        run = [*RATELIMIT, "run", str(requests), "-o", str(output), "--via", "batch", "--json", "--dashboard"]
        with subprocess.Popen(
            run, env=environment(url), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while not (any(each["status"] == "in_progress" for each in batches(url)) and _named(output)):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate()
        assert process.returncode == 130
        assert re.match(r"dashboard http://127\.0\.0\.1:\d+/$", said.splitlines()[0])
        assert json.loads(printed)["stopped"] == "the run was interrupted; the same command continues it"
        status = command(url, "status", output)
        head, row, tokens, last = status.stdout.splitlines()
        assert head.split() == ["batch", "model", "status", "done", "failed", "of", "tokens", "age"]
        assert re.fullmatch(r"batch_0+1 +gpt-4o-mini +in_progress +\d+ +0 +50 +[\d,]+ +[\d.]+ s *", row)
        assert re.fullmatch(r"gpt-4o-mini: [\d,]+ input tokens enqueued of 2,000,000", tokens)
        assert last == "1 batch under way; over: none; 0 rows came back"
        live = command(url, "run", requests, "-o", output)
        assert (live.returncode, live.stderr) == (
            2,
            (
                f"ratelimit: {output} has 1 batch under way, whose answers will be charged; run it with --via batch to "
                f"collect them, or end them first with: ratelimit cancel {output}\n"
            ),
        )
        cancelled = command(url, "cancel", output)
        assert cancelled.returncode == 0, cancelled.stderr
        paid = len(answers_in(output))
        assert 0 < paid < 50
        after = command(url, "status", output)
        assert after.stdout == f"0 batches under way; over: 1 cancelled; {paid} row{'s' * (paid != 1)} came back\n"


def test_what_does_not_go_with_batches(tmp_path: Path) -> None:
    requests, output = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    write_requests(requests, 1)
    url = "http://127.0.0.1:9/v1"
    refused = command(url, "run", requests, "-o", output, "--via", "batch", "--max-cost", "1")
    assert (refused.returncode, refused.stderr) == (
        2,
        "ratelimit: --max-cost goes with --via live; see ratelimit run --help\n",
    )
    piped = command(url, "run", requests, "-o", "-", "--via", "batch")
    assert (piped.returncode, piped.stderr) == (
        2,
        "ratelimit: cannot use standard output: batches are found again by files beside it; name a file\n",
    )
    unknown = command(url, "status", output)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        (
            f"ratelimit: cannot use {output}: no batch was ever created for it; name the output of a run with --via "
            f"batch\n"
        ),
    )


def interrupted(url: str, words: list[str], by: signal.Signals, ledger: Path, once: bytes) -> int:
    """Run a command and send it a signal once something stands in the ledger; returns how it ended."""
    with subprocess.Popen([*RATELIMIT, *words], env=environment(url), stderr=subprocess.DEVNULL) as process:
        while not ledger.exists() or once not in ledger.read_bytes():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(by)
    return process.returncode


def test_both_routes_killed_and_continued(tmp_path: Path) -> None:
    """With a deadline this near everything goes live, but what an earlier run has enqueued: that is recalled first."""
    requests, output = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    expected = write_requests(requests, 60)
    with mock("--tier", "tier-1", "--batch-speed", "1", "--latency", "0.2") as url:
        by_batch = ["run", str(requests), "-o", str(output), "--via", "batch", "--quiet"]
        assert interrupted(url, by_batch, signal.SIGINT, ledger_path(output), b'"batch":') == 130
        unnamed = command(url, "run", requests, "-o", output, "--via", "auto")
        assert (unnamed.returncode, unnamed.stderr) == (
            2,
            (
                "ratelimit: --via auto needs --deadline: it is what decides which way a request goes; "
                "see ratelimit run --help\n"
            ),
        )
        run = ["run", str(requests), "-o", str(output), "--via", "auto", "--deadline", "1min"]
        assert interrupted(url, run, signal.SIGKILL, ledger_path(output), b'"recalled":true') == -signal.SIGKILL
        done = command(url, *run, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        status = command(url, "status", output)
    summary = json.loads(done.stdout)
    assert summary["left"] == 0
    assert sorted(answers_in(output)) == sorted(expected.items())
    assert status.stdout.startswith("0 batches under way; over: ")
