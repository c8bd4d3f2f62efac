"""The benches that are scripts of their own, run through the one door, and their results in the one form.

A script prints one JSON object, or writes it into the results; whatever its form, it is kept as a record.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.record import RESULTS, Record, machine, normalized, versions

HERE = Path(__file__).parent
OVERHEAD = ("core", "admission", "wire", "dropin", "mock_ceiling")
QUICK = {
    "core": ("--rounds", "10"),
    "admission": ("--rounds", "2", "--tasks", "5000", "--wakes", "50"),
    "mock_ceiling": ("--rounds", "2", "--seconds", "0.5"),
}


def run_all(name: str, arguments: list[str]) -> int:
    """Run one script, or those of `overhead` in turn; returns 1 if any missed its target."""
    names = [each for each in OVERHEAD if (HERE / f"{each}.py").exists()] if name == "overhead" else [name]
    verdicts = []
    for number, each in enumerate(names, 1):
        if len(names) > 1:
            sys.stderr.write(f"{number}/{len(names)}  {each}\n")
        verdicts.append(run_script(each, arguments))
    return max(verdicts, default=1)


def run_script(name: str, arguments: list[str]) -> int:
    """Run one script, keep what it printed, and return its verdict."""
    script = HERE / f"{name}.py"
    if not script.exists():
        sys.stderr.write(f"there is no {script.name} beside this file; it is not part of this checkout\n")
        return 2
    if "-h" in arguments or "--help" in arguments:
        return subprocess.run([sys.executable, str(script), "--help"], check=False).returncode
    quick = "--quick" in arguments
    given = [each for each in arguments if each != "--quick"]
    options = [*(QUICK.get(name, ()) if quick else ()), *given]
    before, start, began = machine(), time.perf_counter(), time.time()
    done = subprocess.run([sys.executable, str(script), *options], check=False, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout)
    raw = _last_object(done.stdout) or _written(RESULTS / f"{name}.json", began)
    if raw is None:
        sys.stderr.write(f"{script.name} printed no result; it ended with {done.returncode}\n")
        return done.returncode or 1
    fields = normalized(name, raw)
    fields["passed"] = done.returncode == 0
    fields["machine"] = {**before, "seconds": round(time.perf_counter() - start, 1)}
    fields["versions"] = {**versions("aiohttp", "aiolimiter"), **fields["versions"]}
    fields["command"] = " ".join(["python -m bench", name, *arguments])
    Record(**fields).write((RESULTS / "quick" if quick else RESULTS) / f"{name}.json")
    if done.returncode:
        sys.stdout.write(f"{name} misses its target: {fields['targets']}\n")
    return done.returncode


def _written(file: Path, since: float) -> dict[str, object] | None:
    """Return what a script has written itself in this run."""
    if not file.exists() or file.stat().st_mtime < since:
        return None
    found: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _last_object(text: str) -> dict[str, object] | None:
    """Return the JSON object that a script's output ends with."""
    start = text.rfind("\n{\n") + 1 if not text.startswith("{") else 0
    try:
        found = json.loads(text[start:])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
