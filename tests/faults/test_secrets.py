"""The key is in the request and nowhere else: all that runs write and print, whole, failed or crashed, is searched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from checking import CANARY
from killing import RATELIMIT, mock, records, write_requests

# Everything that a program of ours could print of a failure: the chain, its locals, what it was asked with.
PROGRAM = """
import asyncio, faulthandler, sys, traceback
import ratelimit
from ratelimit.settings import load_settings

faulthandler.enable()

async def main():
    settings = load_settings()
    print(settings, repr(settings), [str(settings.api_key), repr(settings.api_key), f"{settings.api_key}"])
    async with ratelimit.open(base_url=sys.argv[1], retry_attempts=1) as client:
        print(repr(client), client, client.snapshot())
        try:
            await client.send({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
        except ratelimit.RateLimitError as error:
            seen = error
            while seen is not None:
                print(repr(seen), vars(seen))
                traceback.print_exception(seen)
                print("".join(traceback.TracebackException.from_exception(seen, capture_locals=True).format()))
                seen = seen.__cause__ or seen.__context__
            raise RuntimeError(f"{client!r} could not") from error

asyncio.run(main())
"""


def test_the_key_is_found_nowhere(tmp_path: Path) -> None:
    given = {name: text for name, text in os.environ.items() if not name.startswith(("OPENAI_", "RATELIMIT_"))}
    given |= {"XDG_STATE_HOME": str(tmp_path / "state"), "RATELIMIT_SHARED": "file", "RATELIMIT_LOG_LEVEL": "debug"}
    given |= {"PYTHONASYNCIODEBUG": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(Path.cwd())}
    dotenv, settings, printed = tmp_path / ".env", tmp_path / "ratelimit.toml", list[bytes]()

    def run(*command: str, **more: str) -> int:
        done = subprocess.run(command, cwd=tmp_path, env=given | more, capture_output=True, check=False)
        printed.append(done.stdout + done.stderr)
        return done.returncode

    write_requests(tmp_path / "requests.jsonl", 60)
    dotenv.write_text(f"OPENAI_API_KEY={CANARY}\n")
    faults = ("--fault", "500:rate=0.1", "--fault", "html:rate=0.1", "--fault", "reset:rate=0.1")
    with mock("--tier", "tier-1", "--latency", "0.05", *faults) as url:
        job = [*RATELIMIT, "run", "requests.jsonl", "-o", "results.jsonl", "--base-url", url, "--json"]
        job += ["--report", "report.html"]
        with subprocess.Popen(job, cwd=tmp_path, env=given, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as dies:
            while len(records(tmp_path / "results.jsonl")) < 10 and dies.poll() is None:
                time.sleep(0.01)
            dies.send_signal(signal.SIGABRT)
            printed.extend(dies.communicate())
        assert b"Fatal Python error: Aborted" in printed[1]  # the crash dump
        assert run(*job) == 0
        dotenv.rename(settings)
        settings.write_text(f'[settings]\napi_key = "{CANARY}"\n')
        assert run(sys.executable, "-c", PROGRAM, "http://127.0.0.1:9/v1") == 1
        assert all(text in printed[-1] for text in (b"RuntimeError", b"NotAnswered", b"    self = <"))
        settings.unlink()
        assert run(*RATELIMIT, "doctor", "--base-url", url, OPENAI_API_KEY=CANARY) in {0, 1}
        inside = f"https://me:{CANARY}@127.0.0.1/v1"
        assert run(*RATELIMIT, "run", "requests.jsonl", "-o", "-", "--base-url", inside) == 2
        assert b"(not shown)" in printed[-1]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"results.jsonl", "results.journal.jsonl", "report.html"} < {path.name for path in written}
    assert any(path.is_relative_to(tmp_path / "state") for path in written)  # the store of what is shared
    assert [path.name for path in written if CANARY.encode() in path.read_bytes()] == []
    assert [text for text in printed if CANARY.encode() in text] == []
