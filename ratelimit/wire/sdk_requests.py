"""Which of the SDK's requests are limited, and what they would be in our own words.

Limited is what the service limits by model: a POST of JSON, held in memory, that names a model, to one of five
endpoints. All else passes untouched: files, batches, uploads, audio, realtime, polling, and whatever is not known here.
A body that is no JSON object passes, too, for the service says best what is wrong with it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from ratelimit.errors import RequestInvalid
from ratelimit.limits.content import endpoint_of
from ratelimit.wire.messages import Request
from ratelimit.wire.messages import request as checked

_LIMITED = frozenset(("chat", "responses", "embeddings", "completions", "moderations"))
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")
_WHO = ("authorization", "api-key", "openai-organization", "openai-project")


def read(request: Any) -> Request | None:
    """Return what is asked, or None for what is not limited. Takes a request of httpx or httpx2."""
    path = request.url.path
    if request.method != "POST" or endpoint_of(path) not in _LIMITED:
        return None
    if not request.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        body = request.content
    except RuntimeError:  # a stream, which only the network may read
        return None
    try:
        asked = checked(body, path)
    except RequestInvalid:
        return None
    if deployment := _DEPLOYMENT.search(path):  # Azure: limits belong to it, whatever the body names
        return Request(asked.body, {**asked.fields, "model": unquote(deployment[1])}, path)
    return asked


def origin_of(request: Any) -> tuple[str, bytes]:
    """Return which service a request goes to; each counts for itself."""
    return request.url.scheme, request.url.netloc


def account_of(request: Any, model: str) -> int:
    """Return a number for who asks for which model; it holds no key."""
    headers = plain(request.headers)
    return hash((model, *(headers.get(name) for name in _WHO)))


def plain(headers: Any) -> dict[str, str]:
    """Return headers as a plain dictionary, of which to read one costs a tenth; of one that came twice, the first."""
    return {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers.raw)}
