"""A place for a job, and a wider one for jobs of batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from batching import Batching
from jobbing import Place


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Batching(tmp_path)
