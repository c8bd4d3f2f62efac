"""The mock server in a process of its own, as `ratelimit mock` starts it, and what it says it has seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Mock:
    """A server that runs."""

    root: str

    @property
    def base_url(self) -> str:
        """Where a client sends to."""
        return f"{self.root}/v1"

    def stats(self) -> dict[str, Any]:
        """Return what it has counted."""
        with urllib.request.urlopen(f"{self.root}/_mock/stats", timeout=_PATIENCE) as reply:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(reply)
        return found


@contextmanager
def serving(arguments: Sequence[str]) -> Iterator[Mock]:
    """Run a mock server on a free port for as long as the block lasts."""
    command = [sys.executable, "-m", "ratelimit", "mock", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("mock server on "):
            raise RuntimeError(f"the mock server did not start: {' '.join(command)}")
        yield Mock(line.removeprefix("mock server on ").split(",")[0].removesuffix("/v1"))
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
