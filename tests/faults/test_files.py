"""Disks that are full, files that are gone, power that is cut: nothing torn, nothing lost, one sentence, resumable."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batching import Batching, batches
from checking import check
from jobbing import Place, batch_line
from killing import RATELIMIT, environment, mock, write_requests

from ratelimit.errors import AlreadyRunning, OutputFailed
from ratelimit.jobs import lines
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Watcher
from ratelimit.jobs.journal import Journal
from ratelimit.testing.mock import MockServer

ROWS = 60
EXPECTED = {f"row-{n}": f"what is row-{n}?" for n in range(ROWS)}


class Meanwhile(Watcher):
    """Does something to a run that has ten answers."""

    def __init__(self, *commands: list[str]) -> None:
        self._commands = commands

    async def watch(self, runner: Any, client: Any) -> None:
        while runner.tally.answers < 10:  # noqa: ASYNC110 - nothing tells of answers but the count
            await asyncio.sleep(0.01)
        for command in self._commands:
            subprocess.run(command, check=True)  # noqa: ASYNC221 - the run is to find it done


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k,mode=700", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root can mount a disk of 32 KiB")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    expected = write_requests(tmp_path / "requests.jsonl", ROWS)
    output, log = small_disk / "results.jsonl", tmp_path / "served.jsonl"
    command = [*RATELIMIT, "run", str(tmp_path / "requests.jsonl"), "-o", str(output), "--quiet", "--concurrency", "8"]
    with mock("--tier", "tier-5", "--log", str(log)) as url:
        full = subprocess.run(command, env=environment(url), capture_output=True, text=True, check=False)
        assert (full.returncode, full.stderr.count("\n")) == (3, 1), full.stderr
        assert "no space left" in full.stderr.lower()
        left = check(output, expected, exit_code=3)
        assert 0 < len(left.answers) < ROWS
        resize(small_disk, "1m")
        again = subprocess.run(command, env=environment(url), capture_output=True, text=True, check=False)
    check(output, expected, exit_code=again.returncode, log=log, paid_twice=8, printed=[full.stderr, again.stderr])


@pytest.mark.parametrize("size", ["12k", "64k"])
async def test_a_disk_that_is_really_full_under_a_job_of_batches(small_disk: Path, tmp_path: Path, size: str) -> None:
    """Before the first batch is enqueued, or while batches are under way; what lies on it without a name counts too."""
    source, place = Batching(tmp_path), Batching(small_disk)
    source.ask_for(ROWS, words=25)
    table = source.queue_of(1_000)
    place.requests.symlink_to(source.requests)
    resize(small_disk, size)
    async with MockServer(echo=True, batch_queue=1_000) as server:
        try:
            summary = await place.batch(server, tiers_file=table)
            stopped = summary.exit_code, summary.stopped
        except OutputFailed as failed:
            stopped = failed.exit_code, str(failed)
        why = "No space left on device; make room or choose another place, then run again: every line that was written"
        assert stopped == (3, f"writing {small_disk} failed: {why} is whole")
        assert bool(batches(server)) == (size == "64k")
        resize(small_disk, "1m")
        again = await place.batch(server, tiers_file=table)
        assert sum(each["request_counts"]["completed"] for each in batches(server)) == ROWS
    assert (again.exit_code, again.left) == (0, 0)
    place.expect_everything(ROWS, words=25)


async def test_no_room_for_what_a_batch_has_answered(
    place: Batching, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fetched to where the system keeps temporary files, which may be another disk than that of the results."""
    place.ask_for(ROWS, words=25)
    resize(small_disk, "8k")
    async with MockServer(echo=True, batch_speed=1.0) as server:
        assert (await place.batch(server, Options(deadline=2))).exit_code == 3
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("tempfile.tempdir", str(small_disk))
            summary = await place.batch(server)
        why = "No space left on device; make room or choose another place, then run again: every line that was written"
        assert (summary.exit_code, summary.stopped) == (3, f"writing {small_disk} failed: {why} is whole")
        assert (await place.batch(server)).left == 0
        assert len(batches(server)) == 1
    place.expect_everything(ROWS, words=25)


