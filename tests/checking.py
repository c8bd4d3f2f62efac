"""The one checker: a job's input, its output and the mock's log decide whether it went as it must.

Whatever was done to a job (killed, starved of disk, its network broken), the same questions are asked of what is left:

- nothing is lost: each id has one final line, or it is left and the run has said so by its exit code;
- nothing is double: no id has two lines, and each answer is that to its own question;
- what was paid for twice is no more than was in flight when something broke;
- every line of every file is whole JSON, and no file can be read by others;
- no secret and no control character of others stands in a file or was printed.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CANARY = "sk-CANARY0123456789abcdef"


@dataclass
class Left:
    """What a job has left behind: of each id its answer, its failure, or nothing."""

    answers: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


def check(
    output: Path,
    expected: Mapping[str, str],
    *,
    exit_code: int = 0,
    log: Path | None = None,
    paid_twice: int = 0,
    printed: Iterable[str] = (),
) -> Left:
    """Ask everything of a job; returns what became of each id.

    `expected` is the answer that each id is to get, `log` the mock's, `paid_twice` how many requests were in flight
    when something broke, and `printed` whatever was shown to anybody.
    """
    stem = output.name.removesuffix(".jsonl")
    files = [path for path in output.parent.iterdir() if path.name.startswith(stem) and path.is_file()]
    for path in files:
        harmless(path.read_bytes(), path.name)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"others may read {path.name}"
    for text in printed:
        harmless(text.encode(), "what was printed")
    left = Left()
    for record in lines(output):
        identifier = record["custom_id"]
        assert identifier not in left.answers, f"{identifier} was answered twice"
        left.answers[identifier] = record["response"]["body"]["choices"][0]["message"]["content"]
    for record in lines(output.with_name(f"{stem}.errors.jsonl")):
        identifier = record["custom_id"]
        assert identifier not in left.failures, f"{identifier} has failed twice"
        assert identifier not in left.answers, f"{identifier} was answered and has failed"
        trouble = record["error"] or record["response"]["body"]["error"]
        left.failures[identifier] = trouble["message"]
    lines(output.with_name(f"{stem}.journal.jsonl"))
    for identifier, answer in left.answers.items():
        assert answer == expected.get(identifier), f"{identifier} has the answer of another"
    left.missing = set(expected) - set(left.answers) - set(left.failures)
    if left.missing:
        assert exit_code in {3, 130, -9}, f"{len(left.missing)} are missing, and the exit code is {exit_code}"
    elif exit_code != 130:
        why = f"nothing is missing, and the exit code is {exit_code}; failed: {dict(list(left.failures.items())[:3])}"
        assert exit_code == (1 if left.failures else 0), why
    if log is not None:
        served = Counter(each["custom_id"] for each in lines(log) if each["status"] == 200 and each["custom_id"])
        twice = sum(served.values()) - len(served)
        assert twice <= paid_twice, f"{twice} were paid for twice, and only {paid_twice} were in flight"
        assert set(left.answers) <= set(served), "an answer came from nowhere"
    return left


def lines(path: Path) -> list[Any]:
    """Every line of a file, each of them whole and JSON to anybody."""
    whole = path.read_bytes() if path.exists() else b""
    assert not whole or whole.endswith(b"\n"), f"{path.name} ends in a torn line"
    return [json.loads(line) for line in whole.split(b"\n")[:-1]]


def harmless(raw: bytes, where: str) -> None:
    """No secret, and nothing that a terminal obeys."""
    assert CANARY.encode() not in raw, f"the key stands in {where}"
    text = raw.decode(errors="replace")
    odd = {c for c in text if (ord(c) < 32 and c not in "\n\r\t") or 0x7F <= ord(c) < 0xA0}
    assert not odd, f"{where} holds control characters: {odd!r}"
