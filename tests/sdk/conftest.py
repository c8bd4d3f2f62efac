"""The drop-in under the SDK itself: run by `make sdk` with each generation of it in an environment of its own."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ratelimit.admission.blocking import Background
from ratelimit.limits.tiers import Model, Table, TierLimits
from ratelimit.openai import rate_limited
from ratelimit.testing.mock import Limits, MockServer
from ratelimit.wire.sdk_desk import Limiter
from ratelimit.wire.sender import Sender

MODEL = "gpt-4o-mini"
NAMES = (MODEL, "text-embedding-3-small", "omni-moderation")
HELLO: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}

_HERE = importlib.util.find_spec("openai") is not None
collect_ignore_glob = [] if _HERE else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _HERE:
        terminalreporter.write_line("tests/sdk is left to `make sdk`: the openai package is not installed here")


def table(rpm: int = 60, tpm: int = 200_000) -> Table:
    """One tier on which every model may do the same."""
    return Table({name: Model(name, tiers={"tier-1": TierLimits(rpm, None, tpm)}) for name in NAMES})


def mock_of(rpm: int = 60, tpm: int = 200_000, **options: Any) -> MockServer:
    return MockServer(models=dict.fromkeys(NAMES, Limits(rpm=rpm, tpm=tpm)), **options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def openai() -> Any:
    return importlib.import_module("openai")


@pytest.fixture
def http(openai: Any) -> Any:
    """The HTTP library that this generation of the SDK uses."""
    return importlib.import_module("httpx2" if int(openai.__version__.partition(".")[0]) > 2 else "httpx")


@pytest.fixture
async def mock() -> AsyncIterator[MockServer]:
    async with mock_of() as server:
        yield server


@pytest.fixture
async def bare(openai: Any, mock: MockServer) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test", timeout=5) as client:
        yield client


@pytest.fixture
async def client(bare: Any) -> Any:
    return rate_limited(bare, table=table())


@pytest.fixture
def served() -> Iterator[tuple[MockServer, Background]]:
    """A mock server on a loop and in a thread of its own, for clients that block."""
    background = Background()
    server = background.call(lambda: mock_of(rpm=6000))
    background.run(server.__aenter__())
    yield server, background
    background.run(server.__aexit__())
    background.close()


@pytest.fixture
def blocking(openai: Any, served: tuple[MockServer, Background]) -> Iterator[Any]:
    with openai.OpenAI(base_url=served[0].base_url, api_key="sk-test", timeout=5) as client:
        yield rate_limited(client, table=table(rpm=6000))


def limiter_of(client: Any) -> Limiter:
    found: Limiter = client._client._transport.limiter
    return found


def sender_of(client: Any) -> Sender:
    """What sends for a client that has sent something."""
    (desk,) = limiter_of(client)._desks.values()
    return desk.sender


def lane_of(client: Any) -> Any:
    (status,) = sender_of(client).gate.scheduler.snapshot()
    return status


async def elapsed(work: Callable[[], Any]) -> float:
    """Seconds of the loop's clock that something takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work()
    return loop.time() - began
