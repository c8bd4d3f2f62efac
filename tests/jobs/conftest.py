"""A place for a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobbing import Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)
