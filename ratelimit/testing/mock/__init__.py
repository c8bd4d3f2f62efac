"""A local server that limits, answers and fails like the real service.

`async with MockServer(tier="tier-1") as mock:` in a test, or `ratelimit mock --tier tier-1` in a terminal.
"""

from __future__ import annotations

from ratelimit.testing.mock.accounts import Account
from ratelimit.testing.mock.catalogue import Limits
from ratelimit.testing.mock.server import MockServer
from ratelimit.testing.mock.stats import Stats

__all__ = ["Account", "Limits", "MockServer", "Stats"]
