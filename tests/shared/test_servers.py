"""Real servers, of every kind and in every trouble: the ways to them, and what they forget, lose and confuse."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis_server import RedisServer, free_port, needed
from shared.test_conformance import Client, missing
from sharing import QUESTION, Hands

from ratelimit.admission.shared.redis import PREFIX, RedisStore
from ratelimit.admission.shared.store import LaneSeen, StoreAway
from ratelimit.errors import StoreUnusable

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def _() -> None:
    needed()


@asynccontextmanager
async def at(url: str, hands: Hands | None = None) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, hands)
    try:
        yield store
    finally:
        await store.aclose()


async def is_usable(url: str) -> None:
    """All that a program does there."""
    async with at(url) as store:
        await store.check()
        assert (await store.lease("g", QUESTION)).granted == [1]
        (lane,) = await store.peek()
        assert [holder.holds for holder in lane.holders] == [[1]]


async def complaint(url: str) -> str:
    with pytest.raises(StoreUnusable) as said:
        await is_usable(url)
    return str(said.value)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for what a server does by itself."""
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


# Ways to a server


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(tmp_path, "--unixsocket", str(path)):
        await is_usable(f"unix://{path}")
        await is_usable(f"unix://{path}?db=3")
    assert await complaint(f"unix://{path}") == (
        f"shared limits at unix://{path}: does not answer (ConnectionError); start it, correct the URL, or set "
        f"RATELIMIT_SHARED=off"
    )


