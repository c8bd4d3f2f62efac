"""Streaming: print an answer while it is written."""

import asyncio
import json

import ratelimit

BODY = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_completion_tokens": 200,
    "stream": True,
    "stream_options": {"include_usage": True},  # settles what the request was charged
}


async def main() -> None:
    """Read the events of one answer; its turn ends with the stream."""
    async with ratelimit.open(tier="tier-1") as client, client.stream(BODY) as pieces:
        rest = b""
        async for piece in pieces:  # bytes as they came: an event may lie across two pieces
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data: ")
                if data != b"[DONE]":
                    for choice in json.loads(data)["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main())
