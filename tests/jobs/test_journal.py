"""The files of a job: whole after any crash, refused when they are not ours, locked while in use."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import AlreadyRunning, OutputFailed, OutputUnusable
from ratelimit.jobs.journal import Digests, Journal
from ratelimit.jobs.lines import Lines
from ratelimit.jobs.source import Row

Write = Callable[[int, bytes], int]


def row(identifier: str, body: bytes = b"{}") -> Row:
    return Row(1, identifier, body=body)


def result(identifier: str) -> bytes:
    return json.dumps({"id": "x", "custom_id": identifier, "response": {"body": {}}, "error": None}).encode()


def recovered(output: Path, *, retry_failed: bool = False) -> Journal:
    with Journal(output) as journal:
        journal.recover(retry_failed=retry_failed)
        return journal


def test_a_torn_tail_is_cut_at_every_byte_of_the_last_two_lines(tmp_path: Path) -> None:
    lines = [result("a"), result("b\u00e9"), result("c")]
    whole = b"".join(line + b"\n" for line in lines)
    starts = [0, len(lines[0]) + 1, len(lines[0]) + len(lines[1]) + 2]
    for cut in range(starts[1], len(whole) + 1):
        output = tmp_path / f"cut-{cut}.jsonl"
        output.write_bytes(whole[:cut])
        kept = whole[: whole[:cut].rfind(b"\n") + 1]
        with Journal(output) as journal:
            journal.recover()
            assert len(journal.done) == kept.count(b"\n")
            assert output.read_bytes() == kept
            journal.answered(result("d"))
        assert output.read_bytes() == kept + result("d") + b"\n"
        torn = output.with_name(f"{output.name}.torn")
        rest = whole[len(kept) : cut]
        assert (torn.read_bytes() if torn.exists() else b"") == (rest + b"\n" if rest else b"")


def test_every_torn_tail_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    for tail in (b'{"id": 1', b"\0\0\0\0"):
        with output.open("ab") as file:
            file.write(tail)
        recovered(output)
    assert (tmp_path / "o.jsonl.torn").read_bytes() == b'{"id": 1\n\0\0\0\0\n'
    assert output.read_bytes() == b""


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"custom_id": 5, "response": null, "error": null}',
        b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}',
    ],
    ids=["empty", "no JSON", "no UTF-8", "no object", "deep", "no id", "a request"],
)
@pytest.mark.parametrize("name", ["o.jsonl", "o.errors.jsonl"])
def test_other_damage_is_refused_with_its_line(tmp_path: Path, damaged: bytes, name: str) -> None:
    before = result("a") + b"\n" + damaged + b"\n" + result("b") + b"\n"
    (tmp_path / name).write_bytes(before)
    with pytest.raises(OutputUnusable) as caught:
        recovered(tmp_path / "o.jsonl")
    assert str(caught.value) == (
        f"cannot use {tmp_path / name}: line 2 is not a result; move the file away, or repair that line, then run again"
    )
    assert (tmp_path / name).read_bytes() == before


def test_a_journal_that_is_damaged_only_knows_less(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output) as journal:
        for name in "abc":
            journal.sending(row(name))
    path = tmp_path / "o.journal.jsonl"
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, b"\xff\0{", b"[]", b"[" * 100_000, third, b'{"sent": "d"']))
    assert recovered(output).in_doubt == ["a", "c"]


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output):
        for _ in range(2):
            with pytest.raises(AlreadyRunning) as caught:
                Journal(output)
            assert str(caught.value) == (
                f"another run is writing {output}; wait for it to end, or choose another output"
            )
    recovered(output)


def test_a_run_that_could_not_begin_holds_no_lock(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    (tmp_path / "o.errors.jsonl").mkdir()
    with pytest.raises(OutputUnusable) as caught:
        Journal(output)
    assert str(caught.value) == (f"cannot use {tmp_path / 'o.errors.jsonl'}: Is a directory; choose another output")
    (tmp_path / "o.errors.jsonl").rmdir()
    recovered(output)


def test_a_disk_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputUnusable) as caught:
        Journal(tmp_path / "o.jsonl")
    assert str(caught.value) == (
        f"cannot use {tmp_path / 'o.journal.jsonl'}: it cannot be locked (No locks available); use a local disk"
    )


def test_places_where_no_results_can_go(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    (tmp_path / "linked.errors.jsonl").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(tmp_path / "piped.journal.jsonl")
    other = "choose another output"
    for name, told, why, remedy in [
        (".", ".", "it is a directory", "name a file, such as results.jsonl"),
        ("link.jsonl", "link.jsonl", "it is a symbolic link", other),
        ("linked.jsonl", "linked.errors.jsonl", "it is a symbolic link", other),
        ("pipe.jsonl", "pipe.jsonl", "it is not a regular file", 'use "-o -" to write to a pipe'),
        ("piped.jsonl", "piped.journal.jsonl", "it is not a regular file", other),
        ("no/o.jsonl", "no/o.jsonl", f"there is no directory {tmp_path / 'no'}", "create it first"),
        ("o.jsonl.gz", "o.jsonl.gz", "results are not compressed", "name it o.jsonl, and compress it later"),
    ]:
        with pytest.raises(OutputUnusable) as caught:
            Journal(tmp_path / name)
        assert str(caught.value) == f"cannot use {tmp_path / told}: {why}; {remedy}"
    assert not (tmp_path / "elsewhere.jsonl").exists()


def test_what_was_sent_and_never_answered_is_in_doubt(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output) as journal:
        for name in ("answered", "failed", "lost", "turned away", "lost once", "again"):
            journal.sending(row(name))
        journal.answered(result("answered"))
        journal.gave_up(result("failed"))
        journal.turned_away(row("turned away"))
        journal.sending(row("lost once"))
        journal.turned_away(row("lost once"))
        journal.sending(row("again"))
        journal.answered(result("again"))
    journal = recovered(output)
    assert journal.in_doubt == ["lost", "lost once"]
    assert (len(journal.done), journal.failed) == (3, 1)


def test_failures_are_sent_again_when_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output) as journal:
        for name in ("good", "bad"):
            journal.sending(row(name))
        journal.answered(result("good"))
        journal.gave_up(result("bad"))
    with Journal(output) as journal:
        journal.recover(retry_failed=True)
        assert [journal.is_done(row(name)) for name in ("good", "bad")] == [True, False]
        assert journal.in_doubt == []
        assert journal.errors.read_bytes() == result("bad") + b"\n"  # until the run really begins
        journal.forget_failures()
        assert (journal.failed, journal.errors.read_bytes()) == (0, b"")
        journal.gave_up(result("bad"))
    assert recovered(output).failed == 1


def test_a_request_that_has_changed(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output) as journal:
        journal.sending(row("a", b"1"))
        journal.sending(row("b", b"1"))
        journal.sending(row("b", b"2"))
    journal = recovered(output)
    bodies = [("a", b"1"), ("a", b"2"), ("b", b"1"), ("b", b"2"), ("never sent", b"1")]
    assert [journal.has_changed(row(*each)) for each in bodies] == [False, True, False, False, False]
    assert not recovered(tmp_path / "other.jsonl").has_changed(row("a", b"1"))


def test_what_was_spent_is_known_afterwards(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    with Journal(output) as journal:
        journal.sending(row("a"))
        journal.note_spent({"m": {"RPD": 3.5}}, 1000.0)
        journal.note_spent({"m": {"RPD": 4.5}}, 2000.0)
        journal.sending(row("b"))
    journal = recovered(output)
    assert (journal.spent, journal.sent_since_spent) == (({"m": {"RPD": 4.5}}, 2000.0), 1)


@pytest.mark.parametrize(("room", "why"), [(7, "no space left"), (0, "No space left on device")])
def test_a_write_that_was_cut_short_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, why: str
) -> None:
    write: Write = os.write

    def full(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:room])

    with Lines(tmp_path / "o.jsonl") as lines:
        lines.append(b"first")
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            with pytest.raises(OutputFailed) as caught:
                lines.append(b"second, which is longer")
        lines.append(b"third")  # somebody has made room
    assert str(caught.value) == (
        f"writing {tmp_path / 'o.jsonl'} failed: {why}; make room or choose another place, then run again: "
        f"every line that was written is whole"
    )
    assert (tmp_path / "o.jsonl").read_bytes() == b"first\nthird\n"


def test_nothing_is_glued_to_a_write_that_could_not_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Write = os.write

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Lines(tmp_path / "o.jsonl") as lines:
        lines.append(b"first")
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", lambda file, data: write(file, data[:3]))
            disk.setattr(os, "ftruncate", fail)
            with pytest.raises(OutputFailed):
                lines.append(b"second")
        with pytest.raises(OutputFailed):
            lines.append(b"third")
    assert (tmp_path / "o.jsonl").read_bytes() == b"first\nsec"


def test_a_disk_that_fails_to_sync_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Lines(tmp_path / "o.jsonl") as lines:
        lines.append(b"first")
        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", fail)
            with pytest.raises(OutputFailed, match=r"Input/output error"):
                lines.sync()
        with pytest.raises(OutputFailed, match=r"Input/output error"):
            lines.append(b"second")


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "o.jsonl")
    number = lines.fileno()
    lines.close()
    with (tmp_path / "another").open("wb") as another:
        assert another.fileno() == number  # it is another's now, and not to be closed under it
        lines.close()
        another.write(b"still open")


def test_a_torn_tail_that_cannot_be_kept_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_bytes(b"half")
    (tmp_path / "o.jsonl.torn").mkdir()
    with pytest.raises(OutputUnusable) as caught:
        recovered(tmp_path / "o.jsonl")
    assert str(caught.value) == f"cannot use {tmp_path / 'o.jsonl.torn'}: Is a directory; choose another output"
    assert (tmp_path / "o.jsonl").read_bytes() == b"half"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=60))
def test_digests_are_a_set(numbers: list[int]) -> None:
    numbers = [number or 1 for number in numbers]  # nought and one are the same to it, once in 2**63
    digests, known = Digests(), set[int]()
    for number in numbers:
        assert digests.add(number) is (number not in known)
        known.add(number)
        assert len(digests) == len(known)
    assert all(number in digests for number in known)
    assert 4711_4711 not in digests


def test_many_digests() -> None:
    chance, digests = random.Random(3), Digests()
    numbers = [chance.getrandbits(64) for _ in range(20_000)]
    for number in numbers:
        assert digests.add(number)
    assert all(number in digests for number in numbers)
    assert not any(chance.getrandbits(64) in digests for _ in range(1000))


def test_digests_that_somebody_has_chosen_are_found_as_quickly() -> None:
    """With the last 34 bits alike, all come to one slot; a way through all would take 200 times as long."""
    chance = random.Random(3)
    even = [chance.getrandbits(64) for _ in range(8_000)]

    def seconds(numbers: list[int]) -> float:
        began, digests = time.process_time(), Digests()
        assert all(digests.add(number) for number in numbers)
        assert all(number in digests for number in numbers)
        return time.process_time() - began

    assert seconds([number << 34 for number in range(1, 8_001)]) <= 20 * seconds(even) + 0.01


def test_who_syncs_while_another_does_waits_for_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger notes a batch's end once its answers last: that somebody is about to see to it is not enough."""
    reached: list[int] = []

    def slow(number: int) -> None:
        reached.append(number)
        if len(reached) == 1:
            lines.sync()

    monkeypatch.setattr("os.fdatasync", slow)
    with Lines(tmp_path / "lines.jsonl") as lines:
        lines.append(b"{}")
        lines.sync()
        assert len(reached) == 2
        assert not lines.unsynced
