"""Documents are tested: links lead somewhere, public names are explained, and what a page says can be done."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import io
import json
import os
import re
import sys
from dataclasses import is_dataclass
from pathlib import Path

import click
import documents
import pytest
from documents import PAGES, ROOT

sys.path.insert(0, str(Path(__file__).parent.parent))
import ratelimit
from docs.make import picture
from ratelimit.admission import events
from ratelimit.testing import run
from ratelimit.testing.mock import MockServer


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_every_page_is_found_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


@pytest.mark.parametrize("name", ratelimit.__all__)
def test_every_public_name_is_explained(name: str) -> None:
    assert getattr(ratelimit, name) is not None
    assert any(re.search(rf"`(ratelimit\.)?{name}\b|ratelimit\.{name}\b", page.read_text("utf-8")) for page in PAGES)


def test_every_event_is_explained() -> None:
    kinds = [name for name, kind in vars(events).items() if is_dataclass(kind) and kind.__module__ == events.__name__]
    text = (ROOT / "docs" / "scheduler.md").read_text(encoding="utf-8")
    assert [name for name in kinds if f"`{name}`" not in text and name != "Event"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_documents_is_python(page: Path) -> None:
    for number, block in enumerate(blocks(page, "python")):
        compile(block, f"{page.name}, block {number}", "exec", flags=0x2000)  # a block may await at its top


@pytest.mark.real_time
@pytest.mark.parametrize("page", [page for page in PAGES if list(documents.blocks(page))], ids=lambda page: page.name)
async def test_what_a_document_says_can_be_done(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}], "max_completion_tokens": 50}
    if page.name not in {"README.md", "tutorial.md"}:  # who begins has nothing yet; who reads on has a file
        (tmp_path / "requests.jsonl").write_text(f"{json.dumps(line)}\n" * 3, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    async with MockServer(tier="tier-1") as mock:
        monkeypatch.setitem(os.environ, "OPENAI_BASE_URL", mock.base_url)
        monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "sk-test")
        monkeypatch.setitem(os.environ, "JOB_COMPLETION_INDEX", "0")  # as the orchestrator of a worker has it
        reader = documents.Reader(tmp_path, mock)
        await asyncio.to_thread(reader.read, page)


@pytest.mark.real_time
@pytest.mark.parametrize("name", [name for name in ratelimit.__all__ if name not in {"DAY", "MINUTE"}])
async def test_every_public_name_has_an_example_that_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = getattr(ratelimit, name)
    names = dict(vars(sys.modules[found.__module__]))
    examples = doctest.DocTestParser().get_doctest(inspect.getdoc(found) or "", names, name, None, None)
    assert examples.examples
    async with MockServer(tier="tier-1") as mock:
        monkeypatch.setenv("OPENAI_BASE_URL", mock.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        told = io.StringIO()
        result = await asyncio.to_thread(doctest.DocTestRunner().run, examples, out=told.write)
    assert result.failed == 0, told.getvalue()


def test_the_picture_is_of_the_panel_there_is(tmp_path: Path) -> None:
    """Its words: what is counted may differ by one or two from machine to machine."""
    made, kept = run(picture.picture(tmp_path)), picture.PICTURE.read_text("utf-8")
    said, shown = (re.findall(r"[A-Za-z]{2,}", " ".join(re.findall(r">([^<]+)</text>", text))) for text in (made, kept))
    assert said == shown
    assert "RPM" in shown
    assert not re.search(r"url\(['\"]?http", kept), "nothing is fetched to show it"


def test_a_reader_has_few_names_to_learn() -> None:
    assert len(ratelimit.__all__) <= 15


@pytest.mark.real_time
async def test_a_page_that_stumbles_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    async with MockServer(tier="tier-1") as mock:
        lie = "console\n$ ratelimit --version\nratelimit 99"
        for wrong in (lie, "console\n$ ratelimit limitz", "python\n1 / 0", "console\n$ ratelimit mock --prot 8000"):
            page.write_text(f"```{wrong}\n```\n", encoding="utf-8")
            with pytest.raises((AssertionError, ZeroDivisionError, click.NoSuchOption)):
                await asyncio.to_thread(documents.Reader(tmp_path, mock).read, page)


def test_what_a_page_shows_is_what_was_printed() -> None:
    printed = "answered 60 in 3.0 s (1,217 a minute)\ntokens   830 in\nsent     60 requests\n"
    for shown in ("answered 60 in ... s (... a minute)\n...\n", "...\nsent     60 requests\n", printed, "...\n"):
        assert documents.agrees(shown, printed)
    for shown in (
        "answered 60 in ... s\n...\n",
        "answered 61 in ...\n...\n",
        "answered 60 ...\n",
        "...\ntokens   830 in\n",
    ):
        assert not documents.agrees(shown, printed)


def test_the_readme_begins_with_what_matters() -> None:
    """One sentence, the picture, two commands, five lines of Python, the drop-in's one: on the first screen."""
    screen = (ROOT / "README.md").read_text("utf-8").split("\n## ")[0]
    assert len(screen.splitlines()) <= 50
    assert "](docs/run.svg)" in screen
    (commands,) = re.findall(r"```console\n(.*?)```", screen, re.DOTALL)
    assert len(re.findall(r"^\$ ratelimit ", commands, re.MULTILINE)) == 2
    python, drop_in = re.findall(r"```python\n(.*?)```", screen, re.DOTALL)
    assert len([line for line in python.splitlines() if line]) == 5
    assert "rate_limited(AsyncOpenAI()" in drop_in
