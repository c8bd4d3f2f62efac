"""What a value of the right kind must still be, and how one that cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ratelimit.errors import BadSettings, printable
from ratelimit.secret import Secret
from ratelimit.settings.declared import FIELDS, OPENAI, PREFIX, Settings


def check(settings: Settings) -> None:
    """Raise for a value of the right kind that still cannot be."""
    for name, good in _RULES.items():
        if (value := getattr(settings, name)) is not None and not good(value):
            raise refused(name, settings.origin(name), value)
    if settings.azure_api_version and settings.base_url.rstrip("/") == OPENAI:
        raise BadSettings(
            settings.origin("azure_api_version"),
            f"cannot go with {OPENAI}, which is base_url by {settings.origin('base_url')}",
            f"set {PREFIX}BASE_URL to https://NAME.openai.azure.com/openai, or unset it",
        )


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        return False
    plain = not (url.query or url.fragment or "@" in url.netloc) and text.isascii() and text.isprintable()
    return url.scheme in {"http", "https"} and bool(url.hostname) and port_is_one and plain and " " not in text


def _is_key(secret: Secret) -> bool:
    return all("!" <= c <= "~" for c in secret.reveal()) and bool(secret.reveal())


def _is_store(text: str) -> bool:
    if text in {"file", "off"}:
        return True
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        return False
    where = url.path if url.scheme == "unix" else url.hostname
    return url.scheme in {"redis", "rediss", "unix"} and bool(where) and port_is_one and text.isprintable()


_RULES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "base_url": _is_url,
    "api_key": _is_key,
    "tiers_file": Path.is_file,
    "shared": _is_store,
}


def refused(name: str, where: str, value: object) -> BadSettings:
    """Return the error for a value that cannot be; one that may be a key is not shown."""
    hidden = name == "api_key" or (name in {"base_url", "shared"} and "@" in str(value))
    shown = (
        "what it is (not shown)" if hidden else printable(repr(str(value) if isinstance(value, Path) else value), 100)
    )
    return BadSettings(where, f"cannot be {shown}", FIELDS[name].metadata["write"])
