"""One POST over aiohttp, with every foreign error translated at this border.

What can go wrong is one of two things to everybody above: `Unsent`, the request cannot have reached the service, or
`NoAnswer`, it may have, and may be billed. Both say why in words.

The key goes to the host it is meant for and nowhere else: no redirect is followed, certificates are verified, and the
headers that hold it are shown by no repr. A reply is read in pieces against a bound on its *decoded* size, so that
neither a hostile nor a compressed body can exhaust memory. Three timers bound three silences (no connection, no first
byte, no next byte), and a fourth the whole; the time a request waited for its turn counts towards none of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ratelimit.errors import HostNotTrusted, RequestFailed
from ratelimit.wire.messages import Reply, Request

_PIECE = 64 * 1024
_MOST_HEADER = 64 * 1024


class Unsent(Exception):
    """The request cannot have reached the service."""


class NoAnswer(Exception):
    """The request may have reached the service, and no usable answer came back."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go, and who they say they are from."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    deployments: bool = False  # Azure: the model is part of the path

    @property
    def host(self) -> str:
        """The host that may see the key."""
        return urlsplit(self.base_url).hostname or self.base_url

    def url(self, request: Request) -> URL:
        """Return where a request goes; its path is that of the public service."""
        path = request.path.removeprefix("/v1")
        if self.deployments:
            path = f"/deployments/{request.model}{path}"
        return URL(self.base_url.rstrip("/") + path).update_query(self.query)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long to wait for what, in seconds, and how much to take, in bytes."""

    connect: float = 10.0
    first_byte: float = 600.0
    between_bytes: float = 60.0
    reply: float = 900.0
    body: int = 64 * 1024 * 1024


class Transport:
    """A pool of connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, bounds: Bounds | None = None, *, connections: int = 1000) -> None:
        self._endpoint = endpoint
        self._bounds = bounds or Bounds()
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, limit_per_host=0, ttl_dns_cache=60),
            headers={"Content-Type": "application/json", **self._endpoint.headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._bounds.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
            auto_decompress=True,
            max_line_size=_MOST_HEADER,
            max_field_size=_MOST_HEADER,
            read_bufsize=_PIECE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def post(self, request: Request) -> Reply:
        """Send a request and return its whole reply; raises `Unsent` or `NoAnswer`."""
        async with self._exchange(request) as (response, timer):
            body = bytearray()
            async for piece in self._pieces(response, timer):
                body += piece
            return Reply(response.status, response.headers, bytes(body))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Send a request; the reply's body comes in pieces, for as long as the context is open."""
        async with self._exchange(request) as (response, timer):
            yield Reply(response.status, response.headers, b""), self._pieces(response, timer)

    @asynccontextmanager
    async def _exchange(self, request: Request) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        bounds = self._bounds
        if self._session is None:
            raise RuntimeError("open the transport with `async with` before sending")
        with _translated(self._endpoint.host):
            async with (
                asyncio.timeout(bounds.connect + bounds.first_byte) as timer,
                self._session.post(self._endpoint.url(request), data=request.body, allow_redirects=False) as response,
            ):
                self._refuse_redirect(response)
                yield response, timer

    async def _pieces(self, response: aiohttp.ClientResponse, timer: asyncio.Timeout) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        end = clock() + self._bounds.reply
        left = self._bounds.body
        while True:
            timer.reschedule(min(clock() + self._bounds.between_bytes, end))
            with _translated(self._endpoint.host):
                piece = await response.content.readany()
            if not piece:
                return
            left -= len(piece)
            if left < 0:
                raise RequestFailed(
                    response.status,
                    "reply_too_large",
                    f"the reply is larger than {self._bounds.body:,} bytes; raise max_body_bytes if that is expected",
                )
            yield piece

    def _refuse_redirect(self, response: aiohttp.ClientResponse) -> None:
        if 300 <= response.status < 400:
            target = response.headers.get("Location", "nowhere")
            raise RequestFailed(
                response.status,
                "redirect_refused",
                f"{self._endpoint.host} redirects to {target[:200]}; the key is not sent there. Correct the base URL",
            )


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Say in two words of ours what aiohttp says in thirty."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise HostNotTrusted(host, str(error.certificate_error)) from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise HostNotTrusted(host, _words(error)) from None
    except aiohttp.ClientHttpProxyError as error:
        raise HostNotTrusted(host, f"the proxy answered {error.status} {error.message}") from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unsent(f"no connection to {host}: {_words(error)}") from None
    except TimeoutError:
        raise NoAnswer(f"{host} was silent for too long") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise NoAnswer(f"the exchange with {host} broke off: {_words(error)}") from None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
