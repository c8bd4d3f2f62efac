"""Errors in a request itself, found before it is sent."""

from __future__ import annotations

from ratelimit.errors.root import RateLimitError


class BadRequest(RateLimitError):
    """The request cannot succeed as it stands; it was not sent, and nothing was charged."""

    exit_code = 2


class RequestInvalid(BadRequest):
    """The body is not something that can be sent: not JSON, no model, or not of the kind asked for."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")


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
