"""Every kind of store, each with a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sharing import Hands

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.sqlite import SqliteStore
from ratelimit.admission.shared.store import Store


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, hands: Hands, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(hands) if request.param == "memory" else SqliteStore(tmp_path / "shared.sqlite3", hands)
    yield made
    await made.aclose()
