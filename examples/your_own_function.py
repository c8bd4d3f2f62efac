"""Your own async function, whatever it calls: each call waits for its turn and goes at the first moment it may."""

import asyncio

from ratelimit import MINUTE, Limit, Scheduler

LIMITS = {"my-service": [Limit("requests", 600, MINUTE), Limit("tokens", 60_000, MINUTE)]}


async def main() -> None:
    """Call a function a few times, first by a decorator and then with what each call really took."""
    scheduler = Scheduler(LIMITS)

    @scheduler.limited("my-service", tokens=100)
    async def double(number: int) -> int:
        await asyncio.sleep(0.01)  # here stands the call of your client
        return 2 * number

    print(await asyncio.gather(*(double(number) for number in range(10))))

    async with scheduler.reserve("my-service", tokens=500) as turn:
        await asyncio.sleep(0.01)
        turn.used(tokens=120)  # the other 380 are free again
    print(scheduler)


if __name__ == "__main__":
    asyncio.run(main())
