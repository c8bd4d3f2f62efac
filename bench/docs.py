"""Write what the results say into docs/benchmarks.md, docs/reliability.md and README.md, or see that it stands there.

What lies between `<!-- bench:NAME -->` and `<!-- /bench -->` is made from `bench/results/NAME.json`; the rest is prose.

    python -m bench docs [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import tables
from bench.record import RESULTS, Record

ROOT = Path(__file__).parents[1]
_COMMANDS = {"caps-virtual": "caps --virtual", "caps-real": "caps --real"}
_BLOCK = re.compile(r"(<!-- bench(?::([\w-]+))? -->\n).*?(<!-- /bench -->)", re.DOTALL)


def results(folder: Path = RESULTS) -> dict[str, Record]:
    """Return every run that is kept."""
    return {file.stem: Record.read(file) for file in sorted(folder.glob("*.json"))}


def block(name: str | None, found: Mapping[str, Record]) -> str:
    """Return what belongs between two markers."""
    if name is None:
        return tables.readme(found)
    if name == "caps-other":
        return tables.caps_other(found)
    if name not in tables.TABLES:
        raise ValueError(f"no table is called {name!r}; choose one of caps-other, {', '.join(tables.TABLES)}")
    if name not in found:
        return f"No run is kept; `python -m bench {_COMMANDS.get(name, name)}` makes one."
    return tables.TABLES[name](found[name])


def filled(text: str, found: Mapping[str, Record]) -> str:
    """Return a document with every block made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{block(match[2], found)}\n{match[3]}", text)


def pages(root: Path = ROOT, folder: Path = RESULTS) -> dict[Path, str]:
    """Return every file that is made of results, as it should be."""
    found = results(folder)
    made = {page: filled(page.read_text(encoding="utf-8"), found) for page in documents(root)}
    plots = {root / "docs" / "plots" / name: text for name, text in tables.figures(found).items()}
    return made | plots


def documents(root: Path) -> list[Path]:
    """Return the documents that have figures in them."""
    return [root / "README.md", root / "docs" / "benchmarks.md", root / "docs" / "reliability.md"]


def differing(root: Path = ROOT, folder: Path = RESULTS) -> list[Path]:
    """Return the files that do not say what the results say."""
    return [
        file
        for file, text in pages(root, folder).items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write the documents, or say which are not as they should be."""
    parser = argparse.ArgumentParser(
        prog="python -m bench docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for file in (found := differing()):
        name = file.relative_to(ROOT)
        if options.check:
            sys.stdout.write(f"{name} does not say what bench/results does; run python -m bench docs\n")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(pages()[file], encoding="utf-8")
            sys.stdout.write(f"{name} written\n")
    return 1 if options.check and found else 0
