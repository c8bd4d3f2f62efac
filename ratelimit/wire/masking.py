"""Hides the key where a server repeats it: replies end in files, in logs and on terminals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = ("Authorization", "api-key")
_MASK = "***"
_SHORTEST = 8  # characters of a key that is worth hiding; what a local server takes for one may be any word


class Mask:
    """Knows the key that some headers send, and takes it out of whatever comes back."""

    __slots__ = ("_bytes", "_key")

    def __init__(self, headers: Mapping[str, str]) -> None:
        words = next((words for name in _KEYS if (words := headers.get(name, "").split())), [""])
        self._key = words[-1] if len(words[-1]) >= _SHORTEST else ""  # before it stands what kind of key it is
        self._bytes = self._key.encode()

    def body(self, raw: bytes) -> bytes:
        """Return bytes without the key."""
        return raw.replace(self._bytes, _MASK.encode()) if self._key and self._bytes in raw else raw

    def text(self, said: str) -> str:
        """Return text without the key."""
        return said.replace(self._key, _MASK) if self._key else said

    def rows(self, headers: Any) -> Mapping[str, str]:
        """Return headers without the key, whose names are still of any case."""
        if not self._key or self._key not in "\n".join(headers.values()):
            return headers  # type: ignore[no-any-return]  # the library's own mapping, as it came
        masked = headers.copy()
        masked.update({name: self.text(value) for name, value in headers.items()})
        return masked  # type: ignore[no-any-return]  # a copy of the same