async def test_a_password(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "open-sesame") as server:
        await is_usable(f"redis://:open-sesame@127.0.0.1:{server.port}")
        await is_usable(f"redis://default:open-sesame@127.0.0.1:{server.port}/1")
        assert await complaint(f"redis://127.0.0.1:{server.port}") == (
            f"shared limits at redis://127.0.0.1:{server.port}: does not let us in (it wants a password); put user and "
            f"password into the URL"
        )
        assert await complaint(f"redis://:simsim@127.0.0.1:{server.port}") == (
            f"shared limits at redis://127.0.0.1:{server.port}: does not let us in (wrong user or password); put user "
            f"and password into the URL"
        )


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_user_who_may_do_what_the_documents_say_and_no_more(tmp_path: Path, *, cluster: bool) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text("utf-8")
    (rules,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER")]
    (more,) = re.findall("and in a cluster, on each server, `(.*)` besides", page)
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port())) if cluster else ()
    with RedisServer(tmp_path, *options) as server:
        _acl, _setuser, name, *rights = rules.replace("PASSWORD", "open-sesame").split()
        assert server.say("ACL", "SETUSER", name, *rights) == "+OK\r\n"
        url = f"redis://{name}:open-sesame@127.0.0.1:{server.port}"
        if cluster:
            assert server.say("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == "+OK\r\n"
            until(lambda: "cluster_state:ok" in server.say("CLUSTER", "INFO"), "a whole cluster")
            assert await complaint(url) == (
                f"shared limits at redis://127.0.0.1:{server.port}: does not let this user do what is needed; allow it "
                f"all commands on {PREFIX}*, or put another user into the URL"
            )
            assert server.say("ACL", "SETUSER", name, *more.split()) == "+OK\r\n"
        await is_usable(url)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority of our own, and a server's certificate from it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes certificates")

    def openssl(*words: str) -> None:
        subprocess.run(("openssl", *words), cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=ours", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1", "utf-8")
    openssl("req", *key, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    return tmp_path


async def test_tls(certificates: Path, tmp_path: Path) -> None:
    port = free_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    with RedisServer(tmp_path, "--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        await is_usable(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates / 'ca.pem'}")
        assert await complaint(f"rediss://127.0.0.1:{port}") == (
            f"shared limits at rediss://127.0.0.1:{port}: is not to be trusted (self-signed certificate in certificate "
            f"chain); name the authority in the URL, as ?ssl_ca_certs=FILE, or correct the host"
        )


async def test_three_servers_of_a_cluster(tmp_path: Path) -> None:
    """Each lane is one key and so on one of them; whichever of them the URL names, all lanes are found."""
    with ExitStack() as stack:
        servers, buses = list[RedisServer](), list[int]()
        for number in range(3):
            (place := tmp_path / str(number)).mkdir()
            buses.append(free_port())
            options = ("--cluster-enabled", "yes", "--cluster-port", str(buses[-1]))
            servers.append(stack.enter_context(RedisServer(place, *options)))
        parts = [0, 5461, 10923, 16384]
        for number, server in enumerate(servers):
            said = server.say("CLUSTER", "ADDSLOTSRANGE", str(parts[number]), str(parts[number + 1] - 1))
            assert said == "+OK\r\n"
            assert server.say("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port), str(buses[0])) == "+OK\r\n"
        until(lambda: all("cluster_state:ok" in each.say("CLUSTER", "INFO") for each in servers), "a whole cluster")
        until(lambda: all("cluster_known_nodes:3" in each.say("CLUSTER", "INFO") for each in servers), "three nodes")
        groups = [f"lane-{number}" for number in range(12)]
        for server in servers:
            async with at(f"redis://127.0.0.1:{server.port}") as store:
                clients = [Client(store, f"by {server.port}", group=group) for group in groups]
                for client in clients:
                    await client.ask(10, lasts=60e6)
        assert [len(lane.holders) for lane in await seen_at(servers[0])] == [3] * 12
        assert all(server.say("DBSIZE") not in {":0\r\n", ":12\r\n"} for server in servers)


async def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    """The library's errors for that are no kind of its others."""
    path = tmp_path / "redis.sock"
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--unixsocket", str(path))
    with RedisServer(tmp_path, *options) as server:
        assert await complaint(f"unix://{path}") == (
            f"shared limits at unix://{path}: is one of a cluster; name one of its servers by host and port, and no "
            f"database: redis://HOST:PORT"
        )
        async with at(f"redis://127.0.0.1:{server.port}") as store:
            await store.check()
            for what in (store.lease("g", QUESTION), store.peek()):  # it has no slots
                with pytest.raises(StoreAway, match=r"^RedisClusterException$"):
                    await what
            server.kill()
            for what in (store.lease("g", QUESTION), store.peek()):
                with pytest.raises(StoreAway, match=r"^RedisClusterException$"):
                    await what


async def test_a_server_that_goes_away_from_onlookers(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with at(f"redis://127.0.0.1:{server.port}") as store:
            await store.check()
            server.kill()
            with pytest.raises(StoreAway, match=r"^ConnectionError$"):
                await store.peek()


async def seen_at(server: RedisServer) -> list[LaneSeen]:
    async with at(f"redis://127.0.0.1:{server.port}") as store:
        await store.check()
        return await store.peek()


# What a server forgets


async def test_a_script_that_was_flushed_is_sent_again(redis_server: RedisServer) -> None:
    async with at(redis_server.fresh()) as store:
        one = Client(store, "one")
        await one.ask(100)
        assert redis_server.say("SCRIPT", "FLUSH") == "+OK\r\n"
        assert missing(await one.ask(200)) == 200


async def test_a_replica_that_is_behind_takes_over(tmp_path: Path) -> None:
    """What it has not heard of is told by the programs, and taken again: no burst beyond the bucket."""
    hands, places = Hands(), [tmp_path / name for name in ("first", "second")]
    for place in places:
        place.mkdir()
    at_once = ("--repl-diskless-sync-delay", "0")
    with RedisServer(places[0], *at_once) as first, RedisServer(places[1]) as second:
        second.say("REPLICAOF", "127.0.0.1", str(first.port))
        until(lambda: "master_link_status:up" in second.say("INFO", "replication"), "a replica")
        async with at(f"redis://127.0.0.1:{first.port}", hands) as store:
            one, two = Client(store, "one"), Client(store, "two")
            await one.ask(100)
            await two.ask(50)
            until(lambda: second.say("EXISTS", f"{PREFIX}g") == ":1\r\n", "the lane")
            assert second.say("REPLICAOF", "NO", "ONE") == "+OK\r\n"  # from now on it is behind
            one.send(100)
            await one.ask(400)
            one.send(one.has)
            first.kill()
            with pytest.raises(StoreAway):
                await store.lease("g", one.last)
        async with at(f"redis://127.0.0.1:{second.port}", hands) as store:
            one.store = two.store = store
            assert missing(await two.ask(50)) == 150  # before it is told
            one.number += 1
            answer = await one.ask(1000)
            assert one.total == 500 + answer.granted[0]
            assert missing(answer) == 590  # all that ever was leased; the rest is kept back
            assert answer.granted == [40]
