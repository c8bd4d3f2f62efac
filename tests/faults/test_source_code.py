"""No shell, no evaluated text, no pickle, and no file that others may read: of the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ratelimit

ROOT = Path(ratelimit.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "subprocess", "pty", "commands", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
# The mock is a tool of tests: it writes what it was sent into files of its own, in a directory made for it alone.
WRITES = {"write_text", "write_bytes", "mkstemp"}


def dangers(tree: ast.Module, *, mock: bool = False) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in NEVER)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.startswith(("os.exec", "os.spawn")):
                yield f"calls {called}"
            if any(word.arg == "shell" for word in node.keywords):
                yield f"gives {called} a shell"
            if not mock and called.rpartition(".")[2] in WRITES:
                yield f"makes a file that others may read: {called}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_used(path: Path) -> None:
    assert list(dangers(ast.parse(path.read_text("utf-8")), mock="mock" in path.parts)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from subprocess import run",
        "eval('1')",
        "import os\nos.system('ls')",
        "os.execv('x', [])",
        "run('ls', shell=True)",
        "path.write_text('x')",
    ],
)
def test_each_rule_bites(source: str) -> None:
    assert list(dangers(ast.parse(source)))
