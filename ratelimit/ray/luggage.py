"""Settings on their way to the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ratelimit.secret import Secret
from ratelimit.settings import Settings


class Luggage:
    """Settings that may be pickled: the key is in the bytes that are sent, and in nothing that anybody is shown."""

    __slots__ = ("settings",)

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings = settings

    def __repr__(self) -> str:
        return "<Luggage: the settings of a worker>"

    def __reduce__(self) -> tuple[Callable[[Settings, str | None], Luggage], tuple[Settings, str | None]]:
        key = self.settings.api_key
        return _unpacked, (replace(self.settings, api_key=None), key.reveal() if key else None)


def _unpacked(settings: Settings, key: str | None) -> Luggage:
    return Luggage(replace(settings, api_key=Secret(key) if key else None))
