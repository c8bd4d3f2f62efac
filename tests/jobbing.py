"""Jobs in one process: a mock, a file of requests, a run, and what it has written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratelimit.admission.events import Observers
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Job, Watcher, run
from ratelimit.jobs.source import Source
from ratelimit.jobs.summary import Summary
from ratelimit.settings import load_settings
from ratelimit.testing.mock import MockServer

Json = dict[str, Any]


def ask(text: str, model: str = "gpt-4o-mini", **more: Any) -> Json:
    """A body that asks one question."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def batch_line(identifier: str, body: Json | None = None) -> str:
    """A line of the Batch API."""
    asked = ask(f"what is {identifier}?", metadata={"custom_id": identifier}) if body is None else body
    return json.dumps({"custom_id": identifier, "method": "POST", "url": "/v1/chat/completions", "body": asked})


@dataclass
class Place:
    """A directory with a job in it."""

    path: Path
    said: list[str] = field(default_factory=list)

    @property
    def requests(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def output(self) -> Path:
        return self.path / "results.jsonl"

    def write(self, lines: Iterable[str]) -> None:
        self.requests.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    async def run(
        self,
        mock: MockServer,
        options: Options | None = None,
        *,
        source: Source | None = None,
        watcher: Watcher | None = None,
        retry_failed: bool = False,
        report: Path | None = None,
        observer: Observers = None,
        **settings: Any,
    ) -> Summary:
        """Run the job once, or on from where it was."""
        settings = {"base_url": mock.base_url, "api_key": "sk-test", "tier": mock.service.catalogue.tier, **settings}
        job = Job(source or Source(str(self.requests)), self.output, options or Options(), retry_failed, report)
        return await run(job, load_settings(**settings), say=self.said.append, watcher=watcher, observer=observer)

    def records(self, name: str = "results.jsonl") -> list[Json]:
        """The lines of one of the job's files; each must be whole, and JSON to anybody."""
        path = self.path / name
        text = path.read_bytes().decode() if path.exists() else ""
        assert not text or text.endswith("\n")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def answers(self) -> dict[str, str]:
        """The answer of each id, each of which has one."""
        found = self.records()
        answers = {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in found}
        assert len(answers) == len(found)
        return answers

    def errors(self) -> dict[str, str]:
        """The reason of each failure."""
        found = {}
        for each in self.records("results.errors.jsonl"):
            trouble = each["error"] or each["response"]["body"]["error"]
            assert each["custom_id"] not in found
            found[each["custom_id"]] = trouble["message"]
        return found
