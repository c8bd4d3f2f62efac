"""Server-sent events on their way through: passed on as they come, read for what they say about cost and failure.

A stream that begins with 200 can still fail: a chat stream by an `error` object, a Responses stream by an `error` or
`response.failed` event. Both are judged like a status. Usage comes in the last chunk of a chat stream (if it was asked
for) and in the final event of a Responses stream.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ratelimit.wire.messages import Names, Trouble, Usage, trouble_of, usage_of

_PRELUDE = {"response.created", "response.queued", "response.in_progress"}
_LAST = {"response.completed", "response.incomplete", "response.failed", "error"}
_FINISH = re.compile(rb'"finish_reason":\s*"')  # inside a text its quotes would be escaped
_LEAST = len("data:[DONE]")  # bytes of a line that says anything to a stream that has begun
_LONGEST = 16 * 1024 * 1024  # one event; a longer one is passed on unread

_decode = msgspec.json.Decoder().decode


class Listener:
    """Reads a stream of events without holding it up."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.usage: Usage | None = None
        self.names: Names = Names()
        self.begun: bool = False  # it has said something that was asked for
        self.ended: bool = False  # it has said that nothing of substance follows
        self._rest = bytearray()
        self._searched = 0
        self._skipping = False

    def feed(self, piece: bytes) -> None:
        """Take in the next piece, wherever it was cut."""
        rest = self._rest
        rest += piece
        if (end := rest.rfind(b"\n", self._searched)) >= 0:
            for line in bytes(rest[:end]).split(b"\n"):
                if (line.startswith(b"data:") and (len(line) >= _LEAST or not self.begun)) or self._skipping:
                    self._line(line)
            del rest[: end + 1]
        self._searched = len(rest)
        if self._searched > _LONGEST:
            self._skipping = True
            rest.clear()
            self._searched = 0

    def finish(self) -> None:
        """Note that nothing follows: a last line may lack its end."""
        self._line(bytes(self._rest))
        self._rest.clear()
        self._searched = 0

    def _line(self, line: bytes) -> None:
        if self._skipping:  # the end of a line that was too long
            self._skipping = False
            self.begun = True
        elif line.startswith(b"data:"):
            data = line[5:].strip()
            if not (self.begun and self.ended) or b'"usage"' in data or b'"error"' in data:
                self._read(data)

    def _read(self, data: bytes) -> None:
        # Once it has begun, only an event that can matter is decoded: text deltas are by far the most.
        if data == b"[DONE]":
            self.ended = self.begun = True
            return
        if not self.ended and b'"finish_reason"' in data and _FINISH.search(data):
            self.ended = True
        if self.begun and b'"usage"' not in data and b'"error"' not in data:
            return
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self.begun = True
            return
        kind = event.get("type")
        kind = kind if isinstance(kind, str) else None
        body = event.get("response")
        body = body if isinstance(body, dict) else {}
        if self.names.id is None:
            self.names = _names(body or ({} if kind else event))
        self.usage = usage_of(event.get("usage")) or usage_of(body.get("usage")) or self.usage
        self.ended = self.ended or kind in _LAST
        if (trouble := _trouble(kind, event, body)) is None:
            self.begun = self.begun or kind not in _PRELUDE
        else:
            self.trouble = trouble


def _names(said: dict[str, Any]) -> Names:
    """Return what a chunk of a chat, or the response that an event brings, says of itself."""
    return Names(*(text if isinstance(text := said.get(name), str) else None for name in ("id", "model")))


def _trouble(kind: str | None, event: dict[str, Any], body: dict[str, Any]) -> Trouble | None:
    if found := trouble_of(event.get("error")) or trouble_of(body.get("error")):
        return found
    if kind == "error":
        return trouble_of({**event, "type": None}) or Trouble("an error without a reason")
    return Trouble("the response failed without a reason") if kind == "response.failed" else None
