"""Server-sent events on their way through: passed on as they come, read for what they say about cost and failure.

A stream that begins with 200 can still fail: a chat stream by an `error` object, a Responses stream by an `error` or
`response.failed` event. Both are judged like a status. Usage comes in the last chunk of a chat stream (if it was asked
for) and in the final event of a Responses stream.
"""

from __future__ import annotations

import msgspec

from ratelimit.wire.messages import Trouble, Usage

_PRELUDE = {"response.created", "response.queued", "response.in_progress"}
_LONGEST = 16 * 1024 * 1024  # one event; a longer one is passed on unread


class _Body(msgspec.Struct, frozen=True):
    error: Trouble | str | None = None
    usage: Usage | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str | None = None
    error: Trouble | str | None = None
    usage: Usage | None = None
    response: _Body | None = None
    code: str | None = None
    message: str | None = None


_decoder = msgspec.json.Decoder(_Event)


class Listener:
    """Reads a stream of events without holding it up."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.usage: Usage | None = None
        self.begun = False  # it has said something that was asked for
        self._rest = bytearray()
        self._searched = 0

    def feed(self, piece: bytes) -> None:
        """Take in the next piece, wherever it was cut."""
        rest = self._rest
        rest += piece
        while (end := rest.find(b"\n", self._searched)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            self._searched = 0
            if line.startswith(b"data:"):
                self._read(line[5:].strip())
        self._searched = len(rest)
        if self._searched > _LONGEST:
            rest.clear()
            self._searched = 0

    def _read(self, data: bytes) -> None:
        # Only an event that can matter is decoded: text deltas are by far the most.
        if b'"usage"' not in data and b'"error"' not in data:
            self.begun = True
            return
        try:
            event = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.begun = True
            return
        body = event.response
        self.usage = event.usage or (body.usage if body else None) or self.usage
        error = event.error or (body.error if body else None)
        if error is None and event.type == "error":
            error = Trouble(event.message, code=event.code)
        if error is None:
            self.begun = self.begun or event.type not in _PRELUDE
        else:
            self.trouble = Trouble(error) if isinstance(error, str) else error