@pytest.mark.parametrize(
    ("number", "kept"), [(errno.EDQUOT, 0), (errno.EDQUOT, 30), (errno.EROFS, 0), (errno.EIO, 0), (errno.ENOSPC, 30)]
)
async def test_a_quota_that_is_exceeded_and_a_disk_that_turns_read_only(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int, kept: int
) -> None:
    """From the hundredth write on none succeeds, and of that one so many bytes do; until somebody has seen to it."""
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    whole, written = os.write, 0

    def write(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += 1
        if written < 100:
            return whole(descriptor, data)
        if written == 100 and kept:
            return whole(descriptor, data[:kept])
        raise OSError(number, os.strerror(number))

    log = place.path / "served.jsonl"
    async with MockServer(tier="tier-1", echo=True, latency="0.1", log=log) as server:
        with monkeypatch.context() as disk:
            disk.setattr("os.write", write)
            summary = await place.run(server, Options(concurrency=8))
        why = "no space left" if kept else os.strerror(number)
        assert summary.stopped in {
            f"writing {place.path / name} failed: {why}; make room or choose another place, then run again: "
            "every line that was written is whole"
            for name in ("results.jsonl", "results.journal.jsonl")
        }
        left = check(place.output, EXPECTED, exit_code=summary.exit_code)
        assert (summary.exit_code, left.failures) == (3, {})
        assert 0 < len(left.answers) < ROWS
        again = await place.run(server)
    check(place.output, EXPECTED, exit_code=again.exit_code, log=log, paid_twice=8)


def test_a_disk_that_can_only_be_read_is_said_so_and_nothing_is_sent(small_disk: Path, tmp_path: Path) -> None:
    write_requests(tmp_path / "requests.jsonl", 3)
    output, log = small_disk / "results.jsonl", tmp_path / "served.jsonl"
    command = [*RATELIMIT, "run", str(tmp_path / "requests.jsonl"), "-o", str(output), "--quiet"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with mock("--tier", "tier-5", "--log", str(log)) as url:
        done = subprocess.run(command, env=environment(url), capture_output=True, text=True, check=False)
    journal = small_disk / "results.journal.jsonl"
    said = f"ratelimit: cannot use {journal}: Read-only file system; choose another output\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert log.read_bytes() == b""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["rm", "results.jsonl"], "it was deleted or moved away while it was written"),
        (["mv", "results.jsonl", "elsewhere.jsonl"], "it was deleted or moved away while it was written"),
        (["cp", "--remove-destination", "requests.jsonl", "results.jsonl"], "another file was put in its place while"),
        (["rm", "results.journal.jsonl"], "it was deleted or moved away while it was written"),
    ],
)
async def test_a_file_that_is_taken_away_ends_the_run_at_once(place: Place, command: list[str], why: str) -> None:
    place.write(batch_line(f"row-{n}") for n in range(600))
    async with MockServer(tier="tier-1", echo=True, latency="0.2") as server:
        try:
            summary = await place.run(server, watcher=Meanwhile(command))
            said = str(summary.stopped)
        except OutputFailed as failed:  # it was found out with the last sync
            said = str(failed)
        assert why in said
        assert server.stats.arrived < 600  # and not all of it into a file that nobody has


async def test_a_lost_journal_lets_no_second_run_in(place: Place) -> None:
    with Journal(place.output):
        (place.path / "results.journal.jsonl").unlink()
        with pytest.raises(AlreadyRunning):
            Journal(place.output)


async def test_files_are_for_their_owner_alone(place: Place) -> None:
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    place.output.write_bytes(b'{"torn')
    place.output.chmod(0o600)
    before, report = os.umask(0), place.path / "results.html"
    try:
        async with MockServer(tier="tier-1", echo=True) as server:
            await place.run(server, report=report)
    finally:
        os.umask(before)
    assert report.exists()
    assert (place.path / "results.jsonl.torn").exists()
    check(place.output, EXPECTED)


async def test_power_cut_at_any_prefix_of_what_was_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Journal and results each keep any prefix of their own writes, the last of them torn; every pair is continued."""
    writes: dict[str, list[bytes]] = {"results.jsonl": [], "results.journal.jsonl": [], "results.errors.jsonl": []}
    whole = lines.Lines.append

    def append(self: lines.Lines, record: bytes) -> None:
        writes[self.path.name].append(record + b"\n")
        whole(self, record)

    place.write(batch_line(f"row-{n}") for n in range(12))
    expected = {f"row-{n}": f"what is row-{n}?" for n in range(12)}
    async with MockServer(tier="tier-5", echo=True) as server:
        with monkeypatch.context() as recording:
            recording.setattr(lines.Lines, "append", append)
            await place.run(server)
    results, journal = writes["results.jsonl"], writes["results.journal.jsonl"]
    for kept in range(len(results)):
        for noted in range(len(journal)):
            replay = tmp_path / f"cut-{kept}-{noted}"
            replay.mkdir(mode=0o700)
            for name, parts, count in (("results.jsonl", results, kept), ("results.journal.jsonl", journal, noted)):
                torn = parts[count][: len(parts[count]) // 2]
                (replay / name).write_bytes(b"".join(parts[:count]) + torn)
                (replay / name).chmod(0o600)
            with Journal(replay / "results.jsonl") as left:
                left.recover()
                assert len(left.done) == kept
                known = {f'"custom_id":"{each}"'.encode() for each in left.in_doubt}
                assert not any(name in line for name in known for line in results[:kept])
            if (kept + noted) % 7 == 0:  # every pair is read; one in seven is run to its end
                again = Place(replay)
                shutil.copy(place.requests, again.requests)
                async with MockServer(tier="tier-5", echo=True) as server:
                    summary = await again.run(server)
                    assert server.stats.arrived == 12 - kept
                check(again.output, expected, exit_code=summary.exit_code)
