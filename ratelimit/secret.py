"""Text that is not to be seen: what an API key is kept as from where it is read to where it is sent."""

from __future__ import annotations

import hmac
from typing import NoReturn, Self


class Secret:
    """Text that shows itself to nobody who does not ask with `reveal`; it can be copied, but not pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; load the settings again in the process that needs them")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__getstate__()
