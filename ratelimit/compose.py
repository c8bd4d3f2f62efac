"""Settings in, wired objects out: the one place that knows everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ratelimit.admission.events import Observers
from ratelimit.admission.gate import Gate
from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.shared.store import Store
from ratelimit.errors import NoKey
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import Table, load
from ratelimit.settings import Settings, load_settings
from ratelimit.sharing import Sharing
from ratelimit.wire.client import Client
from ratelimit.wire.retry import Policy
from ratelimit.wire.sender import Sender
from ratelimit.wire.transport import Bounds, Endpoint, Transport

_KEYED = "api.openai.com"
_SPARE = 16  # connections beyond the requests in flight, for those that are just being closed

Spent = Mapping[str, Mapping[str, float]]


def make_table(settings: Settings) -> Table:
    """Return the shipped tables with the user's own on top."""
    return load(settings.tiers_file) if settings.tiers_file else load()


def limits_of(settings: Settings, table: Table) -> Callable[[str], Iterable[Limit]]:
    """Return what each lane may do: the tier's limits, under the caps the user has set."""
    own = [
        Limit(unit, amount, window, own=True)
        for unit, amount, window in (
            ("requests", settings.rpm, MINUTE),
            ("requests", settings.rpd, DAY),
            ("tokens", settings.tpm, MINUTE),
        )
        if amount is not None
    ]

    def limits(name: str) -> Iterable[Limit]:
        capped = {(limit.unit, limit.window) for limit in own}
        published = table.limits(name, settings.tier)
        return [*own, *(limit for limit in published if (limit.unit, limit.window) not in capped)]

    return limits


def shared_limits_of(settings: Settings, table: Table) -> Callable[[str], Iterable[Limit]]:
    """Return the same where programs share limits: a lower cap of the user's is this program's beside the tier's."""
    alone = limits_of(settings, table)

    def limits(name: str) -> Iterable[Limit]:
        published = {(limit.unit, limit.window): limit for limit in table.limits(name, settings.tier)}
        for limit in alone(name):
            tier = published.get((limit.unit, limit.window))
            if limit.own and tier and limit.amount < tier.amount:
                yield from (limit, tier)
            else:
                yield replace(limit, own=False)

    return limits


def make_scheduler(
    settings: Settings,
    table: Table,
    *,
    observer: Observers = None,
    spent: Spent | None = None,
    elapsed: float = 0,
    store: Store | None = None,
) -> Scheduler:
    """Return a scheduler for the tier of the settings; `spent` is what an earlier process had used.

    `store` is where limits are shared, if that is not for the settings to say.
    """
    shares = store is not None or settings.shared not in {None, "off"}
    return Scheduler(
        shared_limits_of(settings, table) if shares else limits_of(settings, table),
        concurrency=settings.concurrency,
        slack=settings.slack,
        pace=settings.pace,
        longest_wait=settings.longest_wait,
        observer=observer,
        resume=spent,
        elapsed=elapsed,
        ledgers=Sharing(settings, store) if shares else None,
    )


def make_sender(
    settings: Settings,
    table: Table,
    *,
    observer: Observers = None,
    spent: Spent | None = None,
    elapsed: float = 0,
    store: Store | None = None,
) -> Sender:
    """Return what sends requests through the gate, whoever does the sending."""
    gate = Gate(
        make_scheduler(settings, table, observer=observer, spent=spent, elapsed=elapsed, store=store),
        table.find,
        for_input=table.for_input,
        formula=None if settings.charge_formula == "auto" else settings.charge_formula,
        charges=settings.charges,
    )
    policy = Policy(attempts=settings.retry_attempts, longest_wait=settings.longest_wait, share=settings.retry_share)
    return Sender(gate, policy)


def make_endpoint(settings: Settings) -> Endpoint:
    """Return where requests go, with the headers that say who they are from."""
    key = settings.api_key.reveal() if settings.api_key else None
    host = urlsplit(settings.base_url).hostname or settings.base_url
    if key is None and host == _KEYED:
        raise NoKey(host)
    azure = settings.azure_api_version
    headers = {} if key is None else {"api-key": key} if azure else {"Authorization": f"Bearer {key}"}
    if settings.organization:
        headers["OpenAI-Organization"] = settings.organization
    if settings.project:
        headers["OpenAI-Project"] = settings.project
    return Endpoint(settings.base_url, headers, {"api-version": azure} if azure else {}, deployments=azure is not None)


def make_transport(settings: Settings) -> Transport:
    """Return a pool of connections that is never smaller than what may be in flight."""
    bounds = Bounds(
        connect=settings.connect_timeout,
        first_byte=settings.first_byte_timeout,
        between_bytes=settings.between_bytes_timeout,
        reply=settings.reply_timeout,
        body=settings.max_body_bytes,
    )
    return Transport(make_endpoint(settings), bounds, connections=settings.concurrency + _SPARE)


def make_client(
    settings: Settings,
    *,
    table: Table | None = None,
    observer: Observers = None,
    spent: Spent | None = None,
    elapsed: float = 0,
    store: Store | None = None,
) -> Client:
    """Return a client, to be opened with `async with`."""
    table = table or make_table(settings)
    sender = make_sender(settings, table, observer=observer, spent=spent, elapsed=elapsed, store=store)
    return Client(sender, make_transport(settings), concurrency=settings.concurrency)


def open_client(*, observer: Observers = None, **settings: Any) -> Client:
    """Return a client for these settings; what is not given comes from the environment and the working directory.

    >>> import ratelimit
    >>> ratelimit.open(tier="tier-1", rpm=300)
    <Client <Scheduler no lanes yet>>
    """
    return make_client(load_settings(**settings), observer=observer)
