"""The suite owns the clock: every async test runs in virtual time unless it is marked `real_time`."""

from __future__ import annotations
