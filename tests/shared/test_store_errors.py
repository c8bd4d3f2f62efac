"""What is said of a Redis server that cannot be used: what is wrong with it, and what to do."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import pytest
from redis_server import RedisServer, needed
from sharing import QUESTION

from ratelimit.admission.shared.redis import RedisStore
from ratelimit.errors import StoreUnusable

pytestmark = pytest.mark.real_time  # a server's answer takes a moment, in which a virtual clock runs into time-outs

LET_IN = "put user and password into the URL"


@pytest.fixture(autouse=True)
def _() -> None:
    needed()


async def complaint(url: str, *, asks: bool = False) -> str:
    """What is said when a program starts with that store, or when it asks for its first lease."""
    store = RedisStore(url)
    with pytest.raises(StoreUnusable) as said:
        await (store.lease("g", QUESTION) if asks else store.check())
    await store.aclose()
    return str(said.value).replace(store.where, "URL")


@pytest.mark.parametrize("who", ["", "bob:hunter2@", ":hunter2@"])
async def test_a_server_that_does_not_let_us_in(who: str, tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "open-sesame") as server:
        said = await complaint(f"redis://{who}127.0.0.1:{server.port}")
    why = "wrong user or password" if who else "it wants a password"
    assert said == f"shared limits at URL: does not let us in ({why}); {LET_IN}"


async def test_a_server_without_such_a_database(redis_server: RedisServer) -> None:
    assert await complaint(f"redis://127.0.0.1:{redis_server.port}/5000") == (
        "shared limits at URL: has no such database (DB index is out of range); use a lower number in the URL, such as "
        "redis://HOST/0"
    )


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    nobody = RedisServer(tmp_path)
    assert await complaint(f"redis://127.0.0.1:{nobody.port}") == (
        "shared limits at URL: does not answer (ConnectionError); start it, correct the URL, or set "
        "RATELIMIT_SHARED=off"
    )


@pytest.mark.parametrize(("protocol", "age"), [(3, "older than Redis 6"), (2, "Redis 5.0.14")])
async def test_a_server_that_is_too_old(protocol: int, age: str) -> None:
    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        while (head := await reader.readline()).startswith(b"*"):
            words = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(head[1:]))]
            match words[0].upper():
                case b"HELLO":
                    writer.write(b"-ERR unknown command `HELLO`\r\n")
                case b"INFO":
                    writer.write(b"$22\r\nredis_version:5.0.14\r\n\r\n")
                case _:
                    writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await complaint(f"redis://127.0.0.1:{port}?protocol={protocol}")
        server.close()
    assert said == f"shared limits at URL: is {age}; use Redis 6 or later, or Valkey"


async def test_a_server_that_is_full(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--maxmemory", "1mb") as server:
        said = await complaint(f"redis://127.0.0.1:{server.port}", asks=True)
    assert said == "shared limits at URL: is full (maxmemory); give it more memory, or let it evict keys that expire"


@pytest.mark.parametrize("command", ["SET", "LPUSH"])
async def test_keys_of_another_program_under_our_prefix(command: str, redis_server: RedisServer) -> None:
    url = redis_server.fresh()
    reader, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
    writer.write(f"SELECT {url.rpartition('/')[2]}\r\n{command} ratelimit:lane:g theirs\r\n".encode())
    assert not (await reader.readline() + await reader.readline()).startswith(b"-")
    writer.close()
    assert await complaint(url, asks=True) == (
        "shared limits at URL: has keys of another program under ratelimit:lane:; use another database, such as "
        "redis://HOST/1"
    )


async def test_a_user_who_may_not_do_what_is_needed(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--user", "bob", "on", ">open-sesame", "~*", "+@all", "-info") as server:
        said = await complaint(f"redis://bob:open-sesame@127.0.0.1:{server.port}")
    assert said == (
        "shared limits at URL: does not let this user do what is needed; allow it all commands on ratelimit:lane:*, or "
        "put another user into the URL"
    )
