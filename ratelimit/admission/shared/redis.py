"""Shared limits in Redis or Valkey: one script per lease, on the server's own clock.

A lane is one key, so a cluster keeps it on one server, and whichever of them is named leads to the others. The script
is sent again whenever a server has forgotten it. The key says when it may be forgotten itself: when an empty lane would
say the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha1
from importlib.resources import files
from ssl import SSLCertVerificationError
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from ratelimit.admission.shared.store import Answer, Ask, LaneSeen, StoreAway
from ratelimit.errors import RateLimitError, StoreUnusable

try:
    import redis.asyncio as redis
    from redis import exceptions as wrong
except ImportError:  # an extra
    redis = None  # type: ignore[assignment]

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

PREFIX: Final = "ratelimit:lane:"
_OLDEST: Final = 6
_SECONDS: Final = 0.5  # for a connection or an answer; who asks waits less


class RedisStore:
    """Lanes in a server; `clock` is for tests that own the time."""

    def __init__(self, url: str, clock: Callable[[], int] | None = None) -> None:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        self.where: str = (
            f"unix://{parts.path}" if parts.scheme == "unix" else f"{parts.scheme}://{parts.hostname}{port}"
        )
        if redis is None:
            raise StoreUnusable(
                self.where, "the library redis is not installed", "pip install 'ratelimit-scheduler[redis]'"
            )
        self._clock = clock
        self._url = url
        self._client: Any = self._connected(redis.Redis)
        self._alone: Any = None  # the client of one server, when it has turned out to be one of a cluster
        self._script = files("ratelimit.admission.shared").joinpath("lease.lua").read_text("utf-8")
        self._digest = sha1(self._script.encode(), usedforsecurity=False).hexdigest()  # what Redis calls a script
        self._answer = msgspec.msgpack.Decoder(Answer).decode
        self._lane = msgspec.msgpack.Decoder(LaneSeen).decode

    async def check(self) -> None:
        """Raise for a server that does not answer, does not let us in, or is too old."""
        try:
            told = await self._translated(self._client.info("server"))
        except StoreAway as error:
            raise StoreUnusable(
                self.where, f"does not answer ({error})", "start it, correct the URL, or set RATELIMIT_SHARED=off"
            ) from None
        version = str(told.get("redis_version", "0"))
        if int(version.partition(".")[0]) < _OLDEST:
            raise self._old(f"Redis {version}")
        if told.get("redis_mode") == "cluster":
            self._join()

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease."""
        return self._answer(await self._run(PREFIX + group, msgspec.msgpack.encode(ask)))

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        return [self._lane(await self._run(key, b"")) for key in await self._translated(self._keys())]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        if self._alone is not None:
            await self._alone.aclose()

    async def _keys(self) -> list[Any]:
        return [key async for key in self._client.scan_iter(match=f"{PREFIX}*", count=1000)]

    async def _run(self, key: Any, question: bytes) -> bytes:
        now = "" if self._clock is None else self._clock()
        return cast("bytes", await self._translated(self._evaluated(key, question, now)))

    async def _evaluated(self, *given: Any) -> Any:
        try:
            return await self._client.evalsha(self._digest, 1, *given)
        except wrong.NoScriptError:
            return await self._client.eval(self._script, 1, *given)
        except wrong.MovedError:
            self._join()
            return await self._evaluated(*given)

    def _join(self) -> None:
        """Go on with all servers of the cluster that this one belongs to."""
        if self._alone is None:  # which others may still be asking
            try:
                cluster = self._connected(redis.RedisCluster)
            except wrong.RedisClusterException:
                remedy = "name one of its servers by host and port, and no database: redis://HOST:PORT"
                raise self._unusable("is one of a cluster", remedy) from None
            self._alone, self._client = self._client, cluster

    def _connected(self, kind: Any) -> Any:
        return kind.from_url(self._url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)

    async def _translated(self, work: Awaitable[T]) -> T:
        """Wait for `work`, with what goes wrong as one of our errors; none of theirs shows the password."""
        try:
            return await work
        except wrong.AuthenticationError as error:
            raise self._locked(str(error)) from None
        except wrong.NoPermissionError:
            raise self._forbidden() from None
        except (wrong.OutOfMemoryError, wrong.ResponseError) as error:
            raise self._refusal(str(error)) from None
        except (wrong.RedisError, wrong.RedisClusterException, OSError) as error:
            if (untrusted := _behind(error, SSLCertVerificationError)) is not None:
                remedy = "name the authority in the URL, as ?ssl_ca_certs=FILE, or correct the host"
                raise self._unusable(f"is not to be trusted ({untrusted.verify_message})", remedy) from None
            if _behind(error, wrong.NoPermissionError) is not None:  # to ask for the servers of the cluster
                raise self._forbidden() from None
            raise StoreAway(type(error).__name__) from None
        except AttributeError:  # of the library's, where a connection is given up while it is being made
            raise StoreAway("ConnectionError") from None

    def _refusal(self, why: str) -> RateLimitError:
        if "FOREIGN" in why or "WRONGTYPE" in why:
            return self._unusable(
                f"has keys of another program under {PREFIX}", "use another database, such as redis://HOST/1"
            )
        if "OOM" in why or "maxmemory" in why:
            return self._unusable("is full (maxmemory)", "give it more memory, or let it evict keys that expire")
        if "NOAUTH" in why or "WRONGPASS" in why:
            return self._locked(why)
        if "unknown command" in why and "HELLO" in why:
            return self._old(f"older than Redis {_OLDEST}")
        if "DB index" in why:
            return self._unusable(
                f"has no such database ({why})", "use a lower number in the URL, such as redis://HOST/0"
            )
        return StoreAway(why)

    def _old(self, age: str) -> StoreUnusable:
        return self._unusable(f"is {age}", f"use Redis {_OLDEST} or later, or Valkey")

    def _locked(self, why: str) -> StoreUnusable:
        """Return that we are not let in; what the server says is long, and is about its protocol."""
        short = "wrong user or password" if "invalid" in why or "WRONGPASS" in why else "it wants a password"
        return self._unusable(f"does not let us in ({short})", "put user and password into the URL")

    def _forbidden(self) -> StoreUnusable:
        remedy = f"allow it all commands on {PREFIX}*, or put another user into the URL"
        return self._unusable("does not let this user do what is needed", remedy)

    def _unusable(self, problem: str, remedy: str) -> StoreUnusable:
        return StoreUnusable(self.where, problem, remedy)


def _behind(error: BaseException | None, kind: type[E]) -> E | None:
    """Return what of this kind has led to an error, if anything has."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
