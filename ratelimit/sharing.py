"""Settings in, shared limits out: where they are kept, what a lane is called there, and who we are.

A lane's name in the store is a keyed hash of what its limits belong to: the address, organization, project, API key and
model family. The key is the hash's key, so nothing in the store leads back to it, and other keys share other lanes.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
import time
from asyncio import AbstractEventLoop
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from ratelimit.admission.ledger import LocalLedger
from ratelimit.admission.log import LOGGER
from ratelimit.admission.shared.asking import Membership
from ratelimit.admission.shared.ledger import SharedLedger
from ratelimit.admission.shared.sqlite import SqliteStore
from ratelimit.admission.shared.store import Store
from ratelimit.errors import RateLimitError
from ratelimit.limits.bucket import Limit
from ratelimit.settings import Settings

OFF = "off"
FILE = "file"
GIVEN = "given"


def microseconds() -> int:
    """Return the time that every program on this machine agrees on."""
    return time.time_ns() // 1000


def boottime() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def state_file() -> Path:
    """Return the file of this user's shared limits."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "ratelimit" / "shared.sqlite3"


def make_store(shared: str) -> Store:
    """Return the store of that address; nothing is opened yet."""
    if shared == FILE:
        return SqliteStore(state_file(), microseconds)
    from ratelimit.admission.shared.redis import RedisStore  # noqa: PLC0415 - an extra

    return RedisStore(shared)


def group_of(settings: Settings, lane: str) -> str:
    """Return what a lane is called in the store."""
    key = settings.api_key.reveal() if settings.api_key else ""
    whose = "\n".join((settings.base_url, settings.organization or "", settings.project or "", lane))
    return hmac.new(key.encode(), whose.encode(), "sha256").hexdigest()[:32]


class Sharing:
    """Makes the ledgers of one program's lanes, all with one store: that of the settings, or one that is given."""

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self._settings = settings
        self._address = settings.shared or OFF if store is None else GIVEN
        self._asked_for = store is not None or settings.origin("shared") != "the default"
        self._holder = uuid4().hex
        self._store = store

    async def check(self) -> None:
        """Raise for a store that cannot be used; where nobody has asked for it, say so and go on without."""
        if self._address == OFF:
            return
        try:
            await self._opened().check()
        except RateLimitError as error:
            if self._asked_for:
                raise
            LOGGER.warning("limits are not shared with other programs: %s", error)
            await self.aclose()
            self._address = OFF

    def __call__(self, name: str, limits: Iterable[Limit], loop: AbstractEventLoop) -> LocalLedger:
        """Return the ledger of a lane."""
        settings = self._settings
        if self._address == OFF:
            return LocalLedger(limits, loop.time, slack=settings.slack, longest_wait=settings.longest_wait)
        member = Membership(
            group_of(settings, name),
            f"{name} {settings.tier}",
            f"{self._holder}.{name}",
            f"{Path(sys.argv[0]).name or 'python'} {os.getpid()}@{socket.gethostname()}",
            weight=settings.weight,
            pace=settings.pace,
            stops=settings.when_shared_is_down == "stop",
        )
        return SharedLedger(
            self._opened(), member, limits, loop, boottime, slack=settings.slack, longest_wait=settings.longest_wait
        )

    async def aclose(self) -> None:
        """Let go of the store."""
        store, self._store = self._store, None
        if store:
            await store.aclose()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = make_store(self._address)
        return self._store
