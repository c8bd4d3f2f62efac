"""One POST over aiohttp, with every foreign error translated at this border.

What can go wrong is one of two things to everybody above: `Unsent`, the request cannot have reached the service, or
`NoAnswer`, it may have, and may be billed. Both say why in words.

The key goes to the host it is meant for and nowhere else: no redirect is followed, certificates are verified, the
headers that hold it are shown by no repr, and where a reply repeats it, it is masked. A reply is read in pieces against
a bound on its *decoded* size, so that neither a hostile nor a compressed body can exhaust memory. Three timers bound
three silences (no connection, no first byte, no next byte), and a fourth the whole; the time a request waited for its
turn counts towards none of them.

aiohttp's `trust_env` is off: it would look up `.netrc` and the proxies on another thread for every request, and lay a
`.netrc` entry over the key. The proxy of the environment is looked up here, once.
"""

from __future__ import annotations

import asyncio
import errno
import io
import math
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ratelimit.errors import BadSettings, HostNotTrusted, RateLimitError, RequestFailed, printable
from ratelimit.limits.content import endpoint_of
from ratelimit.wire.masking import Mask
from ratelimit.wire.messages import Reply, Request

_PIECE = 64 * 1024
_MOST_HEADER = 64 * 1024
_LARGE = 1024 * 1024  # bodies above this are written in pieces; aiohttp warns of those that are not
_URLS_KEPT = 1000
_SPARE_FILES = 64  # beside connections: logs, the output, the loop's own

# What a proxy answers when it does not let this program through; anything else is its own trouble and may pass.
_PROXY_REFUSES = {401, 403, 407}


class Unsent(Exception):
    """The request cannot have reached the service."""


class NoAnswer(Exception):
    """The request may have reached the service, and no usable answer came back."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go, and who they say they are from."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    query: Mapping[str, str] = field(repr=False, default_factory=dict)
    deployments: bool = False  # Azure: the model is part of the path

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise BadSettings("base_url", "is not one that requests can go to", "an http or https URL without a login")

    @property
    def host(self) -> str:
        """The host that may see the key."""
        return urlsplit(self.base_url).hostname or self.base_url

    def url(self, request: Request) -> URL:
        """Return where a request goes; its path is that of the public service."""
        path = request.path.removeprefix("/v1") if request.path.startswith("/v1/") else request.path
        # What does not begin with a slash would continue the host's name, and send the key there.
        path = "/" + path.lstrip("/")
        if self.deployments and endpoint_of(path) != "responses":  # which Azure has beside its deployments
            path = f"/deployments/{quote(request.model, safe='')}{path}"
        return URL(self.base_url.rstrip("/") + path).update_query(self.query)

    def address(self, path: str, query: Mapping[str, str]) -> URL:
        """Return where something other than a request to a model goes."""
        return URL(f"{self.base_url.rstrip('/')}/{path.lstrip('/')}").update_query({**self.query, **query})


@dataclass(frozen=True, slots=True)
class Form:
    """A file to upload, and the fields that go with it; the file is closed once it was sent."""

    fields: Mapping[str, str]
    name: str
    file: IO[bytes]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long to wait for what, in seconds, and how much to take, in bytes."""

    connect: float = 10.0
    first_byte: float = 600.0
    between_bytes: float = 60.0
    reply: float = 900.0
    body: int = 64 * 1024 * 1024


