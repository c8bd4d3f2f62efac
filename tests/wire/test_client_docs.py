"""The page about the client: its code runs, and it names every error and setting there is to name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire_rig import ask, make

import ratelimit
from ratelimit import compose, errors
from ratelimit.limits import charge, tiers
from ratelimit.testing.mock import MockServer
from ratelimit.wire import client, judge, messages, sender, streaming, transport
from ratelimit.wire.judge import _CURABLE, _INCURABLE
from ratelimit.wire.retry import _DOWN, _FIRST_PROBE, _LAST_PROBE, Policy

PAGE = (Path(__file__).parent.parent.parent / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

# What a client consists of. A class it imports and never raises is one to catch.
MODULES = (client, sender, streaming, transport, judge, messages, charge, tiers, compose)
BASES = {"RateLimitError", "JobStopped", "BadRequest"}


def names(text: str) -> dict[str, Any]:
    """What the code blocks define; those that run a loop of their own are left out."""
    found: dict[str, Any] = {"ratelimit": ratelimit}
    for block in BLOCKS:
        if text in block or "asyncio.run" not in block:
            exec(block.replace("asyncio.run(main())", ""), found)
    return found


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    return monkeypatch


async def test_the_opening_example(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async with MockServer() as mock:
        environment.setenv("OPENAI_BASE_URL", mock.base_url)
        await names("asyncio.run")["main"]()
        assert mock.stats.statuses == {200: 1}
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(("name", "requests"), [("one", 5), ("many", 100), ("stream", 1)])
async def test_the_examples(name: str, requests: int) -> None:
    example: Callable[..., Any] = names("")[name]
    async with MockServer() as mock, make(mock.base_url, limits="tier-1") as opened:
        await example(opened)
        assert mock.stats.statuses == {200: requests}


async def test_leaving_early() -> None:
    async with MockServer(echo=True) as mock, make(mock.base_url, limits="tier-1") as opened:
        bodies = (ask("yes" if n == 20 else "no") for n in range(1000))
        answer = await names("")["until_an_answer_pleases"](opened, bodies)
        assert "yes" in answer.text
        assert mock.stats.arrived < 500


def test_the_script(environment: pytest.MonkeyPatch) -> None:
    from ratelimit.admission.blocking import Background  # noqa: PLC0415 - a loop beside the script's

    background = Background()
    mock = MockServer()
    background.run(mock.__aenter__())
    try:
        environment.setenv("OPENAI_BASE_URL", mock.base_url)
        names("")["script"]()
        assert mock.stats.statuses == {200: 11}
    finally:
        background.run(mock.__aexit__())
        background.close()


def test_every_error_a_client_raises_is_named() -> None:
    table = PAGE.partition("## Errors")[2]
    kinds = {
        name
        for module in MODULES
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, errors.RateLimitError)
    }
    assert len(kinds) > 12
    assert {name for name in kinds - BASES if f"`{name}`" not in table} == set()


def test_every_method_is_shown() -> None:
    public = [name for name in vars(client.Client) if not name.startswith("_")]
    assert {"send", "chat", "embed", "stream", "map"} <= set(public)
    for name in ("send", "chat", "embed", "stream", "map"):
        assert f"client.{name}(" in PAGE


def test_the_figures_are_those_of_the_code() -> None:
    policy = Policy()
    assert f"`retry_attempts` ({policy.attempts})" in PAGE
    assert f"`longest_wait` ({policy.longest_wait:g} s)" in PAGE
    assert f"up to {policy.first_wait:g} s, {2 * policy.first_wait:g} s, {4 * policy.first_wait:g} s" in PAGE
    assert (policy.share, policy.reserve, _DOWN) == (0.2, 20, 0.6)
    assert f"after {_FIRST_PROBE:g} s, {2 * _FIRST_PROBE:g} s, ... {_LAST_PROBE:g} s" in PAGE
    assert f"| {', '.join(map(str, sorted(_CURABLE)))}, 500 and above except " in PAGE
    assert f"except {' and '.join(map(str, sorted(_INCURABLE)))}" in PAGE
