"""Every refusal of the service: status, type, code, parameter and the words of its message.

Texts come from recorded replies of the service where one was found; for a code that is only documented the message is
the shortest honest sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ratelimit.testing.mock.counting import Dimension, Overrun
from ratelimit.testing.mock.headers import go_ms

_LEARN_MORE = " Visit https://platform.openai.com/account/rate-limits to learn more."
_ADD_PAYMENT = (
    " You can increase your rate limit by adding a payment method to your account at "
    "https://platform.openai.com/account/billing."
)
_ON: dict[Dimension, str] = {
    "rpm": "requests per min (RPM)",
    "rpd": "requests per day (RPD)",
    "tpm": "tokens per min (TPM)",
    "tpd": "tokens per day (TPD)",
    "images": "input-images per min",
}
_TYPES: dict[Dimension, str] = {
    "rpm": "requests",
    "rpd": "requests",
    "tpm": "tokens",
    "tpd": "tokens",
    "images": "input-images",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal, ready to be written; `lines` are headers of its own."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    lines: str = ""

    def error(self) -> dict[str, str | None]:
        """The inner object: all four keys, always."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """The whole body as the service writes it, indented, with a closing newline."""
        return msgspec.json.format(msgspec.json.encode({"error": self.error()}), indent=4) + b"\n"


class Refused(Exception):
    """Carries a Problem from where it is found to where replies are written."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def overrun_message(overrun: Overrun, *, model: str, family: str, organization: str, free: bool) -> str:
    """The words of a refused limit, in the service's own arithmetic."""
    cap = overrun.cap
    bucket = "" if model == family else f" (for limit {family})"
    head = f"for {model}{bucket} in organization {organization} on {_ON[cap.dimension]}: Limit {cap.limit}, "
    if overrun.wait_ms is None:
        return (
            f"Request too large {head}Requested {overrun.requested}. The input or output tokens must be reduced in "
            f"order to run successfully.{_LEARN_MORE}"
        )
    said = f"Rate limit reached {head}Used {overrun.used}, Requested {overrun.requested}. "
    said += f"Please try again in {go_ms(overrun.wait_ms)}."
    if cap.dimension == "images":
        return said
    return said + _LEARN_MORE + (_ADD_PAYMENT if free else "")


def overrun(overrun: Overrun, message: str, lines: str) -> Problem:
    """The 429 of a refused limit."""
    return Problem(429, message, _TYPES[overrun.cap.dimension], "rate_limit_exceeded", lines=lines)


def bad_key(key: str) -> Problem:
    """A key nobody knows; it is shown as the service shows it, never whole."""
    shown = f"{key[:6]}***{key[-3:]}" if len(key) > 12 else "***"
    return Problem(
        401,
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


NO_KEY = Problem(
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from "
    "https://platform.openai.com/account/api-keys.",
)
NOT_JSON = Problem(
    400,
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
)
NO_MODEL = Problem(400, "you must provide a model parameter")


def too_large(limit: int) -> Problem:
    """A body beyond what is read at all."""
    return Problem(413, f"The request body is too large: the maximum is {limit:,} bytes.", code="request_too_large")


def unknown_url(method: str, path: str) -> Problem:
    """A path the service does not have."""
    return Problem(404, f"Invalid URL ({method} {path})")


def model_not_found(model: str) -> Problem:
    """Chat completions, embeddings and their like say 404."""
    return Problem(404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found")


def requested_model_not_found(model: str) -> Problem:
    """The Responses API says 400 and names the parameter."""
    return Problem(400, f"The requested model '{model}' does not exist.", code="model_not_found", param="model")


def context_exceeded(window: int, prompt: int, cap: int | None) -> Problem:
    """A prompt, or a prompt with its completion, that the model cannot hold."""
    head = f"This model's maximum context length is {window} tokens. However, "
    if cap is None:
        tail = f"your messages resulted in {prompt} tokens. Please reduce the length of the messages."
    else:
        tail = (
            f"you requested {prompt + cap} tokens ({prompt} in the messages, {cap} in the completion). "
            "Please reduce the length of the messages or completion."
        )
    return Problem(400, head + tail, code="context_length_exceeded", param="messages")


INPUT_EXCEEDED = Problem(
    400,
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    code="context_length_exceeded",
    param="input",
)


def cap_too_large(param: str, asked: int, most: int) -> Problem:
    """An output cap above what the model can write."""
    return Problem(
        400,
        f"{param} is too large: {asked}. This model supports at most {most} completion tokens, whereas you provided "
        f"{asked}.",
        code="invalid_value",
        param=param,
    )


def bad_image(url: str) -> Problem:
    """An image the service cannot load: found after the request was admitted and charged."""
    return Problem(400, f"Error while downloading {url}.", code="invalid_image_url", param="url")


QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
SERVER_ERROR = Problem(500, "The server had an error while processing your request. Sorry about that!", "server_error")
BAD_GATEWAY = Problem(502, "Bad gateway.", "server_error")
OVERLOADED = Problem(
    503,
    "The server is currently overloaded. Please try again later.",
    "service_unavailable_error",
    "server_is_overloaded",
)
ENGINE_OVERLOADED = Problem(503, "The engine is currently overloaded, please try again later", "server_error")
SLOW_DOWN = Problem(
    429, "Your request rate has increased too quickly. Please slow down.", "rate_limit_error", "slow_down"
)
FLEX_UNAVAILABLE = Problem(429, "Resource Unavailable", "requests", "resource_unavailable")


def out_of_quota(code: str) -> Problem:
    """The quota refusals: the old code and the four of 2026."""
    said = {
        "insufficient_quota": QUOTA,
        "credit_balance_exhausted": "You have no credits remaining.",
        "organization_spend_limit_exceeded": "Your organization has reached its spend limit.",
        "project_spend_limit_exceeded": "Your project has reached its spend limit.",
        "organization_usage_limit_exceeded": "Your organization has reached its usage limit.",
    }
    return Problem(429, said[code], "insufficient_quota", code)