class Transport:
    """Connections to one endpoint: as many as there are requests in flight, for their number is bounded elsewhere.

    `connections` is how many the process is made ready to open; `room`, how many of them the system lets it, which is
    known once this is open.
    """

    def __init__(self, endpoint: Endpoint, bounds: Bounds | None = None, *, connections: int = 1000) -> None:
        self._endpoint = endpoint
        self._host = endpoint.host
        self._mask = Mask(endpoint.headers)
        # Given with each request: aiohttp sends those of a session to the proxy as well.
        self._headers = {"Content-Type": "application/json", **endpoint.headers}
        self._bounds = bounds or Bounds()
        self.room: int = connections
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._urls: dict[tuple[str, str | None], URL] = {}
        self._translated = _Translated(self._host, self._mask)

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise RuntimeError("this client is open already; open it once, and use it wherever it is needed")
        self.room = max(_allow_files(self.room + _SPARE_FILES) - _SPARE_FILES, 1)
        self._proxy = _proxy_for(self._endpoint.base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._bounds.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
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

    def where(self, request: Request) -> str:
        """Return where a request goes, for people to read."""
        return str(self._endpoint.url(request).with_query(None))

    async def post(self, request: Request) -> Reply:
        """Send a request and return its whole reply; raises `Unsent` or `NoAnswer`."""
        with self._translated:
            async with asyncio.timeout(self._bounds.connect + self._bounds.first_byte) as timer:
                response = self._unredirected(await self._opening(request))
                try:
                    body = await self._whole(response, timer)
                finally:
                    response.close()  # does nothing where the reply was read to its end
        return Reply(response.status, self._mask.rows(response.headers), self._mask.body(body))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Send a request; the reply's body comes in pieces, for as long as the context is open.

        Time runs only while a piece is waited for: what the caller does with the last one takes as long as it takes.
        """
        bounds = self._bounds
        with self._translated:
            async with asyncio.timeout(bounds.connect + bounds.first_byte):
                response = self._unredirected(await self._opening(request))
        try:
            yield Reply(response.status, self._mask.rows(response.headers), b""), self._pieces(response)
        finally:
            response.close()  # does nothing where the reply was read to its end

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        form: Form | None = None,
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Ask for something that no model answers; the reply's body comes in pieces, however many there are."""
        if self._session is None:
            raise RuntimeError("open the client with `async with` before sending")
        bounds = self._bounds
        data: bytes | aiohttp.MultipartWriter | None = body
        headers = dict(self._headers)
        if form:
            parts = aiohttp.FormData(form.fields)
            parts.add_field("file", form.file, filename=form.name, content_type="application/jsonl")
            if not isinstance(writer := parts(), aiohttp.MultipartWriter):
                raise AssertionError("a form with a file is multipart")
            data, headers["Content-Type"] = writer, writer.content_type
        url = self._endpoint.address(path, query or {})
        with self._translated:
            async with asyncio.timeout(bounds.connect + bounds.first_byte):
                response = self._unredirected(
                    await self._session.request(
                        method, url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy
                    )
                )
        try:
            yield Reply(response.status, self._mask.rows(response.headers), b""), self._pieces(response, endless=True)
        finally:
            response.close()

    def _opening(self, request: Request) -> Awaitable[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("open the client with `async with` before sending")
        key = request.path, request.model if self._endpoint.deployments else None
        if (url := self._urls.get(key)) is None:
            if len(self._urls) >= _URLS_KEPT:
                self._urls.clear()
            url = self._urls[key] = self._endpoint.url(request)
        body = request.body
        data = body if len(body) <= _LARGE else io.BytesIO(body)
        return self._session.post(url, data=data, headers=self._headers, allow_redirects=False, proxy=self._proxy)

    def _unredirected(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if 300 <= response.status < 400:
            response.close()
            where = self._mask.text(response.headers.get("Location", "nowhere"))
            raise HostNotTrusted(self._host, f"it redirects to {where[:200]}")
        return response

    async def _whole(self, response: aiohttp.ClientResponse, timer: asyncio.Timeout) -> bytes:
        bounds, content = self._bounds, response.content
        if content.is_eof():  # the usual case: it came in one piece with its headers
            body = content.read_nowait()
        else:
            clock = asyncio.get_running_loop().time
            end = clock() + bounds.reply
            pieces = bytearray()
            while not content.at_eof() and len(pieces) <= bounds.body:
                timer.reschedule(min(clock() + bounds.between_bytes, end))
                pieces += await content.readany()
            body = bytes(pieces)
        if len(body) > bounds.body:
            raise self._too_large(response)
        return body

    async def _pieces(self, response: aiohttp.ClientResponse, *, endless: bool = False) -> AsyncIterator[bytes]:
        bounds = self._bounds
        clock = asyncio.get_running_loop().time
        end = math.inf if endless else clock() + bounds.reply
        left = math.inf if endless else bounds.body
        while not response.content.at_eof():
            with self._translated:
                async with asyncio.timeout_at(min(clock() + bounds.between_bytes, end)):
                    piece = await response.content.readany()
            left -= len(piece)
            if left < 0:
                raise self._too_large(response)
            if piece:
                yield self._mask.body(piece)

    def _too_large(self, response: aiohttp.ClientResponse) -> RequestFailed:
        return RequestFailed(
            response.status,
            "reply_too_large",
            f"the reply is larger than {self._bounds.body:,} bytes; raise max_body_bytes if that is expected",
        )


class _Translated:
    """Says in two words of ours what aiohttp says in thirty; one for all, since it remembers nothing."""

    __slots__ = ("_host", "_mask")

    def __init__(self, host: str, mask: Mask) -> None:
        self._host = host
        self._mask = mask

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, RateLimitError | RuntimeError):
            error.with_traceback(None)  # its frames hold the headers, and some crash reports show what frames hold
            raise _translation(self._host, error, self._mask.text(_words(error))) from None


def _translation(host: str, error: Exception, said: str) -> Exception:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return HostNotTrusted(host, str(error.certificate_error))
        case aiohttp.ClientSSLError():
            return HostNotTrusted(host, said)
        case aiohttp.ClientHttpProxyError() if error.status in _PROXY_REFUSES:
            return HostNotTrusted(host, f"the proxy answered {error.status} {error.message}")
        case aiohttp.ClientHttpProxyError():
            return Unsent(f"no connection to {host}: the proxy answered {error.status} {printable(error.message)}")
        case aiohttp.ClientConnectorError() if error.errno in {errno.EMFILE, errno.ENFILE}:
            return Unsent(f"no connection to {host}: this process may open no more files; raise that with ulimit -n")
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Unsent(f"no connection to {host}: {said}")
        case TimeoutError():
            return NoAnswer(f"{host} was silent for too long")
        case aiohttp.ClientError() | OSError():
            return NoAnswer(f"the exchange with {host} broke off: {said}")
    return error


def _words(error: Exception) -> str:
    # Some of aiohttp's errors show the URL with its query, which may hold a key.
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return printable(said or type(error).__name__, 200)


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    if not (proxy := proxies.get(parts.scheme) or proxies.get("all")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        kind = printable(proxy.partition("://")[0], 20)
        raise BadSettings(f"{parts.scheme}_proxy", f"names a proxy that speaks {kind}", "one that speaks http, or none")
    return proxy


def _allow_files(wanted: int) -> int:
    """Raise what this process may open to `wanted` files, or as near as the system lets it; returns how near."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
