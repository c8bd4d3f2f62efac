"""Tools to test your own code with: a virtual clock and a mock server."""

from ratelimit.testing.clock import VirtualClockLoop, run

__all__ = ["VirtualClockLoop", "run"]
