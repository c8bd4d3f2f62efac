"""Uploaded and produced files: kept on disk in a directory that goes with the server, never in memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from aiohttp import BodyPartReader, web

from ratelimit.testing.mock.refusals import Problem, Refused, too_large

_MOST = 200 * 1024 * 1024  # the Batch API's own cap on an input file
_PURPOSES = frozenset({"assistants", "batch", "evals", "fine-tune", "user_data", "vision"})
_DAYS_KEPT = 30
_NOT_MULTIPART = Problem(400, "Expected a multipart/form-data body with the parts 'purpose' and 'file'.")


class Stored(msgspec.Struct):
    """One file: whose it is, what the service says of it, and where its bytes are."""

    organization: str
    about: dict[str, Any]
    path: Path

    def lines(self) -> Iterator[bytes]:
        """The lines of the file, read as they are asked for."""
        with self.path.open("rb") as opened:
            yield from opened


class Files:
    """The files of all organizations."""

    def __init__(self, today: Callable[[], float], most: int = _MOST) -> None:
        self._today = today
        self._most = most
        self._stored: dict[str, Stored] = {}
        self._number = 0
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Removes every file."""
        self._stored.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def new(self, organization: str, name: str, purpose: str) -> Stored:
        """An empty file that is not listed before it is `kept`."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="ratelimit-mock-")
        self._number += 1
        created = int(self._today())
        about = {
            "id": f"file-{self._number:024x}",
            "object": "file",
            "bytes": 0,
            "created_at": created,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "expires_at": created + _DAYS_KEPT * 86_400 if purpose.startswith("batch") else None,
            "status_details": None,
        }
        return Stored(organization, about, Path(self._directory.name) / str(self._number))

    def keep(self, stored: Stored) -> str:
        """Lists a file that is now complete and returns its id."""
        stored.about["bytes"] = stored.path.stat().st_size
        name: str = stored.about["id"]
        self._stored[name] = stored
        return name

    def get(self, organization: str, name: str) -> Stored:
        """A file of an organization, or Refused with a 404."""
        stored = self._stored.get(name)
        if stored is None or stored.organization != organization:
            raise Refused(Problem(404, f"No such File object: {name}", param="id"))
        return stored

    def listed(self, organization: str, purpose: str | None) -> dict[str, Any]:
        """What an organization has, the newest first."""
        data = [
            each.about
            for each in reversed(self._stored.values())
            if each.organization == organization and purpose in (None, each.about["purpose"])
        ]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return {"object": "list", "data": data, **ends, "has_more": False}

    def delete(self, organization: str, name: str) -> dict[str, Any]:
        """Forgets a file and its bytes."""
        self.get(organization, name).path.unlink()
        del self._stored[name]
        return {"id": name, "object": "file", "deleted": True}

    async def upload(self, request: web.BaseRequest, organization: str, seconds: float) -> dict[str, Any]:
        """Reads a multipart body onto the disk, or Refused."""
        if not request.content_type.startswith("multipart/"):
            raise Refused(_NOT_MULTIPART)
        fields: dict[str, str] = {}
        stored = self.new(organization, "upload", "user_data")
        try:
            with stored.path.open("wb") as opened:
                async with asyncio.timeout(seconds):
                    name = await self._read_parts(request, fields, opened)
        except (TypeError, ValueError, AssertionError, TimeoutError, web.RequestPayloadError):
            stored.path.unlink()
            raise Refused(_NOT_MULTIPART) from None
        except Refused:
            stored.path.unlink()
            raise
        if (problem := _wrong(fields.get("purpose"), name)) is not None:
            stored.path.unlink()
            raise Refused(problem)
        purpose = fields["purpose"]
        stored.about.update(filename=name, purpose=purpose)
        if purpose == "batch":
            stored.about["expires_at"] = stored.about["created_at"] + _DAYS_KEPT * 86_400
        self.keep(stored)
        return stored.about

    async def _read_parts(self, request: web.BaseRequest, fields: dict[str, str], opened: BinaryIO) -> str | None:
        """Reads all parts; returns the name of the file, if there was one."""
        name: str | None = None
        left = self._most
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise TypeError(part)  # a multipart in a multipart
            content = bytearray()
            while chunk := await part.read_chunk(65_536):
                left -= len(chunk)
                if left < 0:
                    raise Refused(too_large(self._most))
                if part.name == "file":
                    opened.write(chunk)
                elif len(content) < 1024:
                    content += chunk
            if part.name == "file":
                name = part.filename or "upload"
            elif part.name is not None:
                fields[part.name] = content.decode(errors="replace")
        return name


def _wrong(purpose: str | None, name: str | None) -> Problem | None:
    if name is None:
        return Problem(400, "'file' is a required property")
    if purpose not in _PURPOSES:
        return Problem(
            400,
            f"Invalid value for purpose. Expected one of {', '.join(sorted(_PURPOSES))}.",
            param="purpose",
            code="invalid_value",
        )
    if purpose == "batch" and not name.endswith(".jsonl"):
        return Problem(400, "Invalid file format for Batch API. Must be .jsonl")
    return None
