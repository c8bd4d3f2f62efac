"""A real Redis or Valkey server for tests, on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


def needed() -> None:
    """Leave a test out, with the reason, where there can be no server; where one must be, fail."""
    if (why := missing()) is not None:
        (pytest.fail if os.environ.get("NEEDS_REDIS") else pytest.skip)(why)


def missing() -> str | None:
    """Say why there can be none here."""
    if find_spec("redis") is None:
        return "no library redis: pip install redis"
    if program() is None:
        return "no redis-server: apt-get install redis-server"
    return None


def program() -> str | None:
    return os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class RedisServer:
    """One server; its databases are handed out one by one, so that tests share it and not what is in it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._used = 0
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        name = program()
        assert name
        fixed = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        databases = () if "--cluster-enabled" in self._options else ("--databases", "500")
        command = (name, "--port", str(self.port), "--dir", str(self._directory), *fixed, *databases, *self._options)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("redis-server does not listen")

    def say(self, *words: str) -> str:
        """What the server answers to a command, as it writes it."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            said = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%s" % (len(words), said))
            return connection.recv(65_536).decode()

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def fresh(self) -> str:
        """The address of a database that nobody has used."""
        self._used += 1
        return f"redis://127.0.0.1:{self.port}/{self._used}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
