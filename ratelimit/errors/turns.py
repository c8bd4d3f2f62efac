"""Errors of asking for a turn: what can never have one, waits too long, or is ended twice."""

from __future__ import annotations

from ratelimit.errors.root import RateLimitError


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


class WaitedTooLong(RateLimitError):
    """A request has waited for its turn as long as its caller allowed; it was not sent, and nothing was taken."""

    def __init__(self, lane: str, seconds: float, others: int, waiting_for: str | None) -> None:
        super().__init__(
            f"no turn in lane {lane} within {round(seconds, 3):.10g} s: it waits for {waiting_for or 'its turn'}, "
            f"{others:,} others with it; raise wait_at_most, lower its priority number, or send less at once"
        )
        self.lane = lane
        self.seconds = seconds
        self.others = others
        self.waiting_for = waiting_for


class DeadlinePassed(RateLimitError):
    """A request was not answered by its deadline."""

    exit_code = 3

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(
            f"no answer within the deadline of {seconds:.10g} s: {why}; allow more time or send less at once"
        )
