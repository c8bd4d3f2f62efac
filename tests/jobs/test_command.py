"""`ratelimit run` as its users have it: processes, pipes, signals, full disks, and what is said."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killing import RATELIMIT, answers_in, environment, mock, records, statistics, write_requests

NAME_A_FILE = "name a file of requests, one JSON object a line"
SEE = "see ratelimit run --help"


@pytest.fixture(scope="module")
def fast() -> Iterator[str]:
    with mock("--tier", "tier-5") as url:
        yield url


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    with mock("--tier", "tier-5", "--latency", "0.3") as url:
        yield url


def run(url: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*RATELIMIT, "run", *map(str, arguments)]
    options = {"env": environment(url), "capture_output": True, "text": True, **options}
    return subprocess.run(command, check=False, **options)


def test_all_done(fast: str, tmp_path: Path) -> None:
    expected = write_requests(tmp_path / "r.jsonl", 20)
    done = run(fast, "r.jsonl", "-o", "o.jsonl", "--report", "o.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert dict(answers_in(tmp_path / "o.jsonl")) == expected
    lines = done.stderr.splitlines()
    assert lines[0] == "report   o.html"
    assert lines[1].startswith("answered 20 in ")
    assert lines[2].startswith("tokens   ")
    assert lines[3:] == ["sent     20 requests: 0 again, 0 refused by a limit"]
    again = run(fast, "r.jsonl", "-o", "o.jsonl", cwd=tmp_path)
    assert again.stderr.splitlines()[0] == "answered 0 in under 0.1 s, 20 were done before"


def test_what_is_logged_is_set_by_its_level(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 3)
    command = ("r.jsonl", "-o", "-", "--rpm", "50000", "--no-progress", "--quiet")
    assert run(fast, *command, cwd=tmp_path).stderr == ""
    done = run(fast, *command[:-1], cwd=tmp_path)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d warning gpt-4o-mini: RPM is 30,000 by what the service says, not 50,000",
        done.stderr.splitlines()[0],
    )
    silenced = environment(fast) | {"RATELIMIT_LOG_LEVEL": "error"}
    assert run(fast, *command[:-1], cwd=tmp_path, env=silenced).stderr.splitlines()[0].startswith("answered 3 in ")


def test_some_failed_in_json(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 3, messages=[])
    done = run(fast, "r.jsonl", "-o", "o.jsonl", "--json", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    summary = json.loads(done.stdout)
    assert (summary["answered"], summary["failed"], summary["exit_code"]) == (0, 3, 1)
    assert len(records(tmp_path / "o.errors.jsonl")) == 3


def test_bad_input(fast: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"custom_id": "\\u001b[2J", "method": "\\u001b[2J", "body": {}}\nwhat?\n')
    done = run(fast, "r.jsonl", "-o", "o.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ratelimit: 2 of 2 lines of r.jsonl cannot be sent, and nothing was; mend them, and run again\n"
        'line 1: the method is "\\x1b[2J"; requests are POSTed\n'
        "line 2: the line is not JSON: JSON is malformed: invalid character (byte 0); a line is "
        '{"custom_id": ..., "method": "POST", "url": ..., "body": {...}} or a bare body\n'
    )


@pytest.mark.parametrize(
    ("name", "text", "guess"),
    [
        ("t.csv", "a,b\n1,2\n", "rows of a table go with --template"),
        ("l.json", '[{"model": "m"}]', "if it is a list of requests, jq -c '.[]' puts each on a line"),
        ("p.json", '{\n"model": "m"\n}\n', "if it is JSON on several lines, jq -c puts it on one"),
        ("one.jsonl", "{}\n", "mend them, and run again"),
    ],
)
def test_a_small_file_of_something_else(fast: str, tmp_path: Path, name: str, text: str, guess: str) -> None:
    (tmp_path / name).write_text(text)
    done = run(fast, name, "-o", "o.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    lines = text.count("\n") or 1
    said = f"ratelimit: {lines} of {lines} lines of {name} cannot be sent, and nothing was; {guess}"
    assert done.stderr.splitlines()[0] == said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.jsonl"], f"cannot read missing.jsonl: there is no such file; {NAME_A_FILE}"),
        ([".", "--quiet"], f"cannot read .: it is a directory; {NAME_A_FILE}"),
        (["r.jsonl", "--system", "x"], f"--system goes with --template; {SEE}"),
        (["r.jsonl", "--template", "r.jsonl"], f"--template needs --model: rows name none; {SEE}"),
        (
            ["r.jsonl", "--deadline", "soon"],
            f"Invalid value for '--deadline': 'soon' is not a duration; write 90, 90s, 15min, 2h or 1d; {SEE}",
        ),
        (
            ["r.jsonl", "--max-cost", "nan"],
            f"Invalid value for '--max-cost': 'nan' is no amount above 0; write dollars, such as 1 or 0.5; {SEE}",
        ),
        (
            ["r.jsonl", "--shard", "4/4"],
            f"Invalid value for '--shard': '4/4' is no part; of four, write 0/4, 1/4, 2/4 or 3/4; {SEE}",
        ),
    ],
)
def test_wrong_usage(fast: str, tmp_path: Path, arguments: list[str], told: str) -> None:
    write_requests(tmp_path / "r.jsonl", 1)
    done = run(fast, *arguments, "-o", "o.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"ratelimit: {told}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_the_shards_of_a_job_do_all_of_it(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 20)
    for index in range(2):
        done = run(fast, "r.jsonl", "-o", f"{index}.jsonl", "--shard", f"{index}/2", "--quiet", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    first, second = (answers_in(tmp_path / f"{index}.jsonl") for index in range(2))
    assert 0 < len(first) < 20
    assert len(dict([*first, *second])) == len(first) + len(second) == 20


def test_a_stopped_run_says_why_even_when_quiet(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 9)
    done = run(fast, "r.jsonl", "-o", "o.jsonl", "--max-requests", "4", "--quiet", cwd=tmp_path)
    told = "ratelimit: the run has sent the 4 requests it may; run again for the rest\n"
    assert (done.returncode, done.stderr) == (3, told)


def test_from_standard_input_to_standard_output(fast: str, tmp_path: Path) -> None:
    expected = write_requests(tmp_path / "r.jsonl", 12)
    twice = (tmp_path / "r.jsonl").read_text() + "what?\n" + (tmp_path / "r.jsonl").read_text()
    done = run(fast, "-", "-o", "-", "--quiet", input=twice, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(each["custom_id"] for each in written if each["response"]) == sorted(expected)
    assert sorted(each["custom_id"] for each in written if each["error"]) == sorted(f"line-{n}" for n in range(13, 26))


def test_a_pipe_that_is_slow_holds_nobody_up_and_can_be_interrupted(fast: str, tmp_path: Path) -> None:
    expected = write_requests(tmp_path / "r.jsonl", 2)
    lines = (tmp_path / "r.jsonl").read_bytes().splitlines(keepends=True)
    command = [*RATELIMIT, "run", "-", "-o", "o.jsonl", "--no-progress"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(fast)
    ) as process:
        assert process.stdin is not None
        for number, line in enumerate(lines, 1):
            process.stdin.write(line)
            process.stdin.flush()
            while not (tmp_path / "o.jsonl").exists() or len(answers_in(tmp_path / "o.jsonl")) < number:
                time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read().decode()  # before standard input is closed
    assert process.returncode == 130
    assert dict(answers_in(tmp_path / "o.jsonl")) == expected
    assert "stopped  the run was interrupted; the same command continues it\n" in said


@pytest.mark.parametrize(
    ("signals", "least"), [([signal.SIGINT], 8), ([signal.SIGTERM], 8), ([signal.SIGINT, signal.SIGINT], 0)]
)
def test_signals(slow: str, tmp_path: Path, signals: list[int], least: int) -> None:
    write_requests(tmp_path / "r.jsonl", 60)
    before = statistics(slow)["arrived"]
    command = [*RATELIMIT, "run", "r.jsonl", "-o", "o.jsonl", "--concurrency", "8", "--no-progress"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(slow), text=True) as process:
        while statistics(slow)["arrived"] < before + 8:
            time.sleep(0.005)
        assert process.stderr is not None
        process.send_signal(signals[0])
        assert process.stderr.readline().startswith("stopping: ")  # two at once may be one
        for number in signals[1:]:
            process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert (tmp_path / "o.jsonl").read_bytes()[-1:] in {b"", b"\n"}
    assert len(answers_in(tmp_path / "o.jsonl")) >= least
    assert said.splitlines()[-1] == "stopped  the run was interrupted; the same command continues it"
    again = run(slow, "r.jsonl", "-o", "o.jsonl", "--no-progress", cwd=tmp_path)
    assert again.returncode == 0
    assert len(set(answers_in(tmp_path / "o.jsonl"))) == len(answers_in(tmp_path / "o.jsonl")) == 60
    assert ("in flight when the last run ended" in again.stderr) is (len(signals) == 2)


def test_two_at_once(slow: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 16)
    command = [*RATELIMIT, "run", "r.jsonl", "-o", "o.jsonl", "--concurrency", "4"]
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(slow), text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2]
    loser = said[0] if processes[0].returncode else said[1]
    assert loser == "ratelimit: another run is writing o.jsonl; wait for it to end, or choose another output\n"
    assert len(answers_in(tmp_path / "o.jsonl")) == 16


def test_a_full_disk(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 60)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run(fast, "r.jsonl", "-o", "o.jsonl", "--quiet", cwd=tmp_path, preexec_fn=small_files)
    assert done.returncode == 3
    why = "no space left" if "no space" in done.stderr else "File too large"
    assert done.stderr == (
        f"ratelimit: writing o.jsonl failed: {why}; make room or choose another place, then run again: every line that "
        f"was written is whole\n"
    )
    assert (tmp_path / "o.jsonl").read_bytes().endswith(b"\n")
    assert 0 < len(answers_in(tmp_path / "o.jsonl")) < 60
    again = run(fast, "r.jsonl", "-o", "o.jsonl", "--quiet", cwd=tmp_path)
    assert again.returncode == 0
    assert len(answers_in(tmp_path / "o.jsonl")) == 60


def test_a_run_goes_on_where_nobody_reads_what_it_says(fast: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 12)
    write_requests(tmp_path / "o.journal.jsonl", 0)
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        for name, stderr in (("o.jsonl", write), ("p.jsonl", full)):
            done = run(fast, "r.jsonl", "-o", name, "--rpm", "50000", cwd=tmp_path, capture_output=False, stderr=stderr)
            assert (done.returncode, len(answers_in(tmp_path / name))) == (0, 12)
    os.close(write)


def test_a_reader_that_goes_away(slow: str, tmp_path: Path) -> None:
    write_requests(tmp_path / "r.jsonl", 40)
    read, write = os.pipe()
    command = [*RATELIMIT, "run", "r.jsonl", "-o", "-", "--quiet", "--concurrency", "4"]
    with subprocess.Popen(
        command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(slow), text=True
    ) as process:
        os.close(write)
        first = os.read(read, 100)
        os.close(read)
        _, said = process.communicate()
    assert first.startswith(b'{"id":"batch_req_')
    assert process.returncode == 3
    assert said == (
        "ratelimit: writing standard output failed: Broken pipe; make room or choose another place, then run again: "
        "every line that was written is whole\n"
    )
