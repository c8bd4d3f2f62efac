"""A way to a server that can be cut: what goes in while it is comes out nowhere, as from a network that is parted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from ratelimit.admission.blocking import Background

_CHUNK = 65_536


class Relay:
    """Passes on what comes to a free port of this machine, until it is cut and when it has healed."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._cut = False
        self._background = Background()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.port: int = self._background.run(self._listen())

    def cut(self) -> None:
        """Lose everything from now on, silently."""
        self._cut = True

    def heal(self) -> None:
        """Pass on again; connections that have lost something are gone."""
        self._cut = False
        self._background.call(self._drop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._background.run(self._end())
        self._background.close()

    async def _end(self) -> None:
        self._server.close()
        self._drop()
        await asyncio.gather(*self._serving)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _drop(self) -> None:
        for writer in self._open:
            writer.close()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, back}
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        self._open -= {writer, back}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not self._cut:
                    writer.write(data)
                    await writer.drain()
        writer.close()
