"""One call: ask a question and print the answer.

Needs OPENAI_API_KEY, or OPENAI_BASE_URL where `ratelimit mock` listens.
"""

import asyncio

import ratelimit


async def main() -> None:
    """Ask."""
    async with ratelimit.open(tier="tier-1") as client:
        reply = await client.chat("gpt-4o-mini", "Why is the sky blue?", max_completion_tokens=100)
        print(reply.text)


if __name__ == "__main__":
    asyncio.run(main())
