"""Errors of ours as replies of the service, so that the SDK raises its own typed exceptions for them.

An exception of ours would reach the caller unchanged from the newest SDK only; older ones retry it, or wrap it as a
lost connection. A reply is understood by all. It says `x-should-retry: false`, which all obey, since waiting was tried
or cannot help, and it names our error in `x-ratelimit-error`, since nothing else tells it from one of the service.

| error | status | the SDK raises |
|---|---|---|
| `NeverFits` | 429, as the service says "Request too large" | `RateLimitError` |
| `DeadlinePassed`, `WaitedTooLong` | 429 | `RateLimitError` |
| `QuotaExhausted` | 429, with its code | `RateLimitError` |
| `UnknownModel`, `ModelNotInTier` | 404 | `NotFoundError` |
| `KeyRejected` | 401 or 403 | `AuthenticationError`, `PermissionDeniedError` |
| `SharedStoreAway`, `StoreUnusable` | 503, for it is not the request's fault | `InternalServerError` |
| any other | 400 | `BadRequestError` |
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from ratelimit.errors import (
    DeadlinePassed,
    InputTooLong,
    KeyRejected,
    ModelNotInTier,
    NeverFits,
    OutputTooLong,
    QuotaExhausted,
    RateLimitError,
    SharedStoreAway,
    StoreUnusable,
    UnknownModel,
    WaitedTooLong,
)
from ratelimit.wire.messages import Reply

FINAL = {"x-should-retry": "false"}


def module_of(request: Any) -> Any:
    """Return the library a request belongs to: httpx or httpx2."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def refuse(request: Any, error: RateLimitError) -> Any:
    """Return the response that makes the SDK raise what comes closest to an error of ours."""
    status, kind, code = _as_told(error)
    body = {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
    return _response(request, status, msgspec.json.encode(body), {"x-ratelimit-error": type(error).__name__})


def repeat(request: Any, reply: Reply) -> Any:
    """Return the reply another request had as the response to this one."""
    return _response(request, reply.status, reply.body, {"x-ratelimit-error": "JobStopped"})


def _response(request: Any, status: int, body: bytes, headers: dict[str, str]) -> Any:
    return module_of(request).Response(
        status, headers={"content-type": "application/json", **FINAL, **headers}, content=body, request=request
    )


def _as_told(error: RateLimitError) -> tuple[int, str, str | None]:
    match error:
        case NeverFits():
            return 429, "tokens", "rate_limit_exceeded"
        case DeadlinePassed() | WaitedTooLong():
            return 429, "requests", "deadline_passed"
        case QuotaExhausted():
            return 429, "insufficient_quota", error.code
        case KeyRejected():
            return error.status, "invalid_request_error", "invalid_api_key"
        case UnknownModel() | ModelNotInTier():
            return 404, "invalid_request_error", "model_not_found"
        case SharedStoreAway() | StoreUnusable():
            return 503, "server_error", "shared_limits_unavailable"
        case InputTooLong():
            return 400, "invalid_request_error", "context_length_exceeded"
        case OutputTooLong():
            return 400, "invalid_request_error", "invalid_value"
    return 400, "invalid_request_error", None
