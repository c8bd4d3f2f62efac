"""Every error a user can meet.

One base, so that a program can catch the project's errors in one line; one class for each thing a program may want to
tell apart. A message names the thing, the value, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence


class RateLimitError(Exception):
    """Anything this project raises on purpose; `exit_code` is what the command line ends with because of it."""

    exit_code = 1


class NeverFits(RateLimitError):
    """The request is larger than a whole limit; waiting cannot help."""

    exit_code = 2

    def __init__(self, limit: str, amount: float, most: float) -> None:
        super().__init__(
            f"this request needs {amount:,.10g} of {limit}, which allows at most {most:,.10g} at once; "
            f"lower max_tokens, split the prompt, or choose a higher tier"
        )
        self.limit = limit
        self.amount = amount
        self.most = most


class AlreadySettled(RateLimitError):
    """A turn or hold was ended twice; the second would corrupt what the first has settled."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} has already ended as {how!r}; end each one exactly once")


class Deadlock(RateLimitError):
    """A virtual clock found that none of its tasks can ever run again."""

    def __init__(self, now: float, why: str, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: {why}; waiting: {_some(tasks)}; give what they wait for a timeout, "
            f"or use the ordinary loop if it comes from another process"
        )
        self.now = now
        self.tasks = tuple(tasks)


class Livelock(RateLimitError):
    """A virtual clock cannot move because its tasks never stop being ready."""

    def __init__(self, now: float, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: tasks keep running without I/O and never wait; alive: "
            f"{_some(tasks)}; let the one that polls await an event or asyncio.sleep of more than 0 s"
        )
        self.now = now
        self.tasks = tuple(tasks)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "no task") + more
