"""The whole tool in a minute, without a key: a mock of the service at Tier 1, a plan, and a job of 600 requests.

600 requests at 500 a minute take some twelve seconds and a little: the first 500 fit into a full minute's bucket, the
others come at its rate. What it writes is in a directory of its own, whose name is printed at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = 600
RATELIMIT = [sys.executable, "-m", "ratelimit"]


def main() -> int:
    """Run the demo; returns what `ratelimit run` returned."""
    place = Path(tempfile.mkdtemp(prefix="ratelimit-demo-"))
    requests = place / "requests.jsonl"
    with requests.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            question = {"role": "user", "content": f"Write the number {number} in words."}
            body = {"model": "gpt-4o-mini", "messages": [question], "max_tokens": 50}
            line = {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    mock = subprocess.Popen(
        [*RATELIMIT, "mock", "--tier", "tier-1", "--model", "gpt-4o-mini", "--port", "0", "--latency", "0.3-2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert mock.stdout is not None
        greeting = mock.stdout.readline()
        url = next(word.rstrip(",") for word in greeting.split() if word.startswith("http://"))
        environment = {**os.environ, "OPENAI_API_KEY": "sk-demo", "OPENAI_BASE_URL": url}
        say(f"ratelimit plan {requests.name} --tier tier-1 --expected-output 40")
        subprocess.run(
            [*RATELIMIT, "plan", requests.name, "--tier", "tier-1", "--expected-output", "40"],
            cwd=place,
            env=environment,
            check=True,
        )
        say(f"ratelimit run {requests.name} -o results.jsonl --tier tier-1 --report report.html")
        command = [
            *RATELIMIT,
            "run",
            requests.name,
            "-o",
            "results.jsonl",
            "--tier",
            "tier-1",
            "--report",
            "report.html",
        ]
        code = subprocess.run(command, cwd=place, env=environment, check=False).returncode
    finally:
        mock.terminate()
        mock.wait()
    say(f"results: {place / 'results.jsonl'}")
    say(f"report:  {place / 'report.html'}")
    return code


def say(text: str) -> None:
    """Print a line that stands out."""
    print(f"\n--- {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
