"""Runs the blocks of a document, in their order, as a reader would: in one directory, against one mock.

Python is executed, in one namespace for the page; a function whose parameters are things a reader has at hand (a
client, a scheduler, some bodies) is called, too. Console lines run in a shell and must succeed, and print what the page
shows below them, if it shows anything. Left out are lines that install, or make, or start a server that the suite has
running already; the flags of `ratelimit mock` are still checked.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import ratelimit
from ratelimit.cli.mock import mock as mock_command
from ratelimit.testing import run
from ratelimit.testing.mock import MockServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_USUAL = "http://127.0.0.1:8000"
_ELSEWHERE = ("pip ", "python3 -m venv", "make", ".venv/bin/", "git ", "ratelimit completion", "redis-server")
_FOREIGN = re.compile(r"^(?:import|from) (openai|langchain\w*|instructor|ray)\b", re.MULTILINE)
_BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}], "max_completion_tokens": 50}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each block that can run."""
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2]


def foreign(source: str) -> set[str]:
    """Return which libraries a block needs that are installed in environments of their own only."""
    return set(_FOREIGN.findall(source))


def agrees(shown: str, printed: str) -> bool:
    """Return whether a command has printed what a page shows.

    `...` stands for what differs from time to time within a line, and, where it has a line to itself, for any lines.
    """
    lines = (
        "(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".+") + r"[ ]*\n"
        for line in shown.splitlines()
    )
    return re.fullmatch("".join(lines), printed) is not None


class Reader:
    """Somebody who does what a page says, and has these libraries besides."""

    def __init__(self, place: Path, mock: MockServer, *libraries: str) -> None:
        self.libraries = set(libraries)
        self.place = place
        self.mock = mock
        self.names: dict[str, Any] = {"send": _send, "send_for_headers": _send_for_headers}
        self.ran = 0

    def read(self, page: Path) -> None:
        """Do all that a page says; runs on a thread of its own, where no loop is running."""
        for number, (language, text) in enumerate(blocks(page)):
            where = f"{page.name}, block {number}"
            if language == "console":
                for line, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                    self._console(line, shown, where)
            elif foreign(text) <= self.libraries:
                self._python(text, where)

    def _console(self, line: str, shown: str, where: str) -> None:
        if line.startswith("ratelimit mock"):
            arguments = shlex.split(line.removesuffix("&"), comments=True)[2:]
            mock_command.make_context("mock", arguments, parent=click.Context(click.Group("ratelimit")))
            return
        if line.startswith("export "):
            for name, value in (each.split("=", 1) for each in shlex.split(line, comments=True)[1:]):
                os.environ[name] = value.replace(_USUAL, self.mock.root_url)
            return
        if line.startswith(_ELSEWHERE):
            return
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", "-ec", line.replace(_USUAL, self.mock.root_url)]
        done = subprocess.run(
            command,
            cwd=self.place,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed = done.stdout.replace(self.mock.root_url, _USUAL)
        assert done.returncode == 0, f"{where}: {line}\n{printed}"
        assert not shown or agrees(shown, printed), f"{where}: {line}\nshown:\n{shown}\nprinted:\n{printed}"
        self.ran += 1

    def _python(self, source: str, where: str) -> None:
        known = set(self.names)
        code = compile(source.replace(_USUAL, self.mock.root_url), where, "exec", flags=0x2000, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(_awaited(code, self.names))
        else:
            exec(code, self.names)
        self.ran += 1
        for name, found in list(self.names.items()):
            if inspect.isfunction(found) and name not in known and found.__code__.co_filename == where:
                self._call(name, found)

    def _call(self, name: str, function: Callable[..., Any]) -> None:
        wanted = [each.name for each in inspect.signature(function).parameters.values() if each.default is each.empty]
        if name.startswith("test_"):
            run(function())
        elif name != "main" and wanted and set(wanted) <= _AT_HAND:
            asyncio.run(self._given(function, wanted))

    async def _given(self, function: Callable[..., Any], wanted: list[str]) -> None:
        limits = self.names.get("limits") or {"gpt-4o-mini": [ratelimit.Limit("requests", 600, ratelimit.MINUTE)]}
        async with ratelimit.open(tier="tier-1") as client:
            hand = {
                "client": client,
                "scheduler": ratelimit.Scheduler(limits),
                "prompt": "Why?",
                "bodies": [_BODY] * 3,
                "path": self.place / "spent.json",
            }
            value = function(**{name: hand[name] for name in wanted})
            if inspect.isawaitable(value):
                await value


_AT_HAND = {"client", "scheduler", "prompt", "bodies", "path"}


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


async def _send(prompt: str) -> str:
    return prompt


async def _send_for_headers(prompt: str) -> dict[str, str]:
    return {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
