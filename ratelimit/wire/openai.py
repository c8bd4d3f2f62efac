"""The official SDK's clients, with our transport in front of theirs.

The client that is given stays as it is. What is returned is a copy of it by its own `copy`, with a shallow copy of its
HTTP client, in which each transport, those of proxies too, has ours before it. So all survives that belongs to the HTTP
client: base URL, proxies, certificates, limits of connections, cookies, hooks, and transports of another kind, such as
aiohttp's. To make a new HTTP client with `transport=` loses all of these, proxies of the environment first; to
change the given one in place would limit whoever else uses it. Tried on versions 1.109, 2.54 and 3.52 of the SDK.

Copy and original share their connections, and closing either closes them. The SDK's own HTTP client also closes when it
is garbage. So the copy keeps the original alive, and does not close when it is garbage itself: that is the original's
to do, which may still be in use.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, TypeVar

from ratelimit.errors import BadClient
from ratelimit.wire.sdk_desk import Limiter
from ratelimit.wire.sdk_transport import AsyncLimitedTransport, LimitedTransport

C = TypeVar("C")


def limited(client: C, limiter: Limiter, *, priority: float = 0, deadline: float | None = None) -> C:
    """Return a client like this one whose requests wait for their turn; raises `BadClient` for what is none."""
    if limiter_of(client) is not None:
        raise BadClient(
            _named(client), "is limited already", "limit the client it was made from, with share= to share limits"
        )
    original: Any = client
    http = copy.copy(original._client)  # noqa: SLF001 - there is no public way to it
    kind = AsyncLimitedTransport if hasattr(http, "aclose") else LimitedTransport
    http._transport = kind(http._transport, limiter, priority=priority, deadline=deadline)  # noqa: SLF001 - as above
    http._mounts = {  # noqa: SLF001 - as above
        pattern: transport and kind(transport, limiter, priority=priority, deadline=deadline)
        for pattern, transport in http._mounts.items()  # noqa: SLF001 - as above
    }
    http._original = original._client  # noqa: SLF001 - ours, to keep it alive
    http.__class__ = _patient(http.__class__)
    made: C = original.copy(http_client=http, max_retries=0)
    return made


def limiter_of(client: object) -> Limiter | None:
    """Return what limits a client, or None; raises `BadClient` for what is no client of the SDK."""
    http = getattr(client, "_client", None)
    if http is None or not hasattr(http, "_transport") or not hasattr(client, "copy"):
        raise BadClient(_named(client), "is no client of the OpenAI SDK", "pass an AsyncOpenAI() or an OpenAI()")
    limiter = getattr(http._transport, "limiter", None)  # noqa: SLF001 - there is no public way to it
    return limiter if isinstance(limiter, Limiter) else None


@cache
def _patient(kind: type) -> type:
    """Return a class of HTTP clients that does nothing when it is garbage."""
    return type(kind.__name__, (kind,), {"__del__": lambda _: None}) if hasattr(kind, "__del__") else kind


def _named(client: object) -> str:
    return client.__name__ if isinstance(client, type) else type(client).__name__
