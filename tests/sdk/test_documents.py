"""The pages that begin with the drop-in, done as they say where the SDK is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import documents
import pytest

from ratelimit.testing.mock import MockServer


@pytest.mark.real_time
@pytest.mark.parametrize("name", ["README.md", "docs/migration.md"])
async def test_the_drop_in_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    blocks = [text for language, text in documents.blocks(documents.ROOT / name) if documents.foreign(text)]
    page.write_text("".join(f"```python\n{text}```\n" for text in [*blocks, _CALL]), encoding="utf-8")
    async with MockServer(tier="tier-1") as mock:
        monkeypatch.setenv("OPENAI_BASE_URL", mock.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        await asyncio.to_thread(documents.Reader(tmp_path, mock, "openai").read, page)
        assert mock.stats.admitted == 1


_CALL = """
reply = await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
assert reply.choices[0].message.content
await client.close()
"""
