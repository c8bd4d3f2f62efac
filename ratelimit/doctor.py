"""Looks at everything a request depends on, one after the other, and says of each what was found and what to do.

Nothing here costs anything but `ask`, which sends one small request, and is called only if the user agrees. The key is
sent where requests would send it, and shown nowhere.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ratelimit.compose import make_client, make_table, make_transport
from ratelimit.errors import NoKey, RateLimitError, UnknownModel, printable
from ratelimit.limits import tokens
from ratelimit.limits.bucket import Limit
from ratelimit.limits.headers import Observed, parse
from ratelimit.limits.readings import Reading
from ratelimit.limits.tiers import TIERS, Model, Table, TierLimits, shipped_path
from ratelimit.settings import NAMES, Settings
from ratelimit.wire.transport import NoAnswer, Transport, Unsent

State = Literal["ok", "note", "wrong"]

_PROMPT: Final = "Say hi."
_LOOK: Final = 15.0  # seconds for a service to show that it is there
_ANSWERED: Final = 60.0  # seconds for it to answer a request


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found; a `wrong` one is in the way of every request."""

    what: str
    state: State
    said: str


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Yield a finding for each thing that costs nothing to look at."""
    for each in (*_settings(settings), _key(settings), _table(settings), _tokenizer()):
        yield each
    yield await _service(settings)


async def ask(settings: Settings, model: Model) -> AsyncIterator[Finding]:
    """Send one small request, and yield what its reply's headers claim beside what the table has."""
    try:
        async with make_client(settings, table=make_table(settings)) as client:
            body = {
                "model": model.name,
                "messages": [{"role": "user", "content": _PROMPT}],
                "max_completion_tokens": 16,
            }
            reply = await client.send(body, deadline=_ANSWERED)
    except RateLimitError as error:
        yield Finding("one request", "wrong", str(error))
        return
    seen = parse(reply.headers)
    claimed = ", ".join(f"{each.limit:,.0f} {_name(each)}" for each in seen.readings if each.limit)
    if not claimed:
        yield Finding("limits", "note", "the reply names none; those of the table are kept to")
        return
    yield Finding("limits", "ok", f"the service claims {claimed} for {model.name}")
    yield _tier(settings, model, seen)


def cheapest(settings: Settings, table: Table) -> Model:
    """Return the model that a chat costs least with, of those the tier can use."""
    able = [each for each in table.models.values() if each.tiers.get(settings.tier) and _chats(each)]
    if not able:
        raise UnknownModel("(none that chats on this tier)", [])
    return min(able, key=lambda model: (_price(model), model.name))


def alike(model: Model, seen: Observed) -> list[str]:
    """Return the tiers whose limits for a model are those that a reply claims, as far as it claims any."""
    return [tier for tier in TIERS if (limits := model.tiers.get(tier)) and _agrees(limits, seen)]


def _settings(settings: Settings) -> Iterator[Finding]:
    for name in NAMES:
        if name == "api_key" or name not in settings.origins:
            continue
        value = printable(str(getattr(settings, name)))
        yield Finding("setting", "ok", f"{name} = {value}, by {settings.origin(name)}")
    if not settings.origins.keys() - {"api_key"}:
        yield Finding("setting", "note", f"nothing is set, so all defaults hold: {settings.tier}, {settings.base_url}")


def _key(settings: Settings) -> Finding:
    if settings.api_key:
        return Finding("key", "ok", f"there is one (not shown), by {settings.origin('api_key')}")
    try:
        make_transport(settings)
    except NoKey as error:
        return Finding("key", "wrong", str(error))
    return Finding("key", "note", "there is none; this service may want none")


def _table(settings: Settings) -> Finding:
    path = settings.tiers_file or shipped_path()
    try:
        table = make_table(settings)
    except RateLimitError as error:
        return Finding("tables", "wrong", str(error))
    dates = sorted(
        {source.as_of for model in table.models.values() for source in model.sources.values() if source.as_of}
    )
    as_of = f", figures of {dates[0]} to {dates[-1]}" if dates else ""
    own = f"; {printable(str(path))} over those that ship" if settings.tiers_file else ", as they ship"
    return Finding("tables", "ok", f"{len(table.models):,} models{as_of}{own}")


def _tokenizer() -> Finding:
    began = time.perf_counter()
    try:
        found = tokens.count(_PROMPT, "o200k_base")
    except Exception as error:  # noqa: BLE001 - a broken installation can raise anything
        return Finding("tokenizer", "wrong", f"does not load ({printable(str(error), 200)}); install bpe-openai anew")
    return Finding(
        "tokenizer", "ok", f"loads in {time.perf_counter() - began:.1f} s, and counts {found} in {_PROMPT!r}"
    )


async def _service(settings: Settings) -> Finding:
    """Ask for the list of models: it costs nothing, and tells whether the key is taken."""
    where = settings.base_url
    try:
        async with make_transport(settings) as transport:
            began = time.perf_counter()
            status = await _status(transport)
    except NoKey:
        return Finding("service", "note", f"{where} was not asked: there is no key")
    except (Unsent, NoAnswer, TimeoutError, RateLimitError) as error:
        said = printable(str(error), 300) or "no answer"
        return Finding("service", "wrong", f"{where}: {said}; check base_url, network and proxy")
    took = f"answers in {(time.perf_counter() - began) * 1000:,.0f} ms"
    if status in {401, 403}:
        return Finding("service", "wrong", f"{where} {took}, and refuses the key ({status}); give one that it takes")
    if status == 404 and not where.endswith("/v1"):
        said = f"{where} {took}, and has no list of models there (404); if requests fail, too, end base_url in /v1"
        return Finding("service", "note", said)
    if status >= 400:
        return Finding("service", "note", f"{where} {took}, and lists no models ({status}); requests may work")
    return Finding("service", "ok", f"{where} {took}{', and takes the key' if settings.api_key else ''}")


async def _status(transport: Transport) -> int:
    async with asyncio.timeout(_LOOK), transport.exchange("GET", "models") as (reply, _):
        return reply.status


def _tier(settings: Settings, model: Model, seen: Observed) -> Finding:
    """Compare what was claimed with the tier that is set."""
    known = model.tiers.get(settings.tier)
    if known and _agrees(known, seen):
        return Finding("tier", "ok", f"{settings.tier}, and the service says the same")
    like = alike(model, seen)
    table = ", ".join(f"{limit.amount:,.0f} {limit.name}" for limit in known.limits()) if known else ""
    looks = f"it looks like {' or '.join(like)}; set tier to that" if like else "no tier of the table has these limits"
    return Finding("tier", "note", f"{settings.tier} has {table or 'no figures'}; {looks}")


def _agrees(limits: TierLimits, seen: Observed) -> bool:
    """Return whether a tier's limits are those claimed; a day's stand in for a minute's where there are both."""
    allowed = {"requests": {limits.rpm, limits.rpd}, "tokens": {limits.tpm}}
    claimed = [(each.unit, each.limit) for each in seen.readings if each.limit and each.unit in allowed]
    return bool(claimed) and all(amount in allowed[unit] for unit, amount in claimed)


def _name(reading: Reading) -> str:
    """Return what people call a limit, if the reply shows over which time it counts."""
    window = reading.window or reading.implied_window()
    name = Limit(reading.unit, 1, window).name if window else reading.unit
    return f"{reading.scope} {name}" if reading.scope != "organization" else name


def _chats(model: Model) -> bool:
    return not model.endpoints or "chat/completions" in model.endpoints


def _price(model: Model) -> float:
    return model.prices.output if model.prices else math.inf
