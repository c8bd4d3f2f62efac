"""A place for a job of batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from batching import Batching


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batching:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fdatasync", lambda _: None)  # no power is cut here, and a thousand syncs take their time
    return Batching(tmp_path)
