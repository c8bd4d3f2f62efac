"""Errors of a job's files."""

from __future__ import annotations

from ratelimit.errors.root import JobStopped, RateLimitError, printable


class InputUnreadable(RateLimitError):
    """The file of requests cannot be read."""

    exit_code = 2

    def __init__(self, path: str, why: str, remedy: str = "name a file of requests, one JSON object a line") -> None:
        shown = "standard input" if path == "-" else printable(path)
        super().__init__(f"cannot read {shown}: {printable(why)}; {printable(remedy, 1000)}")
        self.path = path


class InputChanged(JobStopped):
    """The file of requests is not as it was when the run began to read it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{printable(path)} has changed while it was read; run again: it is looked through anew, and what is left "
            f"is sent"
        )
        self.path = path


class OutputUnusable(RateLimitError):
    """The output, or a file beside it, is not one a job can be continued in."""

    exit_code = 2

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(f"cannot use {printable(path)}: {printable(why)}; {remedy}")
        self.path = path


class OutputFailed(JobStopped):
    """A result could not be written; the run ends, and continues from the last whole line."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"writing {printable(path)} failed: {printable(why)}; make room or choose another place, then run again: "
            f"every line that was written is whole"
        )
        self.path = path


class AlreadyRunning(RateLimitError):
    """Another run is at work on the same files."""

    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(f"another run is writing {printable(path)}; wait for it to end, or choose another output")
        self.path = path


class RequestsChanged(RateLimitError):
    """The file holds other requests under ids that have been answered."""

    exit_code = 2

    def __init__(self, count: int, first: str, line: int) -> None:
        super().__init__(
            f"{count:,} requests have changed since they were sent, the first on line {line} ({printable(first)}); "
            f"use --force to keep the answers there are, or choose another output"
        )
        self.count = count
