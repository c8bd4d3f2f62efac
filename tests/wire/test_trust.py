"""Who may see the key: verified certificates only, and the proxy that the environment names."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from wire_rig import KEY, Raw, ask, make, missing, reply

from ratelimit.errors import BadSettings, HostNotTrusted, NotAnswered
from ratelimit.wire.messages import request
from ratelimit.wire.retry import Policy
from ratelimit.wire.transport import Endpoint, Transport, Unsent

# Signed by itself, for localhost and 127.0.0.1, for a hundred years; it guards nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVLFzQEYkGsnXqu8W
XagO3arsu3FCdHP4Dun0NFQ4aJKhRANCAARuJ+Arw3m8/n8hzvYeuprAuVclxbsC
uzwAPzvHlGb4VqDa03BuCGwxvvlc59r4+xbMAZt8w4n2xamqBkg7h0c4
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUING4sgQDBYehBgt++l+N8gNqwPYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTExMzIyMVoYDzIxMjYxMDI4
MTEzMjIxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARuJ+Arw3m8/n8hzvYeuprAuVclxbsCuzwAPzvHlGb4VqDa03BuCGwx
vvlc59r4+xbMAZt8w4n2xamqBkg7h0c4o28wbTAdBgNVHQ4EFgQUiJUjeqyR7Bnf
kjKOrRCzW54Dup0wHwYDVR0jBBgwFoAUiJUjeqyR7BnfkjKOrRCzW54Dup0wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAMH4W8AkTnnchkUTQv1AxemjPRICA9vE/A/01UQ6QiPdAiB6
Dl1cZF4OTPZf2yHwCoGlev021Ghwfuo3IIw74Y/ERQ==
-----END CERTIFICATE-----
"""
ONCE = Policy(attempts=1)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "own.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_certificate_nobody_vouches_for_is_refused(tls: ssl.SSLContext) -> None:
    async with Raw(reply(), tls=tls) as server, make(server.url) as client:
        waiting = [asyncio.create_task(client.send(ask())) for _ in range(20)]
        with pytest.raises(HostNotTrusted) as caught:
            await client.send(ask())
        await asyncio.gather(*waiting, return_exceptions=True)
        assert server.requests == []
        assert (missing(client), client.count.retried) == ({"RPM": 0, "TPM": 0}, 0)
    assert str(caught.value) == (
        "127.0.0.1 is not to be trusted with the key: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        "self-signed certificate (_ssl.c:1006); check the base URL and the proxy"
    ).replace("(_ssl.c:1006)", f"(_ssl.c:{str(caught.value).partition('_ssl.c:')[2].partition(')')[0]})")


async def test_what_cannot_be_trusted_stops_the_client(tls: ssl.SSLContext) -> None:
    async with Raw(reply(), tls=tls) as server, make(server.url) as client:
        with pytest.raises(HostNotTrusted):
            await client.send(ask())
        before = server.connections
        with pytest.raises(HostNotTrusted):
            await client.send(ask())
        assert (client.count.attempts, server.connections) == (1, before)


async def test_a_plain_server_behind_https_is_not_trusted() -> None:
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.read(10_000)
        writer.write(reply({}, 400))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, make(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", policy=ONCE) as client:
        with pytest.raises(HostNotTrusted, match=r"^127\.0\.0\.1 is not to be trusted with the key: .*SSL"):
            await client.send(ask())
    assert heard
    assert KEY.encode() not in heard


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async with Raw(reply()) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with make("http://api.example/v1") as client:
            await client.send(ask())
    assert proxy.requests[0][0] == "POST http://api.example/v1/chat/completions HTTP/1.1"


async def test_hosts_without_a_proxy_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Raw(reply()) as proxy, Raw(reply()) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1,example.org")
        async with make(server.url) as client:
            await client.send(ask())
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


async def test_a_proxy_sees_no_key_on_the_way_to_a_tls_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Raw(reply(b"", 407)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with make("https://api.example/v1") as client:
            with pytest.raises(HostNotTrusted) as caught:
                await client.send(ask())
    assert str(caught.value) == (
        "api.example is not to be trusted with the key: the proxy answered 407 Whatever; check the base URL and the "
        "proxy"
    )
    assert proxy.requests[0][0] == "CONNECT api.example:443 HTTP/1.1"
    assert KEY not in repr(proxy.requests)


async def test_a_proxy_in_trouble_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Raw(reply(b"", 502)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with make("https://api.example/v1", policy=Policy(attempts=3)) as client:
            with pytest.raises(NotAnswered) as caught:
                await client.send(ask())
            assert client.count.attempts == 3
            assert missing(client) == {"RPM": 0, "TPM": 0}
    assert str(caught.value) == (
        "no connection to api.example: the proxy answered 502 Whatever; it was not sent. If this persists, look at the "
        "network, the base URL and the time-outs"
    )


async def test_a_proxy_that_is_not_there_is_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    async with Transport(Endpoint("https://api.example/v1")) as transport:
        with pytest.raises(Unsent):
            await transport.post(request(ask()))


async def test_netrc_lays_nothing_over_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with Raw(reply()) as server, make(server.url) as client:
        await client.send(ask())
    assert server.requests[0][1]["authorization"] == f"Bearer {KEY}"


async def test_a_proxy_may_be_named_without_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Raw(reply()) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        async with make("http://api.example/v1") as client:
            await client.send(ask())
    assert len(proxy.requests) == 1


async def test_a_proxy_of_another_kind_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(BadSettings) as caught:
        async with make("https://api.example/v1"):
            pass
    assert str(caught.value) == "https_proxy names a proxy that speaks socks5: one that speaks http, or none"
