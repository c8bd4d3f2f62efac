"""The mock server itself: its settings, its socket, its paths.

A low-level aiohttp server with a dictionary of paths, since a router costs as much as answering does here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import refusals
from ratelimit.testing.mock.accounts import Account, Accounts, Counters
from ratelimit.testing.mock.answers import Writer
from ratelimit.testing.mock.batches import Batches, Pace
from ratelimit.testing.mock.catalogue import Catalogue, Limits
from ratelimit.testing.mock.charges import PROFILES, Profile
from ratelimit.testing.mock.control import Control
from ratelimit.testing.mock.counting import ENFORCEMENTS, Enforcement
from ratelimit.testing.mock.desk import Desk
from ratelimit.testing.mock.endpoints import ENDPOINTS
from ratelimit.testing.mock.faults import Fault, Faults, build, parse
from ratelimit.testing.mock.files import Files
from ratelimit.testing.mock.refusals import Refused
from ratelimit.testing.mock.service import Behaviour, Service
from ratelimit.testing.mock.spreads import spread
from ratelimit.testing.mock.stats import Stats

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Spreadable = float | tuple[float, float] | str
_BACKLOG = 8192


class MockServer:
    """A server on this machine that limits, answers and fails like the service.

    `async with MockServer(tier="tier-1") as mock:` listens on a free port of 127.0.0.1; `mock.base_url` ends in `/v1`.
    """

    def __init__(
        self,
        *,
        tier: str = "tier-1",
        models: Iterable[str] | Mapping[str, Limits] | None = None,
        enforce: Enforcement = "bucket",
        charge: Profile = "chat_2025",
        latency: Spreadable = 0.0,
        token_delay: float = 0.0,
        output_tokens: Spreadable = (16, 64),
        reasoning_tokens: Spreadable = (64, 256),
        echo: bool = False,
        seed: int = 0,
        rpm: int | None = None,
        rpd: int | None = None,
        tpm: int | None = None,
        tpd: int | None = None,
        images: int | None = None,
        batch_queue: int | None = None,
        batch_speed: float = 1000.0,
        batch_delay: float = 0.5,
        batch_release_lag: float = 0.0,
        keys: Mapping[str, Account] | None = None,
        organization_limits: Mapping[str, Limits] | None = None,
        project_limits: Mapping[str, Limits] | None = None,
        count_rejected: bool = False,
        responses_429_headers: bool = True,
        faults: Iterable[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        log: str | Path | None = None,
        epoch: float | None = None,
        most_body: int = 32 * 1024 * 1024,
        body_timeout: float = 60.0,
    ) -> None:
        if enforce not in ENFORCEMENTS:
            raise BadMockOption("--enforce", enforce, f"choose one of {', '.join(ENFORCEMENTS)}")
        if charge not in PROFILES:
            raise BadMockOption("--charge", charge, f"choose one of {', '.join(PROFILES)}")
        self._host, self._port = host, port
        self._log = Path(log) if log is not None else None
        self._epoch = epoch
        overrides = Limits(rpm, rpd, tpm, tpd, images, batch_queue)
        standing = Faults(seed)
        for spec in faults:
            standing.add(parse(spec))
        self.service: Service = Service(
            behaviour=Behaviour(
                charge=charge,
                latency=spread(latency, "--latency"),
                token_delay=token_delay,
                count_rejected=count_rejected,
                responses_429_headers=responses_429_headers,
                most_body=most_body,
                body_timeout=body_timeout,
            ),
            catalogue=Catalogue(tier, models, overrides),
            accounts=Accounts(keys),
            counters=Counters(enforce, organization_limits, project_limits),
            writer=Writer(
                seed, spread(output_tokens, "--output-tokens"), spread(reasoning_tokens, "--reasoning-tokens"), echo
            ),
            faults=standing,
            seed=seed,
        )
        self.service.on_refuse = self.refuse
        self._files = Files(self.service.today)
        self._batches = Batches(
            files=self._files,
            catalogue=self.service.catalogue,
            counters=self.service.counters,
            writer=self.service.writer,
            pace=Pace(batch_speed, batch_delay, batch_release_lag),
            today=self.service.today,
            request_id=self.service.request_id,
        )
        self._desk = Desk(self.service, self._files, self._batches)
        changes: dict[str, Callable[..., None]] = {
            "fail_next": self._fail_next,
            "clear_faults": self.clear_faults,
            "set_limits": self.set_limits,
        }
        self._control = Control(self.service, changes)
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._routes = self._paths()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.service.start(loop, time.time() if self._epoch is None else self._epoch)
        if self._log is not None:
            try:
                self.service.log = self._log.open("ab", buffering=0)
            except OSError as error:
                raise BadMockOption(
                    "--log", str(self._log), f"{error.strerror}; name a file that can be made"
                ) from None
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=0
        )
        await self._runner.setup()
        await self._listen(self._runner)
        for fault in self.service.faults.standing:
            if fault.kind == "refuse" and fault.begin >= 0:
                self._spawn(self._refuse_later(fault))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._batches.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._files.close()
        if self.service.log is not None:
            self.service.log.close()
            self.service.log = None

    def __repr__(self) -> str:
        stats = self.stats
        return f"<MockServer {self.base_url}: {stats.arrived} arrived, {stats.in_flight} in flight>"

    @property
    def base_url(self) -> str:
        """What a client is given; ends in `/v1`."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """Where `/_mock/` is found."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def stats(self) -> Stats:
        """What has arrived so far."""
        return self.service.stats

    def fault(self, spec: str) -> None:
        """Adds a standing fault, written as on the command line."""
        self.service.faults.add(parse(spec))

    def fail_next(self, kind: str, times: int = 1, **options: Any) -> None:
        """Lets the next `times` requests fail, before any standing fault is asked."""
        self._fail_next(build(kind, {"times": times, **options}))

    def _fail_next(self, fault: Fault) -> None:
        if fault.kind == "limits":
            raise BadMockOption("fail_next", "limits", "change limits with set_limits() or a standing fault")
        self.service.faults.next.append(fault)

    def clear_faults(self) -> None:
        """Ends all faults; limits they changed are as before."""
        self.service.faults.clear()
        self.service.restore_limits()

    def set_limits(self, **limits: int | None) -> None:
        """Puts other limits over those of every model, in mid-run; called with none, the usual ones are back."""
        self.service.counters.retune(Limits(**limits))

    def revoke(self, key: str) -> None:
        """Lets no request with this key in any more."""
        self.service.accounts.revoke(key)

    def refuse(self, seconds: float) -> None:
        """Refuses connections for a while, and resets those that are open when they are used."""
        self.service.refusing_until = max(self.service.refusing_until, self.service.elapsed() + seconds)
        self._spawn(self._refuse(seconds))

    async def _refuse_later(self, fault: Fault) -> None:
        await asyncio.sleep(max(fault.begin - self.service.elapsed(), 0))
        self.refuse(fault.end - fault.begin)

    async def _refuse(self, seconds: float) -> None:
        if self._site is None or self._runner is None:
            return
        site, self._site = self._site, None
        await site.stop()
        await asyncio.sleep(seconds)
        await self._listen(self._runner)

    async def _listen(self, runner: web.ServerRunner) -> None:
        site = web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG, reuse_address=True)
        try:
            await site.start()
        except socket.gaierror as error:
            raise BadMockOption("--host", self._host, f"{error.strerror}; give an address of this machine") from error
        except OSError as error:
            raise BadMockOption("--port", self._port, f"{error.strerror or error}; choose another, or 0") from error
        self._port = runner.addresses[0][1]
        self._site = site

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _paths(self) -> dict[tuple[str, str], Handler]:
        service = self.service
        routes: dict[tuple[str, str], Handler] = {}
        for path, endpoint in ENDPOINTS.items():
            routes["POST", path] = partial(service.handle, path, partial(service.answer, endpoint))
        return routes

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = self._routes.get((request.method, request.raw_path))
        if handler is not None:
            return await handler(request)
        path = request.path
        if (handler := self._routes.get((request.method, path.rstrip("/")))) is not None:
            return await handler(request)
        if path.startswith("/v1/"):
            return await self.service.handle(path, self._desk.answer, request)
        try:
            if path.startswith("/_mock"):
                return await self._control.answer(request)
            problem = refusals.unknown_url(request.method, path)
        except Refused as refused:
            problem = refused.problem
        return self.service.refusal(problem, 0)
