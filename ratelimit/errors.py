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


class BadRequest(RateLimitError):
    """The request cannot succeed as it stands; it was not sent, and nothing was charged."""

    exit_code = 2


class InputTooLong(BadRequest):
    """The input, or the input and the output asked for, is longer than the model's context window."""

    def __init__(self, model: str, tokens: int, window: int, cap: int = 0) -> None:
        asked = f"and up to {cap:,} of output are {tokens + cap:,}" if cap else "are"
        super().__init__(
            f"the {tokens:,} tokens of input {asked} more than the context window of {model}, {window:,}; "
            f"{'lower the cap on output, ' if cap else ''}shorten or split the input, "
            f"or choose a model with a larger window"
        )
        self.model = model
        self.tokens = tokens
        self.window = window
        self.cap = cap


class OutputTooLong(BadRequest):
    """The output asked for is longer than the model ever writes."""

    def __init__(self, model: str, cap: int, most: int) -> None:
        super().__init__(
            f"the request asks for up to {cap:,} tokens of output, but {model} writes at most {most:,}; "
            f"lower max_completion_tokens (max_output_tokens, max_tokens) to {most:,} or leave it out"
        )
        self.model = model
        self.cap = cap
        self.most = most
