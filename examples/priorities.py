"""Priorities: a long batch and people who wait, on one key. Whoever has the lower number goes first.

The batch uses all that the limits allow, and gives way for as long as somebody is asking.
"""

import asyncio

import ratelimit

INTERACTIVE, BATCH = 0, 10


def body(question: str) -> dict[str, object]:
    """Return a request for a short answer."""
    messages = [{"role": "user", "content": question}]
    return {"model": "gpt-4o-mini", "messages": messages, "max_completion_tokens": 50}


async def main() -> None:
    """Send a batch, and ask in the midst of it."""
    async with ratelimit.open(tier="tier-1", rpm=600) as client:

        async def batch() -> None:
            async for result in client.map((body(f"Row {n}?") for n in range(40)), priority=BATCH):
                print("batch", result.index)

        async with asyncio.TaskGroup() as group:
            group.create_task(batch())
            await asyncio.sleep(0.1)
            reply = await client.send(body("A person asks: how are you?"), priority=INTERACTIVE)
            print("person", reply.text)


if __name__ == "__main__":
    asyncio.run(main())
