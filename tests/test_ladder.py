"""Imports point down, each library stays in its place, and what is pure stays pure: read from the source, not run.

The tables say what belongs where. A module in a package that is named needs no line of its own; a new package does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ratelimit

ROOT = Path(ratelimit.__file__).parent

RUNGS = {
    "errors": 0,
    "secret": 0,
    "limits": 1,
    "admission": 2,
    "settings": 3,
    "watch": 3,  # shows what lanes tell, to whoever sends
    "metrics": 4,
    "otel": 4,
    "sharing": 4,
    "wire": 4,
    "compose": 5,
    "testing": 5,
    "doctor": 6,
    "jobs": 6,
    "__init__": 7,
    "openai": 7,
    "ray": 7,
    "cli": 8,
    "__main__": 9,
}
"""A module may import what stands on a lower rung, and its own package."""

ONLY = {
    "settings": ("errors", "secret", "limits"),
    "secret": (),
    # What users test their code with, and the mock, would share our bugs if they shared more: of the buckets they know
    # nothing but `Limit`, the value, which comes with the tables.
    "testing": ("errors", "limits.tiers", "wire.messages"),
}
"""What may import nothing of ours but this, whatever its rung."""

LIBRARIES = {
    "aiohttp": ("wire.transport", "testing.mock", "watch.serving"),
    "aiolimiter": ("admission.pacing",),
    "bpe_openai": ("limits.tokens",),
    "click": ("cli",),
    "httpx": ("wire.openai",),
    "msgspec": ("wire", "jobs", "testing.mock", "cli", "admission.shared", "ray"),
    "openai": ("wire.openai",),
    "opentelemetry": ("otel",),
    "pyarrow": ("ray",),
    "pydantic": ("settings", "limits.tables"),
    "pydantic_core": ("settings", "limits.tables"),
    "pydantic_settings": ("settings",),
    "ray": ("ray",),
    "redis": ("admission.shared.redis",),
    "rich": ("cli", "jobs.progress"),
    "tenacity": ("wire.retry",),
    "yarl": ("wire.transport",),
    "zstandard": ("jobs.reading",),
}
"""Where each foreign library may be imported; one that is not named may be imported nowhere."""

SERVES = "aiohttp.web"
SENDS = ("aiohttp.Client", "aiohttp.client", "aiohttp.TCPConnector", "aiohttp.request")

PURE = ("errors", "limits", "secret")
FILES = ("limits.tiers", "limits.tables", "limits.merging", "limits.toml")  # the tables come from files
IMPURE = {"asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "random", "secrets", "select", "selectors"}
IMPURE |= {"signal", "socket", "subprocess", "tempfile", "threading", "time", "pathlib", "tomllib", "shutil"}
OF_FILES = {"pathlib", "tomllib", "os", "io"}
CLOCKLESS = ("errors", "secret", "limits", "admission", "settings", "wire")  # time is handed down to these

LONGEST = 360
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}


def under(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def name_of(path: Path, root: Path = ROOT) -> str:
    """`limits.bucket`, counted from the package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, also within functions and for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute here"
            for alias in node.names:  # a name of a package may be a module of its own
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("ratelimit.") in MODULES or node.module == "aiohttp"
                yield inner if is_module else node.module


def own(tree: ast.Module) -> set[str]:
    names = {name for name in imported(tree) if name.split(".")[0] == "ratelimit"}
    return {name.removeprefix("ratelimit").removeprefix(".") or "__init__" for name in names}


def faults(name: str, source: str) -> list[str]:
    """Everything that is wrong with a module."""
    tree = ast.parse(source)
    top = name.split(".", maxsplit=1)[0]
    if top not in RUNGS:
        return [f"{name} stands on no rung"]
    found = [
        f"{name} imports {other}, which does not stand below it"
        for other in own(tree)
        if other.split(".")[0] != top and RUNGS.get(other.split(".")[0], 99) >= RUNGS[top]
    ]
    for place, allowed in ONLY.items():
        if under(name, (place,)):
            found += [
                f"{name} imports {other}, which {place} may not"
                for other in own(tree)
                if not under(other, (place, *allowed))
            ]
    for library in imported(tree):
        first = library.split(".")[0]
        if first not in sys.stdlib_module_names and first != "ratelimit":
            if not under(name, LIBRARIES.get(first, ())):
                found.append(f"{name} imports {first}, which has no place there")
            elif library.startswith(SERVES if under(name, ("wire",)) else SENDS):
                found.append(f"{name} imports {library}: clients send, mocks serve")
        if under(name, PURE) and first in IMPURE and not (under(name, FILES) and first in OF_FILES):
            found.append(f"{name} imports {first} and is no longer pure")
        if under(name, CLOCKLESS) and first == "time":
            found.append(f"{name} reads a clock; time is handed to it")
    return found + [f"{name} calls {what}" for what in impure_calls(name, tree)]


