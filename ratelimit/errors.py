"""Every error a user can meet.

One base, so that a program can catch the project's errors in one line; one class for each thing a program may want to
tell apart. A message names the thing, the value, and what to do about it.
"""

from __future__ import annotations


class RateLimitError(Exception):
    """Anything this project raises on purpose."""
