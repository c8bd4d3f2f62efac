"""A file: a prompt a line on standard input, and a line of JSON for each answer on standard output, as they come.

At most `window` prompts are held at any time, however long the file is. For jobs that must outlive a crash there is
`ratelimit run`, which does the same with a journal.
"""

import asyncio
import json
import sys

import ratelimit


async def main() -> None:
    """Answer every line, each at the moment the tier allows."""
    bodies = (
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": line.strip()}], "max_completion_tokens": 100}
        for line in sys.stdin
        if line.strip()
    )
    async with ratelimit.open(tier="tier-1") as client:
        async for result in client.map(bodies, window=200):
            said = {"error": str(result.error)} if result.error else {"text": result.unwrap().text}
            print(json.dumps({"line": result.index, **said}))


if __name__ == "__main__":
    asyncio.run(main())
