"""What only a person can cure, in mid-run: one sentence, exit 3, rows untouched, and the same command goes on."""

from __future__ import annotations

import json

import pytest
from checking import CANARY, check, lines
from jobbing import Place, ask, batch_line
from wire_rig import Raw, reply

from ratelimit.jobs.budget import Options
from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.faults import PROBLEMS
from ratelimit.testing.mock.refusals import Problem


async def test_a_project_limit_that_is_lowered_in_mid_run_is_followed(place: Place) -> None:
    """From 200 a minute to 60: what was under way is refused, and nothing after that; no row fails."""
    place.write(batch_line(f"row-{n}") for n in range(300))
    async with MockServer(tier="tier-1", echo=True, latency="0.5", rpm=200, tpm=200_000) as server:
        server.fault("limits:from=240,rpm=60")
        summary = await place.run(server, rpm=200)
        assert server.stats.refused.total() <= 10
        timeline = server.stats.timeline()
    check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(300)}, exit_code=summary.exit_code)
    lowered = next(each["second"] for each in timeline if sum(e["arrived"] for e in timeline[: each["second"]]) >= 250)
    assert sum(each["admitted"] for each in timeline if each["second"] >= lowered + 5) <= summary.seconds - lowered + 5


GONE = "The model `gpt-4o-mini` has been deprecated"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("invalid_key", "the service rejected the API key (401): "),
        ("insufficient_quota", "the account's quota is used up (insufficient_quota): "),
        ("project_spend_limit_exceeded", "the account's quota is used up (project_spend_limit_exceeded): "),
        ("redirect", "127.0.0.1 is not to be trusted with the key: it redirects to file:///etc/passwd; check the base"),
    ],
)
async def test_rows_are_untouched_and_the_next_run_ends_them(place: Place, kind: str, said: str) -> None:
    place.write(batch_line(f"row-{n}") for n in range(90))
    expected = {f"row-{n}": f"what is row-{n}?" for n in range(90)}
    how = f"{kind}:from=31" + (",header=location=file:///etc/passwd" if kind == "redirect" else "")
    async with MockServer(tier="tier-1", echo=True, latency="0.1") as server:
        server.fault(how)
        summary = await place.run(server)
        assert summary.stopped is not None
        assert summary.stopped.startswith(said)
        left = check(place.output, expected, exit_code=summary.exit_code)
        assert (summary.exit_code, left.failures) == (3, {})
        server.clear_faults()
        again = await place.run(server)
    check(place.output, expected, exit_code=again.exit_code)
    assert place.said == []  # nothing of what was turned away is said to be in doubt


async def test_a_model_retired_in_mid_run_stops_its_rows_and_no_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ["gpt-4o-mini" if n % 2 else "gpt-4.1-mini" for n in range(120)]
    place.write(batch_line(f"row-{n}", ask(f"what is row-{n}?", model)) for n, model in enumerate(models))
    expected = {f"row-{n}": f"what is row-{n}?" for n in range(120)}
    monkeypatch.setitem(PROBLEMS, "invalid_key", Problem(404, GONE, "invalid_request_error", "model_not_found"))
    log = place.path / "served.jsonl"
    async with MockServer(tier="tier-1", echo=True, latency="0.1", log=log) as server:
        server.fault("invalid_key:from=41,to=41")
        summary = await place.run(server, Options(concurrency=60))  # some wait for a turn, and some are not read yet
        left = check(place.output, expected, exit_code=summary.exit_code)
        (gone,) = {models[int(name.removeprefix("row-"))] for name in left.missing}
        assert {f"row-{n}" for n, model in enumerate(models) if model == gone and n >= 90} <= left.missing
        served = lines(log)
        told = next(each["at"] for each in served if each["status"] == 404)
        assert {each["model"] for each in served if each["at"] > told + 0.01} == set(models) - {gone}
        assert summary.stopped == (
            f'the service does not have the model "{gone}" for this key: {GONE} Its rows are untouched; name another '
            f"model in them, or use a key that may use it, then run again"
        )
        assert (summary.exit_code, left.failures) == (3, {})
        assert {f"row-{n}" for n, model in enumerate(models) if model != gone} <= set(left.answers)
        again = await place.run(server)
    check(place.output, expected, exit_code=again.exit_code)


SAID = {"choices": [{"message": {"role": "assistant", "content": f"you said Bearer {CANARY}"}}]}
REFUSED = {"error": {"message": f"no such key {CANARY}"}}


@pytest.mark.parametrize(
    "raw",
    [
        reply(SAID, 200, {"x-request-id": CANARY}),
        *(reply(REFUSED, status, {"x-request-id": CANARY}) for status in (400, 401, 500)),
        reply(b"", 307, {"Location": f"https://elsewhere.example/?key={CANARY}"}),
        f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode(),
    ],
    ids=["200", "400", "401", "500", "redirect", "no HTTP"],
)
async def test_a_server_that_repeats_the_key_is_not_repeated(place: Place, raw: bytes) -> None:
    place.write([batch_line("row-0")])
    async with Raw(raw) as server, MockServer() as unused:
        report = place.path / "results.html"
        summary = await place.run(
            unused, base_url=server.url, report=report, retry_attempts=1, tier="tier-1", api_key=CANARY
        )
    assert server.requests[0][1]["authorization"] == f"Bearer {CANARY}"
    shown = [summary.json(), *summary.lines(), *place.said, report.read_text(), str(summary.stopped)]
    check(place.output, {"row-0": "you said Bearer ***"}, exit_code=summary.exit_code, printed=shown)


async def test_what_others_write_is_neutral_in_every_file_and_line(place: Place) -> None:
    evil = '\x1b]0;owned\x07<script>alert(1)</script>=cmd|"/c calc"!A1\x9b2J'
    place.write([json.dumps(json.loads(batch_line("row-0")) | {"custom_id": f"row-{evil}"}), batch_line("row-1")])
    refused = reply({"error": {"message": evil, "code": evil, "type": evil}}, 400, {"x-request-id": "r\x1b[2J"})
    async with Raw(refused) as server, MockServer() as unused:
        report = place.path / "results.html"
        summary = await place.run(unused, base_url=server.url, report=report, tier="tier-1")
    assert summary.failed == 2
    assert "<script>" not in report.read_text()
    check(place.output, {}, exit_code=1, printed=[summary.json(), *place.said])
