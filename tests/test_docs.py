"""Documents are tested: links lead somewhere, public names are explained, and the README's Python runs."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import ratelimit
from ratelimit.admission import events
from ratelimit.testing.mock import MockServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


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
async def test_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async with MockServer(tier="tier-1") as mock:
        monkeypatch.setenv("OPENAI_BASE_URL", mock.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        names: dict[str, object] = {}
        source = next(block for block in blocks(ROOT / "README.md", "python") if "asyncio.run" in block)
        exec(compile(source.replace("asyncio.run(main())", ""), "README.md", "exec"), names)
        await names["main"]()  # type: ignore[operator]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 21
    assert sorted(int(line.split()[0]) for line in printed[1:]) == list(range(20))


def test_the_blocking_example_runs() -> None:
    (block,) = blocks(ROOT / "docs" / "api.md", "python")
    names: dict[str, object] = {}
    exec(compile(block, "api.md", "exec"), names)
    assert names["answer"]
