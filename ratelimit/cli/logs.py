"""Where log lines go while a command runs: to standard error, above the live panel where there is one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ratelimit.errors import printable


class _ToStderr(logging.Handler):
    """Writes to whatever standard error is at the moment: a panel puts itself in its place, and click goes past it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        at = datetime.fromtimestamp(record.created).astimezone()
        sys.stderr.write(f"{at:%H:%M:%S} {record.levelname.lower()} {printable(record.getMessage(), 2000)}\n")


@contextmanager
def logged(level: str) -> Iterator[None]:
    """Show log lines of this level and above."""
    logger, handler = logging.getLogger("ratelimit"), _ToStderr()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
