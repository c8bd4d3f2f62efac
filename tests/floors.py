"""Prints constraints that pin every dependency to the lowest version `pyproject.toml` allows.

    python tests/floors.py > constraints.txt

A floor that nobody has run on is a guess; `make floors` runs the core of the suite on all of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+)")
_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def floors(project: Path = _PROJECT) -> Iterator[str]:
    """Yield one constraint for each dependency, its extras included; raises for one that has no floor."""
    said = tomllib.loads(project.read_text("utf-8"))["project"]
    extras: dict[str, list[str]] = said["optional-dependencies"]
    for requirement in dict.fromkeys((*said["dependencies"], *(each for extra in extras.values() for each in extra))):
        if not (found := _FLOOR.fullmatch(requirement)):
            raise ValueError(f"{requirement} has no lower bound; write it as name>=version")
        yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(floors()))  # noqa: T201 - a script that prints
