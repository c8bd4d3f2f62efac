"""`ratelimit mock`: the mock server in a terminal, until it is interrupted."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import Account, Limits, MockServer

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SHOWN = 12


@click.command()
@click.option("--tier", default="tier-1", show_default=True, help="The usage tier whose limits are enforced.")
@click.option("--model", "models", multiple=True, help="Serve this model only; may be given several times.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 for any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--enforce", default="bucket", show_default=True, help="How it counts: bucket, sliding, fixed, quantised."
)
@click.option(
    "--charge",
    default="chat_2025",
    show_default=True,
    help="What a request costs in tokens: chat_2025, chat_2024, documented, exact.",
)
@click.option(
    "--latency", default="0", show_default=True, help="Seconds before an answer: 0.5, 0.2-1.5, lognormal:0.8,0.5."
)
@click.option(
    "--token-delay", type=float, default=0.0, show_default=True, help="Seconds between the events of a stream."
)
@click.option(
    "--output-tokens", default=None, help="How long answers are: 50, 16-64, lognormal:200,0.6.  [default: 16-64]"
)
@click.option("--reasoning-tokens", default="64-256", show_default=True, help="How much reasoning models think.")
@click.option("--echo", is_flag=True, help="Answer with the last text of the question.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers and faults.")
@click.option("--rpm", type=int, help="Requests a minute, in place of the table's.")
@click.option("--rpd", type=int, help="Requests a day, in place of the table's.")
@click.option("--tpm", type=int, help="Tokens a minute, in place of the table's.")
@click.option("--tpd", type=int, help="Tokens a day; the headers then speak of these.")
@click.option("--images", type=int, help="Input images a minute.")
@click.option("--batch-queue", type=int, help="Prompt tokens that batches may have enqueued, in place of the table's.")
@click.option("--batch-speed", type=float, default=1000.0, show_default=True, help="Requests a batch answers a second.")
@click.option(
    "--batch-delay", type=float, default=0.5, show_default=True, help="Seconds of checking and of finalizing."
)
@click.option(
    "--batch-release-lag", type=float, default=0.0, show_default=True, help="Seconds until the queue is free."
)
@click.option("--key", "keys", multiple=True, metavar="KEY=ORG[/PROJECT]", help="Let only such keys in.")
@click.option("--project-limit", "project_limits", multiple=True, metavar="PROJECT:rpm=N,tpm=N", help="A lower limit.")
@click.option("--count-rejected", is_flag=True, help="Refused requests use up the limits too.")
@click.option("--no-responses-429-headers", is_flag=True, help="No limit headers on a refused response, as in 2025.")
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="What goes wrong, as 500:rate=0.05.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Append a line of JSON for each request.")
def mock(**given: Any) -> None:
    """Serve a local API that limits, answers and fails like the real one."""
    if given["echo"] and given["output_tokens"] is not None:
        raise BadMockOption("--output-tokens", given["output_tokens"], "--echo decides how long answers are; drop one")
    if given["output_tokens"] is None:
        given["output_tokens"] = "16-64"
    given["models"] = given["models"] or None
    given["responses_429_headers"] = not given.pop("no_responses_429_headers")
    keys = given["keys"] = dict(_account(each) for each in given["keys"]) or None
    limits = given["project_limits"] = dict(_project_limit(each) for each in given["project_limits"])
    if keys is not None:
        for project in limits.keys() - {each.project for each in keys.values()}:
            raise BadMockOption(
                "--project-limit", project, "no --key belongs to this project; add one or drop the limit"
            )
    asyncio.run(_serve(MockServer(**given), given["host"]))


def _account(spec: str) -> tuple[str, Account]:
    key, given, owner = spec.rpartition("=")
    organization, _, project = owner.partition("/")
    if not given or not key or not organization:
        raise BadMockOption("--key", "***", "write KEY=ORGANIZATION or KEY=ORGANIZATION/PROJECT")
    return key, Account(organization, project or f"proj_{organization}")


def _project_limit(spec: str) -> tuple[str, Limits]:
    project, _, rest = spec.partition(":")
    try:
        limits = {name: int(value) for name, _, value in (each.partition("=") for each in rest.split(","))}
        return project, Limits(**limits)
    except (ValueError, TypeError):
        raise BadMockOption(
            "--project-limit", spec, "write PROJECT:rpm=10,tpm=1000 with rpm, rpd, tpm or tpd"
        ) from None


async def _serve(server: MockServer, host: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    _raise_file_limit()
    async with server as running:
        if host not in _LOOPBACK:
            click.echo(
                f"warning: {host} is not this machine's own address; anybody who reaches it can use this server",
                err=True,
            )
        for line in announcement(running):
            click.echo(line)
        # What lives from here on lives as long as the server: the collector need not look at it again and again.
        gc.freeze()
        await stop.wait()
        stats = running.stats
    refused = sum(stats.refused.values())
    click.echo(f"\n{stats.arrived:,} requests arrived, {stats.admitted:,} admitted, {refused:,} refused")


def announcement(server: MockServer) -> Iterable[str]:
    """What is shown when the server is up: where, which limits, and how to try it."""
    families = server.service.catalogue.families()
    yield f"mock server on {server.base_url}, statistics on {server.root_url}/_mock/"
    for family in families[:_SHOWN]:
        limits = ", ".join(f"{value:,} {name}" for name, value in family.limits.given().items())
        yield f"  {family.name}: {limits or 'no limits'}"
    if len(families) > _SHOWN:
        yield f"  and {len(families) - _SHOWN} more: GET {server.base_url}/models"
    model = families[0].name if families else "MODEL"
    yield "try it:"
    yield f"  export OPENAI_BASE_URL={server.base_url} OPENAI_API_KEY=sk-any"
    yield (
        '  curl -i $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        f'-d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]}}\''
    )


def _raise_file_limit() -> None:
    """Lets as many connections in as the system allows without asking; systems without such limits have no module."""
    with suppress(ImportError):
        resource = import_module("resource")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
