"""The mock's own endpoints under `/_mock/`: what arrived, what goes wrong next, and other limits in mid-run.

They need no key and are counted nowhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from ratelimit.errors import RateLimitError
from ratelimit.testing.mock.bodies import read_body
from ratelimit.testing.mock.faults import Fault, build, parse
from ratelimit.testing.mock.page import PAGE
from ratelimit.testing.mock.refusals import Problem, Refused
from ratelimit.testing.mock.service import Service

_MOST = 100_000


class Control:
    """Answers by method and path; `change` is what the server lets be done to it."""

    def __init__(self, service: Service, change: Mapping[str, Callable[..., None]]) -> None:
        self._service = service
        self._change = change
        self._handlers: dict[tuple[str, str], Callable[[web.BaseRequest], Awaitable[Any]]] = {
            ("GET", "/_mock/stats"): self._stats,
            ("POST", "/_mock/reset"): self._reset,
            ("GET", "/_mock/faults"): self._faults,
            ("POST", "/_mock/faults"): self._add_fault,
            ("DELETE", "/_mock/faults"): self._clear,
            ("POST", "/_mock/limits"): self._limits,
        }

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request; what is wrong with it is said with 400."""
        if request.path in ("/_mock", "/_mock/") and request.method == "GET":
            return web.Response(text=PAGE, content_type="text/html")
        handler = self._handlers.get((request.method, request.path))
        if handler is None:
            known = ", ".join(f"{method} {path}" for method, path in self._handlers)
            raise Refused(Problem(404, f"No {request.method} {request.path} here; there are GET /_mock/, {known}"))
        try:
            body = await handler(request)
        except (RateLimitError, msgspec.MsgspecError, TypeError, ValueError) as error:
            raise Refused(Problem(400, str(error))) from None
        return web.Response(body=msgspec.json.encode(body) + b"\n", content_type="application/json")

    async def _stats(self, _request: web.BaseRequest) -> Any:
        return self._service.stats.snapshot()

    async def _reset(self, _request: web.BaseRequest) -> Any:
        self._service.stats.reset()
        return {"reset": True}

    async def _faults(self, _request: web.BaseRequest) -> Any:
        faults = self._service.faults
        return {
            "next": [_shown(each) for each in faults.next],
            "standing": [_shown(each) for each in (*faults.standing, *faults.tuning)],
        }

    async def _add_fault(self, request: web.BaseRequest) -> Any:
        """`{"spec": "500:rate=0.1"}` stands until cleared; `{"kind": "500", "times": 3}` strikes the next requests."""
        given = await _read(request)
        if "spec" in given:
            self._service.faults.add(parse(str(given["spec"])))
        else:
            kind = str(given.pop("kind", ""))
            self._change["fail_next"](build(kind, {"times": 1, **given}))
        return await self._faults(request)

    async def _clear(self, request: web.BaseRequest) -> Any:
        self._change["clear_faults"]()
        return await self._faults(request)

    async def _limits(self, request: web.BaseRequest) -> Any:
        given = await _read(request)
        self._change["set_limits"](**given)
        return {"limits": given}


def _shown(fault: Fault) -> dict[str, Any]:
    return {"kind": fault.kind, "spec": fault.spec, "times": fault.times}


async def _read(request: web.BaseRequest) -> dict[str, Any]:
    return msgspec.json.decode(await read_body(request, _MOST, 60), type=dict[str, Any])
