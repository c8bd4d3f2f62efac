"""As much of an SDK client and its HTTP library as the drop-in touches, with a transport that follows a script.

The SDK itself is met in `tests/sdk`; here what matters can be brought about that no server brings about.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self
from urllib.parse import urlsplit

from ratelimit.admission.events import Settled
from ratelimit.limits.tiers import Model, Table, TierLimits
from ratelimit.openai import rate_limited

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**BODY, "stream": True}
DATA = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n'


class Headers(dict[str, str]):
    """Lower-case names."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [(name.title().encode(), value.encode()) for name, value in self.items()]


class AsyncByteStream:
    """What an asynchronous client asserts a stream to be."""


class SyncByteStream:
    """What a synchronous client asserts a stream to be."""


class ByteStream(AsyncByteStream, SyncByteStream):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


class Pieces(AsyncByteStream, SyncByteStream):
    """A body that comes in pieces, an exception among them perhaps."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Response:
    def __init__(
        self, status_code: int, *, headers: Any = (), content: bytes = b"", stream: Any = None, request: Any = None
    ) -> None:
        self.status_code = status_code
        self.headers = Headers(headers)
        self.stream: Any = stream or ByteStream(content)
        self.request = request

    @property
    def content(self) -> bytes:
        raw = b"".join(self.stream)
        return zlib.decompress(raw, 31) if self.headers.get("content-encoding") == "gzip" else raw

    def json(self) -> Any:
        return json.loads(self.content)


class Url:
    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        self.scheme, self.netloc, self.path = parts.scheme, parts.netloc.encode(), parts.path


class Request:
    def __init__(
        self,
        body: object = None,
        url: str = "https://api.openai.com/v1/chat/completions",
        *,
        method: str = "POST",
        content_type: str = "application/json",
        key: str = "one",
    ) -> None:
        self.method = method
        self.url = Url(url)
        self.headers = Headers({"content-type": content_type, "authorization": key})
        self._body = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()

    @property
    def content(self) -> bytes:
        if self._body is None:
            raise RuntimeError("the body is a stream")
        return self._body


class TransportError(Exception):
    """As both HTTP libraries name it."""


class TimeoutException(TransportError):
    """Likewise."""


class ReadTimeout(TimeoutException):
    """Likewise."""


class ConnectError(TransportError):
    """Likewise."""


class ProxyError(TransportError):
    """Likewise."""


class Script:
    """A transport of both kinds that gives the next answer of a list, and the last one for ever."""

    def __init__(self, *answers: Response | Exception | Callable[[], Response]) -> None:
        self.answers = list(answers)
        self.seen: list[Any] = []

    def handle_request(self, request: Any) -> Any:
        self.seen.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else answer()

    async def handle_async_request(self, request: Any) -> Any:
        return self.handle_request(request)

    def close(self) -> None:
        self.seen.append("closed")

    async def aclose(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        self.seen.append("entered")
        return self

    def __exit__(self, *_: object) -> None:
        self.seen.append("left")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


class Http:
    """A synchronous HTTP client."""

    def __init__(self, transport: Any, mounts: dict[str, Any] | None = None) -> None:
        self._transport = transport
        self._mounts = mounts or {}


class AsyncHttp(Http):
    """An asynchronous one."""

    async def aclose(self) -> None: ...


class Sdk:
    """A client of the SDK."""

    def __init__(self, http_client: Http, max_retries: int = 2) -> None:
        self._client = http_client
        self.max_retries = max_retries

    def copy(self, *, http_client: Http, max_retries: int) -> Sdk:
        return Sdk(http_client, max_retries)

    def send(self, request: Request) -> Any:
        return self._client._transport.handle_request(request)

    async def asend(self, request: Request) -> Any:
        return await self._client._transport.handle_async_request(request)


def answer(status: int = 200, body: object = None, **headers: str) -> Response:
    body = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}} if body is None else body
    return Response(
        status, headers=headers, stream=Pieces(body if isinstance(body, bytes) else json.dumps(body).encode())
    )


def trouble(status: int, code: str | None = None, message: str = "no") -> Response:
    return answer(status, {"error": {"message": message, "type": None, "param": None, "code": code}})


def table(rpm: int = 6000) -> Table:
    return Table({"gpt-4o-mini": Model("gpt-4o-mini", tiers={"tier-1": TierLimits(rpm, None, 200_000)})})


class Watched:
    """A limited client over a script, and how its turns have ended."""

    def __init__(self, *answers: Any, retries: int = 0, blocking: bool = False, rpm: int = 6000) -> None:
        self.script = Script(*answers)
        self.ends: list[str] = []
        http = (Http if blocking else AsyncHttp)(self.script)
        self.client = rate_limited(Sdk(http, retries), table=table(rpm), observer=self._see)

    def _see(self, event: object) -> None:
        if isinstance(event, Settled):
            self.ends.append(event.how)

    async def send(self, body: object = None, **options: Any) -> Any:
        return await self.client.asend(Request(BODY if body is None else body, **options))

    @property
    def limiter(self) -> Any:
        return self.client._client._transport.limiter


async def read(response: Response) -> bytes:
    return b"".join([piece async for piece in response.stream])
