"""The drop-in for programs that use the official SDK: one line, and their calls keep to the limits of their tier.

    from openai import AsyncOpenAI
    from ratelimit.openai import rate_limited

    client = rate_limited(AsyncOpenAI(), tier="tier-1")

The result is a client of the same class, which returns the same types and raises the same exceptions.
`docs/drop-in.md` says what is limited and what is not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from ratelimit.admission.events import Observers
from ratelimit.compose import Spent, make_sender, make_table
from ratelimit.errors import BadClient
from ratelimit.limits.tiers import Table
from ratelimit.settings import Secret, Settings, load_settings
from ratelimit.wire.openai import limited, limiter_of
from ratelimit.wire.retry import Policy
from ratelimit.wire.sdk_desk import Limiter, Origin
from ratelimit.wire.sender import Sender

__all__ = ["rate_limited"]

C = TypeVar("C")


def rate_limited(
    client: C,
    *,
    share: object | None = None,
    priority: float = 0,
    deadline: float | None = None,
    observer: Observers = None,
    table: Table | None = None,
    **settings: Any,
) -> C:
    """Return a client like this one whose requests wait for their turn, and are sent again where that helps.

    With `share`, a client that was returned from here, both stand in the same lines. Otherwise `settings` are those of
    the project, such as `tier`, and what is not given comes from the environment and the working directory. `deadline`
    bounds each request in seconds, waiting included; a lower `priority` goes first.

    Other failures than those of limits are retried as often as the given client would have; the returned one has
    `max_retries=0`.
    """
    if share is None:
        limiter = Limiter(_maker(client, table, observer, settings))
    elif settings or table is not None or observer is not None:
        given = sorted({*settings, *(["table"] if table else []), *(["observer"] if observer else [])})
        raise BadClient("share", f"cannot go with {', '.join(given)}", "set them on the client that is shared with")
    elif (found := limiter_of(share)) is None:
        raise BadClient("share", "is a client without limits", "pass one that rate_limited has returned")
    else:
        limiter = found
    return limited(client, limiter, priority=priority, deadline=deadline)


def _maker(client: object, table: Table | None, observer: Observers, given: dict[str, Any]) -> Any:
    settings = load_settings(**given)
    if settings.origin("retry_attempts") == "the default":
        settings = replace(settings, retry_attempts=getattr(client, "max_retries", 0) + 1)
    known = table or make_table(settings)
    # A job waits for an outage to end; here somebody waits for an answer, and each call fails after its attempts.
    policy = Policy(
        attempts=settings.retry_attempts, longest_wait=settings.longest_wait, reserve=math.inf, outlasts=False
    )

    def make(origin: Origin, spent: Spent | None) -> Sender:
        at = _at(origin, client, settings)
        return Sender(make_sender(at, known, observer=observer, spent=spent).gate, policy)

    return make


def _at(origin: Origin, client: object, settings: Settings) -> Settings:
    """Return settings that say where and as whom the client sends, for programs that share limits go by these."""
    found: dict[str, Any] = {}
    if (url := getattr(client, "base_url", None)) is not None:
        scheme, netloc = origin
        place = f"{scheme}://{netloc.decode('ascii', 'replace')}"
        base_url = str(url).rstrip("/")
        found["base_url"] = base_url if f"{base_url}/".startswith(f"{place}/") else place
        found |= {name: getattr(client, name, None) for name in ("organization", "project")}
    if isinstance(key := getattr(client, "api_key", None), str) and key:
        found["api_key"] = Secret(key)
    return replace(settings, **found)
