"""Drop-in: the official SDK's client, and one line that makes it keep to the tier. Needs `pip install openai`."""

import asyncio

from openai import AsyncOpenAI

from ratelimit.openai import rate_limited


async def main() -> None:
    """Ask twenty questions at once; each leaves when the limits allow."""
    client = rate_limited(AsyncOpenAI(), tier="tier-1")
    calls = (
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"What is {n}²?"}])
        for n in range(20)
    )
    for answer in await asyncio.gather(*calls):
        print(answer.choices[0].message.content)


if __name__ == "__main__":
    asyncio.run(main())
