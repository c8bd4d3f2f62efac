"""The actor that keeps limits, under the tests that every store is under."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from shared.test_conformance import *  # noqa: F403 - all of them

from ratelimit.admission.shared.store import Store
from ratelimit.ray.store import Keeper, RayStore


class Scripted(Keeper):
    """A keeper whose clock goes where it is set."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        self.now = 1_800_000_000_000_000
        super().__init__(lambda: self.now)

    def pass_by(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)


class FarHands:
    """Sets the clock of an actor."""

    def __init__(self, ray: Any, keeper: Any) -> None:
        self.ray, self.keeper = ray, keeper

    def pass_by(self, seconds: float) -> None:
        self.ray.get(self.keeper.pass_by.remote(seconds))


@pytest.fixture(scope="module")
def keeper(ray: Any) -> Any:
    return ray.remote(Scripted).options(num_cpus=0).remote()


@pytest.fixture
def hands(ray: Any, keeper: Any) -> FarHands:
    ray.get(keeper.begin.remote())
    return FarHands(ray, keeper)


@pytest.fixture
async def store(hands: FarHands) -> AsyncIterator[Store]:
    made = RayStore(hands.keeper)
    await made.check()
    yield made
    await made.aclose()
