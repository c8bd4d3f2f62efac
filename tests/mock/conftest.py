"""A client of the mock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from mock_http import session


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as opened:
        yield opened
