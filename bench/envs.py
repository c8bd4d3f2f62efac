"""An environment of its own for each thing compared, under `.bench-envs`: made on first use, kept afterwards."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVS = ROOT / ".bench-envs"


class CannotInstall(Exception):
    """Why an environment cannot be had, in the installer's words."""


def python_of(name: str, packages: Sequence[str]) -> Path:
    """Return the interpreter of an environment with some packages in it; raises `CannotInstall`."""
    python, done = ENVS / name / "bin" / "python", ENVS / name / "ready"
    if done.exists():
        return python
    steps = (
        [sys.executable, "-m", "venv", str(ENVS / name)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    )
    sys.stderr.write(f"installing {' '.join(packages)} into {ENVS.name}/{name}\n")
    for step in steps:
        made = subprocess.run(step, check=False, capture_output=True, text=True)
        if made.returncode:
            raise CannotInstall(reason(made.stderr))
    done.touch()
    return python


def reason(said: str) -> str:
    """Return the line of an installer's complaint that says why."""
    if found := re.search(r"Requires-Python ([^;\n]+)", said):
        return f"it needs Python {found[1].strip()}, and this is {platform.python_version()}"
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    telling = lines or said.strip().splitlines()
    return telling[-1][:300] if telling else "no reason given"


def versions_of(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages as an environment knows them."""
    names = [name.partition("[")[0].partition("=")[0] for name in packages]
    ask = f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {names}}}))"
    found = subprocess.run([str(python), "-c", ask], check=True, capture_output=True, text=True)
    answer: dict[str, str] = json.loads(found.stdout)
    return answer
