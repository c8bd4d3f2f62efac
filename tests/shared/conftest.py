"""Every kind of store, each with a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, needed
from sharing import Hands

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.redis import RedisStore
from ratelimit.admission.shared.sqlite import SqliteStore
from ratelimit.admission.shared.store import Store


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, hands: Hands, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    match request.param:
        case "memory":
            made = MemoryStore(hands)
        case "sqlite":
            made = SqliteStore(tmp_path / "shared.sqlite3", hands)
        case _:
            made = RedisStore(request.getfixturevalue("redis_server").fresh(), hands)
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real server on a free port of this machine."""
    needed()
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
