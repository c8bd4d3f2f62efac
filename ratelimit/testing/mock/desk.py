"""The endpoints that no model is behind: models, files and batches. They are under no rate limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from ratelimit.testing.mock import refusals
from ratelimit.testing.mock.accounts import Account
from ratelimit.testing.mock.batches import Batches
from ratelimit.testing.mock.bodies import read_body
from ratelimit.testing.mock.files import Files
from ratelimit.testing.mock.refusals import Refused
from ratelimit.testing.mock.replies import Reply
from ratelimit.testing.mock.service import Service
from ratelimit.testing.mock.stats import Record

_PIECE = 256 * 1024
_MADE = 1_700_000_000  # when the mock's models were made, if anyone asks

_Handler = Callable[[web.BaseRequest, Account, str], Awaitable[Any]]


class Desk:
    """Answers by method and path, `*` standing for the name in the middle or at the end of a path."""

    def __init__(self, service: Service, files: Files, batches: Batches) -> None:
        self._service = service
        self._files = files
        self._batches = batches
        self._handlers: dict[tuple[str, str], _Handler] = {
            ("GET", "models"): self._models,
            ("GET", "models/*"): self._model,
            ("POST", "files"): self._upload,
            ("GET", "files"): self._list_files,
            ("GET", "files/*"): self._file,
            ("GET", "files/*/content"): self._content,
            ("DELETE", "files/*"): self._delete,
            ("POST", "batches"): self._create,
            ("GET", "batches"): self._list_batches,
            ("GET", "batches/*"): self._batch,
            ("POST", "batches/*/cancel"): self._cancel,
        }

    async def answer(self, request: web.BaseRequest, record: Record) -> web.StreamResponse:
        """Answers a request, or Refused: 401 first, then 404."""
        account = self._service.accounts.of(request.headers)
        record.organization, record.project = account.organization, account.project
        parts = request.path.removeprefix("/v1/").split("/")
        name = parts[1] if len(parts) > 1 else ""
        pattern = "/".join([parts[0], *("*" for _ in parts[1:2]), *parts[2:]])
        handler = self._handlers.get((request.method, pattern))
        if handler is None or (len(parts) > 1 and not name):
            raise Refused(refusals.unknown_url(request.method, request.path))
        body = await handler(request, account, name)
        if isinstance(body, web.StreamResponse):
            return body
        lines = "content-type: application/json\r\nopenai-version: 2020-10-01\r\nx-request-id: "
        lines += f"{self._service.request_id(record.number)}\r\n"
        return Reply(200, lines, msgspec.json.encode(body) + b"\n").whole()

    async def _models(self, _request: web.BaseRequest, _account: Account, _name: str) -> Any:
        data = [_about(each.name) for each in self._service.catalogue.families()]
        return {"object": "list", "data": data}

    async def _model(self, _request: web.BaseRequest, _account: Account, name: str) -> Any:
        if self._service.catalogue.find(name) is None:
            raise Refused(refusals.model_not_found(name))
        return _about(name)

    async def _upload(self, request: web.BaseRequest, account: Account, _name: str) -> Any:
        return await self._files.upload(request, account.organization, self._service.behaviour.body_timeout)

    async def _list_files(self, request: web.BaseRequest, account: Account, _name: str) -> Any:
        return self._files.listed(account.organization, request.query.get("purpose"))

    async def _file(self, _request: web.BaseRequest, account: Account, name: str) -> Any:
        return self._files.get(account.organization, name).about

    async def _content(self, request: web.BaseRequest, account: Account, name: str) -> Any:
        path = self._files.get(account.organization, name).path
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        response.content_length = path.stat().st_size
        await response.prepare(request)
        with path.open("rb") as opened:
            while piece := opened.read(_PIECE):
                await response.write(piece)
        await response.write_eof()
        return response

    async def _delete(self, _request: web.BaseRequest, account: Account, name: str) -> Any:
        return self._files.delete(account.organization, name)

    async def _create(self, request: web.BaseRequest, account: Account, _name: str) -> Any:
        behaviour = self._service.behaviour
        return self._batches.create(account, await read_body(request, behaviour.most_body, behaviour.body_timeout))

    async def _list_batches(self, request: web.BaseRequest, account: Account, _name: str) -> Any:
        wanted = request.query.get("limit", "20")
        limit = min(max(int(wanted), 1), 100) if wanted.isdecimal() else 20
        return self._batches.listed(account, request.query.get("after"), limit)

    async def _batch(self, _request: web.BaseRequest, account: Account, name: str) -> Any:
        return self._batches.get(account, name).about

    async def _cancel(self, _request: web.BaseRequest, account: Account, name: str) -> Any:
        return self._batches.cancel(account, name)


def _about(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _MADE, "owned_by": "system"}
