"""Networks that fail below HTTP, and replies whose headers are the attack: classified, bounded, and tried elsewhere."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp.connector
import pytest
from checking import check
from jobbing import Place, batch_line
from wire_rig import Act, Raw, ask, make, missing, reply, served

from ratelimit.errors import HostNotTrusted, NotAnswered
from ratelimit.testing.mock import MockServer
from ratelimit.wire.retry import Policy
from ratelimit.wire.transport import Bounds

ONCE = Policy(attempts=1)
QUICK = Bounds(connect=5, first_byte=20, between_bytes=10, reply=60, body=100_000)
ROWS = 60
EXPECTED = {f"row-{n}": f"what is row-{n}?" for n in range(ROWS)}
NAME = "api.test"
Addresses = Callable[[], list[str]]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Addresses], None]:
    """Says what the name resolves to, whenever it is looked up."""

    def answer(addresses: Addresses) -> None:
        def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
            found = [host] if host != NAME else addresses()
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
                if ":" in each
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
                for each in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer


async def test_a_name_that_is_not_known_for_a_while_costs_no_row(
    place: Place, resolve: Callable[[Addresses], None]
) -> None:
    clock = asyncio.get_running_loop().time
    asked: list[float] = []

    def addresses() -> list[str]:
        asked.append(clock())
        if clock() < 600:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    resolve(addresses)
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    async with MockServer(tier="tier-1", echo=True) as server:
        summary = await place.run(server, base_url=server.base_url.replace("127.0.0.1", NAME))
        assert server.stats.arrived == ROWS
    check(place.output, EXPECTED, exit_code=summary.exit_code)
    assert len(asked) <= 200
    assert summary.seconds <= 600 + 63


async def test_a_service_that_moves_to_another_address_is_found_there(
    place: Place, resolve: Callable[[Addresses], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["127.0.0.1"]
    monkeypatch.setattr(aiohttp.connector, "monotonic", asyncio.get_running_loop().time)  # how long a name is believed
    resolve(lambda: where)
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    async with MockServer(tier="tier-1", echo=True, rpm=30, latency="0.2") as before:
        url = before.base_url.replace("127.0.0.1", NAME)
        running = asyncio.create_task(place.run(before, base_url=url, rpm=30))
        await asyncio.sleep(40)
    where[0] = "127.0.0.2"
    port = int(url.rpartition(":")[2].partition("/")[0])
    async with MockServer(tier="tier-1", echo=True, host="127.0.0.2", port=port) as after:
        summary = await running
        assert 0 < after.stats.arrived < ROWS
    check(place.output, EXPECTED, exit_code=summary.exit_code)
    assert summary.seconds <= 60 + 2 * 63


@contextmanager
def silent(port: int) -> Iterator[None]:
    """An address that lets nobody in and does not say so."""
    with ExitStack() as opened:
        full = opened.enter_context(socket.socket(socket.AF_INET6))
        full.bind(("::1", port))
        full.listen(0)
        for _ in range(3):
            client = opened.enter_context(socket.socket(socket.AF_INET6))
            client.setblocking(False)
            client.connect_ex(("::1", port))
        yield


@pytest.mark.parametrize("dead", [False, True])
async def test_where_ipv6_leads_nowhere_ipv4_is_taken(resolve: Callable[[Addresses], None], *, dead: bool) -> None:
    resolve(lambda: ["::1", "127.0.0.1"])
    async with Raw(reply()) as server, make(f"http://{NAME}:{server.port}/v1", policy=ONCE) as client:
        with ExitStack() as opened:
            if dead:
                opened.enter_context(silent(server.port))
            began = asyncio.get_running_loop().time()
            assert (await client.send(ask())).text == "hello there"
            assert asyncio.get_running_loop().time() - began <= 0.5
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("names", "days", "why"),
    [
        ("IP:127.0.0.1", "-1", "certificate has expired"),
        ("DNS:elsewhere.example", "1", "IP address mismatch, certificate is not valid for '127.0.0.1'."),
    ],
)
async def test_a_certificate_that_is_out_of_date_or_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, days: str, why: str
) -> None:
    file, extensions = tmp_path / "certificate.pem", tmp_path / "extensions"
    extensions.write_text(f"subjectAltName={names}")
    ask_for = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=service"]
    sign = [
        "x509",
        "-req",
        "-in",
        "asked",
        "-signkey",
        "key",
        "-days",
        days,
        "-extfile",
        "extensions",
        "-out",
        "public",
    ]
    for command in ([*ask_for, "-keyout", "key", "-out", "asked"], sign):
        subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=tmp_path)  # noqa: ASYNC221
    file.write_text((tmp_path / "key").read_text() + (tmp_path / "public").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    vouched = ssl.create_default_context(cafile=str(tmp_path / "public"))  # so that nothing else is wrong with it
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", vouched)
    async with Raw(reply(), tls=context) as server, make(server.url) as client:
        with pytest.raises(HostNotTrusted) as caught:
            await client.send(ask())
        assert (server.requests, missing(client), client.count.retried) == ([], {"RPM": 0, "TPM": 0}, 0)
    said, _, place = str(caught.value).partition(" (_ssl.c:")
    assert said == (
        "127.0.0.1 is not to be trusted with the key: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        f"{why}"
    )
    assert place.endswith("); check the base URL and the proxy")


async def test_ten_thousand_headers_and_one_of_a_megabyte_are_bounded() -> None:
    many = reply(headers={f"x-header-{n}": "y" * 20 for n in range(10_000)})
    large = reply(headers={"x-header": "y" * 1_000_000})
    for raw in (many, large):
        began = time.process_time()
        async with served(raw, policy=ONCE) as (server, client):
            with pytest.raises(NotAnswered) if raw is large else suppress(NotAnswered):
                assert (await client.send(ask())).text == "hello there"
            assert len(server.requests) == 1
        assert time.process_time() - began < 1


def dripping(raw: bytes) -> Act:
    """An act that writes a byte each second."""

    async def act(_server: Raw, writer: Any) -> bool:
        for at in range(len(raw)):
            writer.write(raw[at : at + 1])
            await asyncio.sleep(1)
        return False

    return act


@pytest.mark.parametrize(
    ("act", "seconds"),
    [
        (dripping(reply()), 25),  # a reply has begun once its headers are there
        (dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1_000), 19 + 60),
    ],
)
async def test_a_byte_each_second_is_listened_to_no_longer_than_a_reply_may_take(act: Act, seconds: int) -> None:
    async with served(act, policy=ONCE, bounds=QUICK) as (_, client):
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotAnswered, match=r"^127\.0\.0\.1 was silent for too long; it may have been billed\."):
            await client.send(ask())
        assert asyncio.get_running_loop().time() - began == pytest.approx(seconds, abs=1)
