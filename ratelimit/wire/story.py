"""What is told of a request once it is done with, all its attempts included.

A story is begun only where somebody hears of such things, so that nobody else pays for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from ratelimit.admission.events import Attempt, Audience, Finished
from ratelimit.errors import RateLimitError, RequestFailed
from ratelimit.limits.tiers import Model
from ratelimit.wire.messages import Names, Reply, Request, Usage
from ratelimit.wire.transport import NoAnswer, Unsent

_names = msgspec.json.Decoder(Names)


class Story:
    """One request on its way, and what came of each sending."""

    def __init__(self, request: Request, model: Model, audience: Audience) -> None:
        self._request = request
        self._model = model
        self._audience = audience
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._attempts: list[Attempt] = []
        self._reply: Reply | None = None

    def following(self, exchange: Callable[[], Awaitable[Reply]]) -> Callable[[], Awaitable[Reply]]:
        """Return an exchange that is remembered."""

        async def followed() -> Reply:
            began = self._loop.time()
            self._reply, status, error = None, None, None
            try:
                with self._audience.sending():
                    self._reply = await exchange()
                status = self._reply.status
                error = str(status) if status >= 400 else None
            except BaseException as failure:
                error = cause_of(failure)
                raise
            finally:
                self._attempts.append(Attempt(began, self._loop.time(), status, error))
            return self._reply

        return followed

    def end(self, error: BaseException | None = None, usage: Usage | None = None, names: Names | None = None) -> None:
        """Tell it; by the usage and the names in the reply, where a stream has not said others."""
        reply, prices = self._reply, self._model.prices
        if error is None and usage is None and reply is not None and (envelope := reply.envelope()):
            usage = envelope[1]
        tokens = (usage.input, usage.output) if usage else (0, 0)
        if names is None:
            names = _named(reply) if error is None and reply is not None else Names()
        tier = self._request.fields.get("service_tier")
        event = Finished(
            self._model.name,
            self._loop.time(),
            model=self._request.model,
            path=self._request.path,
            service_tier=tier if isinstance(tier, str) else None,
            began=self._began,
            attempts=tuple(self._attempts),
            error=None if error is None else cause_of(error),
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            cost=prices.of(*tokens) if prices else None,
            reply_model=names.model,
            reply_id=names.id,
        )
        self._audience.tell(event, self._loop)


def cause_of(error: BaseException) -> str:
    """Return an error as a word of few, fit to count by."""
    if isinstance(error, RequestFailed):
        return str(error.status)
    if isinstance(error, Unsent | NoAnswer):
        return "unsent" if isinstance(error, Unsent) else "no_answer"
    if isinstance(error, RateLimitError):
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("_")
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "other"


def _named(reply: Reply) -> Names:
    try:
        return _names.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # a stream, or names of another kind
        return Names()
