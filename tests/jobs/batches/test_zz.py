import asyncio, time
from batching import *


async def test_one(place):
    place.ask_for(50)
    async with MockServer(echo=True) as mock:
        s = await place.batch(mock)
        print(s.lines(), place.said, statuses(mock), codes(mock), files(mock))
    assert s.exit_code == 0
    place.expect_everything(50)


async def test_fill(place):
    n = 2000
    place.ask_for(n, words=87)
    (place.path / "t.toml").write_text("[models.gpt-4o-mini.tiers.tier-1]\nrpm=500\ntpm=200000\nbatch_queue=40000\n")
    async with MockServer(echo=True, batch_queue=40_000, batch_speed=0.01) as mock:
        w = Watch(mock)
        t = asyncio.create_task(w.watch())
        t0 = time.time()
        s = await asyncio.wait_for(place.batch(mock, tiers_file=place.path / "t.toml"), 3600 * 3)
        print(time.time() - t0)
        t.cancel()
        print(s.lines(), place.said[-3:], statuses(mock), codes(mock), files(mock), len(w.levels))
        import statistics as st

        peak = max(w.levels)
        lv = w.levels
        print(peak, st.mean(lv[: len(lv) * 7 // 10]) / 40000, st.mean(lv[5 : len(lv) * 7 // 10]) / 40000)
    place.expect_everything(n, words=87)
    assert s.exit_code == 0
