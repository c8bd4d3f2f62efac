"""Where log lines go while a command runs: to standard error, above the live panel where there is one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ratelimit.cli.complaints import tell


class _ToStderr(logging.Handler):
    """Says each line as everything else is said."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        at = datetime.fromtimestamp(record.created).astimezone()
        tell(f"{at:%H:%M:%S} {record.levelname.lower()} {record.getMessage()}")


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
