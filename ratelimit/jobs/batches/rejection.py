"""Why a batch has failed validation, and which of its rows are to blame. Pure: the service's list in, rows out."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.jobs.batches.api import Problem

_FULL = {"token_limit_exceeded", "request_limit_exceeded"}
_OF_ROWS = {
    "invalid_json_line",
    "missing_required_parameter",
    "url_mismatch",
    "model_mismatch",
    "duplicate_custom_id",
    "invalid_method",
}
_NO_REASON = Problem("failed", "the batch has failed validation")


def queue_full(problems: Sequence[Problem]) -> bool:
    """Whether the queue had no room, and nothing else was wrong."""
    return bool(problems) and all(problem.code in _FULL for problem in problems)


def to_blame(problems: Sequence[Problem], keys: Sequence[int]) -> dict[int, Problem]:
    """Return the rows that are bad: those that are named, where their lines are the trouble; else all."""
    if problems and all(problem.code in _OF_ROWS and problem.line for problem in problems):
        named = {keys[p.line - 1]: p for p in problems if p.line and 0 < p.line <= len(keys)}
        if named:
            return named
    return dict.fromkeys(keys, problems[0] if problems else _NO_REASON)
