"""The same jobs through what people use instead, each in an environment of its own."""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run the comparison."""
    from bench.peers.driver import main as run  # noqa: PLC0415 - clients import this package without our dependencies

    return run(arguments)
