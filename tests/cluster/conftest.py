"""What runs under Ray itself: by `make ray`, in an environment that has it, on one cluster of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import cluster

_HERE = importlib.util.find_spec("ray") is not None
collect_ignore_glob = [] if _HERE else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _HERE:
        terminalreporter.write_line("tests/cluster is left to `make ray`: the ray package is not installed here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))  # Ray's own are its own


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    there = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}}  # where the tests' own modules are
    with cluster(logging_level="warning", runtime_env=there) as found:
        yield found