def impure_calls(name: str, tree: ast.Module) -> Iterator[str]:
    if not under(name, PURE):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            # A value may have a field of that name; a date has a method.
            if isinstance(node.value, ast.Name | ast.Attribute) and "date" in ast.unparse(node.value):
                yield ast.unparse(node)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "input", "print", "__import__"}
            and not under(name, FILES)
        ):
            yield node.func.id


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_its_place(name: str) -> None:
    assert faults(name, MODULES[name].read_text()) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_and_its_name_says_something(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= LONGEST
    assert not set(name.split(".")) & SAYS_NOTHING


def reached(name: str, through: tuple[str, ...] = ()) -> set[str]:
    """Every module of ours that importing one would load, but for those loaded only by `through`."""
    seen: set[str] = set()
    left = [name]
    while left:
        module = left.pop()
        if module not in seen and module in MODULES:
            seen.add(module)
            if module not in through:
                left += own(ast.parse(MODULES[module].read_text()))
    return seen


@pytest.mark.parametrize("name", [name for name in MODULES if under(name, ("testing",))])
def test_what_tests_are_made_with_shares_none_of_our_counting(name: str) -> None:
    # The tables bring the value `Limit` and with it the module of buckets; nothing else does.
    assert "limits.bucket" not in reached(name, through=("limits.tiers",))
    assert not {"limits.quota", "limits.drift", "limits.pressure", "limits.meter"} & reached(name)


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("spare", "", "spare stands on no rung"),
        (
            "limits.x",
            "import ratelimit.admission.lane",
            "limits.x imports admission.lane, which does not stand below it",
        ),
        (
            "limits.x",
            "from ratelimit.wire import client",
            "limits.x imports wire.client, which does not stand below it",
        ),
        ("wire.x", "def f():\n from ratelimit import compose", "wire.x imports compose, which does not stand below it"),
        ("compose", "import ratelimit.testing.clock", "compose imports testing.clock, which does not stand below it"),
        ("errors", "import ratelimit", "errors imports __init__, which does not stand below it"),
        ("wire.x", "import ratelimit.spare", "wire.x imports spare, which does not stand below it"),
        ("settings", "from ratelimit.admission import lane", "settings imports admission.lane, which settings may not"),
        (
            "testing.x",
            "from ratelimit.limits.bucket import Limit",
            "testing.x imports limits.bucket, which testing may not",
        ),
        ("testing.x", "from ratelimit.limits import quota", "testing.x imports limits.quota, which testing may not"),
        ("wire.x", "from aiolimiter import AsyncLimiter", "wire.x imports aiolimiter, which has no place there"),
        ("jobs.x", "import requests", "jobs.x imports requests, which has no place there"),
        ("limits.x", "import msgspec.json", "limits.x imports msgspec, which has no place there"),
        ("wire.transport", "from aiohttp import web", "wire.transport imports aiohttp.web: clients send, mocks serve"),
        (
            "testing.mock.x",
            "from aiohttp import ClientSession",
            "testing.mock.x imports aiohttp.ClientSession: clients send, mocks serve",
        ),
        ("limits.x", "import asyncio", "limits.x imports asyncio and is no longer pure"),
        ("limits.x", "from pathlib import Path", "limits.x imports pathlib and is no longer pure"),
        ("limits.tables", "import socket", "limits.tables imports socket and is no longer pure"),
        ("limits.x", "import datetime\ndatetime.datetime.now()", "limits.x calls datetime.datetime.now"),
        ("limits.x", "from datetime import date\nx = date.today()", "limits.x calls date.today"),
        ("limits.x", "open('x')", "limits.x calls open"),
        ("admission.x", "from time import monotonic", "admission.x reads a clock; time is handed to it"),
    ],
)
def test_each_rule_bites(name: str, source: str, fault: str) -> None:
    assert fault in faults(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "limits.x",
            "from ratelimit.errors import NeverFits\nfrom datetime import datetime\nimport math\nx = hold.now",
        ),
        ("limits.tables", "from pathlib import Path\nimport tomllib\nfrom pydantic import BaseModel\nopen('x')"),
        ("testing.mock.x", "from aiohttp import web\nfrom ratelimit.limits.tiers import load\nimport asyncio, time"),
        ("wire.transport", "import aiohttp\nfrom ratelimit.limits import headers"),
        ("jobs.x", "import time\nfrom ratelimit.compose import open_client"),
        ("cli", "import click\nimport rich.console"),
    ],
)
def test_what_is_allowed_is_no_fault(name: str, source: str) -> None:
    assert faults(name, source) == []
