"""Use an OpenAI-compatible API at exactly the speed your usage tier allows.

    async with ratelimit.open(tier="tier-1") as client:
        reply = await client.chat("gpt-4o-mini", "Why is the sky blue?")

`open` gives a `Client`, and `BlockingClient` is its twin for threads; `Scheduler` limits any async call of your own,
`BlockingScheduler` any call at all; the drop-in for the official SDK is `ratelimit.openai.rate_limited`;
`ratelimit.testing` has a virtual clock and a mock service.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratelimit.admission.blocking import BlockingScheduler
    from ratelimit.admission.scheduler import Scheduler
    from ratelimit.admission.turn import Turn
    from ratelimit.compose import open_client as open  # noqa: A004 - as in gzip.open: it is read with its module
    from ratelimit.errors import RateLimitError
    from ratelimit.limits.bucket import DAY, MINUTE, Limit
    from ratelimit.wire.blocking import BlockingClient
    from ratelimit.wire.client import Client, Result
    from ratelimit.wire.messages import Reply

__version__ = "0.1.0"

__all__ = [
    "DAY",
    "MINUTE",
    "BlockingClient",
    "BlockingScheduler",
    "Client",
    "Limit",
    "RateLimitError",
    "Reply",
    "Result",
    "Scheduler",
    "Turn",
    "open",
]

_PLACES = {
    "DAY": "ratelimit.limits.bucket:DAY",
    "MINUTE": "ratelimit.limits.bucket:MINUTE",
    "BlockingClient": "ratelimit.wire.blocking:BlockingClient",
    "BlockingScheduler": "ratelimit.admission.blocking:BlockingScheduler",
    "Client": "ratelimit.wire.client:Client",
    "Limit": "ratelimit.limits.bucket:Limit",
    "RateLimitError": "ratelimit.errors:RateLimitError",
    "Reply": "ratelimit.wire.messages:Reply",
    "Result": "ratelimit.wire.client:Result",
    "Scheduler": "ratelimit.admission.scheduler:Scheduler",
    "Turn": "ratelimit.admission.turn:Turn",
    "open": "ratelimit.compose:open_client",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
