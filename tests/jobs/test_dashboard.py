"""The page of a run: who may read it, what it may load, what it is told, and what a browser makes of it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jobbing import Place, ask, batch_line

from ratelimit.cli import main
from ratelimit.errors import PortTaken
from ratelimit.jobs.dashboard import Dashboard, page
from ratelimit.jobs.job import Sending, Together, Watched, Watcher
from ratelimit.testing.mock import MockServer
from ratelimit.watch.serving import address, bind, served

NASTY = "<img src=x onerror=\"document.title='owned'\">\x1b[2J"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass
class Reader(Watcher):
    """Follows the events from when it opens the page to their end."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)
    reading: asyncio.Task[None] = field(init=False)

    async def watch(self, run: Watched, client: Sending) -> None:
        self.reading = asyncio.create_task(self._read())
        await asyncio.get_running_loop().create_future()

    async def _read(self) -> None:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}events") as reply:
            assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            async for line in reply.content:
                if line.strip():
                    self.told.append(json.loads(line.removeprefix(b"data: ")))


async def test_the_page_is_told_how_the_run_stands_to_its_end(place: Place) -> None:
    rows = [batch_line(f"row-{number}") for number in range(90)]
    place.write([*rows, batch_line("bad", ask("hi") | {"messages": []})])
    taken = bind(0)
    reader = Reader(address(taken))
    async with MockServer(tier="tier-1", echo=True, rpm=60) as mock:
        await place.run(mock, watcher=Together([Dashboard(taken), reader]), rpm=60)
    await reader.reading
    first, middle, last = reader.told[0], reader.told[len(reader.told) // 2], reader.told[-1]
    assert [each["ended"] for each in reader.told] == [False] * (len(reader.told) - 1) + [True]
    assert first["title"] in {"checking the input", "limited by nothing of ours", "limited by first reply"}
    assert middle["title"] == "limited by RPM"
    assert [gauge["name"] for gauge in middle["gauges"] if gauge["binding"]] == ["RPM"]
    requests = middle["charts"][0]
    assert (requests["name"], requests["cap"]) == ("requests sent in a minute", 60)
    assert 0 < requests["values"][-1] < 120
    assert (last["title"], last["tone"], last["part"]) == ("done", "done", 1.0)
    assert last["facts"]["answered"] == "90 of 91"
    assert "to go" not in last["facts"]
    assert last["errors"] == [["empty_array", 1]]


async def test_who_may_read_it_and_what_it_may_load() -> None:
    taken = bind(0)
    url = address(taken)
    async with served(taken, {"/": page}), aiohttp.ClientSession() as http:

        async def asked(path: str = "", method: str = "GET", host: str = "localhost:1") -> tuple[int, str]:
            async with http.request(method, url + path, headers={"Host": host}) as reply:
                assert reply.headers["X-Content-Type-Options"] == "nosniff"
                assert "Access-Control-Allow-Origin" not in reply.headers
                return reply.status, await reply.text()

        assert await asked() == (200, page().text)
        assert await asked(host="127.0.0.1") == (200, page().text)
        refused = (421, "ask for this page as 127.0.0.1 or localhost\n")
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.", "[::1", ""):
            assert await asked(host=host) == refused
        assert await asked("other") == (404, "404 Not Found\n")
        assert await asked(method="POST") == (405, "405 Method Not Allowed\n")
        async with http.get(url) as reply:
            policy = reply.headers["Content-Security-Policy"]
    digests = {
        tag: b64encode(sha256(page().text.split(f"<{tag}>")[1].split(f"</{tag}>")[0].encode()).digest()).decode()
        for tag in ("script", "style")
    }
    assert policy == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"script-src 'sha256-{digests['script']}'; style-src 'sha256-{digests['style']}'; "
        "connect-src 'self'; img-src data:"
    )
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|style=|https?:(?!//www\.w3)", page().text
    )


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            bind(port)
    assert str(caught.value) == (
        f"cannot serve on port {port} of this machine: Address already in use; choose another, or 0 for any"
    )


@pytest.mark.parametrize("word", ["requests.jsonl", "65536"])
def test_a_word_that_is_no_port(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-o", "x", f"--dashboard={word}", "y"]) == 2
    assert capsys.readouterr().err == (
        f"ratelimit: Invalid value for '--dashboard': '{word}' is no port; write --dashboard=8000, or --dashboard at "
        "the end; see ratelimit run --help\n"
    )


@pytest.mark.real_time
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
async def test_a_browser_shows_what_it_is_told_as_text(tmp_path: Path) -> None:
    run = {
        "title": "stopped",
        "tone": "bad",
        "ended": True,
        "why": NASTY,
        "part": 0.5,
        "facts": {"answered": "1 of 2", NASTY: NASTY},
        "gauges": [{"lane": NASTY, "name": "RPM", "used": 0.5, "of": "of 60", "binding": True, "note": NASTY}],
        "charts": [{"name": NASTY, "values": [1, 2, 3], "cap": 4, "long": "3 s"}],
        "errors": [[NASTY, 3]],
    }

    async def follow() -> AsyncIterator[str]:
        yield json.dumps(run)

    taken = bind(0)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --user-data-dir={tmp_path} --virtual-time-budget=3000"
    async with served(taken, {"/": page}, {"/events": follow}):
        shown = await asyncio.create_subprocess_exec(
            str(BROWSER),
            *flags.split(),
            "--dump-dom",
            address(taken),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        text = (await shown.communicate())[0].decode()
    assert "<title>stopped - ratelimit run</title>" in text
    assert text.count("&lt;img src=x onerror=") == 8
    assert "<img" not in text
    assert text.count('<path d="M') == 3
    assert '<rect id="part" height="10" width="50">' in text
    assert "The run has ended; this is how it stood." in text
