"""A disk that fails in mid-run and can only be read from then on, for real: ext4 on a loop device, aborted under a run.

What had not been synced by then is gone once it is mounted again, as after a power cut.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batching import Batching, batches
from checking import check, lines
from killing import RATELIMIT, environment, mock, write_requests

from ratelimit.errors import OutputFailed
from ratelimit.jobs.job import Watcher
from ratelimit.testing.mock import MockServer

ROWS = 60
AT_ONCE = 8


@dataclass
class Disk:
    """A disk of its own."""

    image: Path
    path: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.path)], check=True, capture_output=True)

    def keep(self) -> None:
        """Have what is there now be there after a failure."""
        subprocess.run(["sync", "-f", str(self.path)], check=True)

    def fail(self) -> None:
        """Become read-only under those who write."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.path)], check=True)

    def mend(self) -> None:
        """Check the disk and mount it again: whoever still had a file of it open would be in the way."""
        subprocess.run(["umount", str(self.path)], check=True)
        checked = subprocess.run(["fsck.ext4", "-fp", str(self.image)], capture_output=True, check=False)
        assert checked.returncode <= 1, checked.stdout  # 1: it was mended
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk.img", tmp_path / "disk")
    made.path.mkdir()
    with made.image.open("wb") as image:
        image.truncate(8 * 1024 * 1024)
    try:
        subprocess.run(["mkfs.ext4", "-qF", str(made.image)], check=True, capture_output=True)
        made.mount()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount an ext4 of its own, where there are loop devices")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(made.path)], check=False, capture_output=True)


def begin(requests: Path, output: Path, url: str, state: Path) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    command = [*RATELIMIT, "run", str(requests), "-o", str(output), "--no-progress", "--concurrency", str(AT_ONCE)]
    variables = environment(url) | {"XDG_STATE_HOME": str(state)}
    return subprocess.Popen([*command, "--tier", "tier-5"], env=variables, stderr=subprocess.PIPE, text=True)


def why(path: Path) -> str:
    """What is said of a file that cannot be written any more."""
    return (
        f"writing {path} failed: Read-only file system; make room or choose another place, then run again: every line "
        "that was written is whole"
    )


def until_answered(run: subprocess.Popen[str], output: Path) -> None:
    """Wait for the first answers, and stop there if there will be none."""
    while not output.exists() or output.read_bytes().count(b"\n") < 2 * AT_ONCE:
        assert run.poll() is None
        time.sleep(0.005)


def test_results_on_a_disk_that_turns_read_only(disk: Disk, tmp_path: Path) -> None:
    """Paid for twice is at most what was in flight, and what the disk had not kept."""
    expected = write_requests(tmp_path / "requests.jsonl", ROWS)
    output, log = disk.path / "results.jsonl", tmp_path / "served.jsonl"
    with mock("--tier", "tier-5", "--latency", "0.05", "--log", str(log)) as url:
        run = begin(tmp_path / "requests.jsonl", output, url, tmp_path)
        until_answered(run, output)
        disk.fail()
        _, said = run.communicate()
        assert run.returncode == 3, said
        answered, *_, stopped = said.splitlines()
        assert answered.startswith("answered ")
        assert stopped in {f"stopped  {why(disk.path / name)}" for name in ("results.jsonl", "results.journal.jsonl")}
        written = len(lines(output))
        assert 2 * AT_ONCE <= written < ROWS
        disk.mend()
        kept = output.read_bytes().count(b"\n")
        again = begin(tmp_path / "requests.jsonl", output, url, tmp_path)
        _, said_again = again.communicate()
    twice = AT_ONCE + written - kept
    check(output, expected, exit_code=again.returncode, log=log, paid_twice=twice, printed=[said, said_again])


def test_shared_limits_on_a_disk_that_turns_read_only(disk: Disk, tmp_path: Path) -> None:
    """They are as good as away, and results lie elsewhere: the run goes on without."""
    expected = write_requests(tmp_path / "requests.jsonl", ROWS)
    output, log = tmp_path / "results.jsonl", tmp_path / "served.jsonl"
    with mock("--tier", "tier-5", "--latency", "0.05", "--log", str(log)) as url:
        run = begin(tmp_path / "requests.jsonl", output, url, disk.path)
        until_answered(run, output)
        disk.fail()
        _, said = run.communicate()
    assert run.returncode == 0, said
    warned = [line.partition(" warning ")[2] for line in said.splitlines() if " warning " in line]
    away = "the store that shares gpt-4o-mini tier-5 does not answer: 100% of each limit is used until it is back"
    assert warned == [f"gpt-4o-mini: {away}"]
    check(output, expected, log=log, printed=[said])
    disk.mend()


class AfterSomeAnswers(Watcher):
    """Has a disk fail once a run has so many answers."""

    def __init__(self, disk: Disk, answers: int) -> None:
        self._disk, self._answers = disk, answers

    async def watch(self, run: Any, client: Any) -> None:
        while run.tally.answers < self._answers:  # noqa: ASYNC110 - nothing tells of answers but the count
            await asyncio.sleep(0.1)
        self._disk.fail()


@pytest.mark.parametrize("answers", [0, 1])
async def test_batches_on_a_disk_that_turns_read_only(disk: Disk, tmp_path: Path, answers: int) -> None:
    """At the beginning, or while some are collected and others under way: nothing is executed twice."""
    place = Batching(tmp_path / "disk" / "job")
    place.path.mkdir(mode=0o700)
    place.ask_for(ROWS, words=25)
    async with MockServer(echo=True, batch_queue=1_000) as server:
        table = place.queue_of(1_000)
        disk.keep()
        try:
            summary = await place.batch(server, watcher=AfterSomeAnswers(disk, answers), tiers_file=table)
            stopped = summary.exit_code, summary.stopped
        except OutputFailed as failed:
            stopped = failed.exit_code, str(failed)
        # Rows are put on the disk before any is enqueued; later, what has become of a batch.
        assert stopped == (3, why(place.output.with_name("results.batches.jsonl") if answers else place.path))
        disk.mend()
        again = await place.batch(server, tiers_file=table)
        assert sum(each["request_counts"]["completed"] for each in batches(server)) == ROWS
    assert (again.exit_code, again.left) == (0, 0)
    place.expect_everything(ROWS, words=25)
