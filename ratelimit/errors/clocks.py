"""Errors of a virtual clock."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.errors.root import RateLimitError


class Deadlock(RateLimitError):
    """A virtual clock found that none of its tasks can ever run again."""

    def __init__(self, now: float, why: str, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: {why}; waiting: {_some(tasks)}; give what they wait for a timeout, "
            f"or use the ordinary loop if it comes from another process"
        )
        self.now = now
        self.tasks: tuple[str, ...] = tuple(tasks)


class Livelock(RateLimitError):
    """A virtual clock cannot move because its tasks never stop being ready."""

    def __init__(self, now: float, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: tasks keep running without I/O and never wait; alive: "
            f"{_some(tasks)}; let the one that polls await an event or asyncio.sleep of more than 0 s"
        )
        self.now = now
        self.tasks: tuple[str, ...] = tuple(tasks)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "no task") + more
