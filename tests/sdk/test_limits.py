"""Waiting, refusals, stops and sharing, as the SDK's callers see them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ratelimit.openai import rate_limited
from ratelimit.testing.mock import MockServer
from ratelimit.wire.sdk_desk import HALT
from sdk.conftest import HELLO, MODEL, lane_of, limiter_of, mock_of, sender_of, table


async def test_waiting_trips_no_time_out(bare: Any, mock: MockServer) -> None:
    loop = asyncio.get_running_loop()
    client = rate_limited(bare.with_options(timeout=0.5), table=table())
    await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(70)))
    assert loop.time() > 10
    assert mock.stats.arrived == 70


async def test_a_reply_that_is_late_trips_it_as_always(openai: Any, bare: Any, mock: MockServer) -> None:
    loop = asyncio.get_running_loop()
    client = rate_limited(bare.with_options(timeout=2, max_retries=0), table=table())
    mock.fail_next("hang", seconds=60)
    with pytest.raises(openai.APITimeoutError):
        await client.chat.completions.create(**HELLO)
    assert loop.time() == pytest.approx(2, abs=0.01)
    assert mock.stats.arrived == 1


async def test_failures_are_retried_as_often_as_the_given_client_would_have(
    openai: Any, bare: Any, mock: MockServer
) -> None:
    client = rate_limited(bare.with_options(max_retries=3), table=table())
    mock.fault("500")
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**HELLO)
    assert mock.stats.arrived == 4


async def test_an_outage_is_an_exception_for_each_and_no_end_of_waiting(
    openai: Any, bare: Any, mock: MockServer
) -> None:
    client = rate_limited(bare.with_options(max_retries=1), table=table())
    mock.fault("500")
    outcomes = await asyncio.gather(
        *(client.chat.completions.create(**HELLO) for _ in range(60)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {openai.InternalServerError}
    assert mock.stats.arrived == 120
    mock.clear_faults()
    assert (await client.chat.completions.create(**HELLO)).choices


async def test_a_setting_comes_before_the_given_clients_retries(openai: Any, bare: Any, mock: MockServer) -> None:
    client = rate_limited(bare, table=table(), retry_attempts=1)
    mock.fault("500")
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**HELLO)
    assert mock.stats.arrived == 1


async def test_each_retry_of_the_sdk_is_one_more_paid_turn(openai: Any, bare: Any, mock: MockServer) -> None:
    client = rate_limited(bare.with_options(max_retries=0), table=table())
    mock.fault("500")
    with pytest.raises(openai.InternalServerError):
        await client.with_options(max_retries=2).chat.completions.create(**HELLO)
    assert mock.stats.arrived == 3
    assert sender_of(client).count.attempts == 3


async def test_a_failure_that_passes_is_not_seen(client: Any, mock: MockServer) -> None:
    mock.fail_next("503")
    mock.fail_next("reset")
    assert (await client.chat.completions.create(**HELLO)).choices
    assert mock.stats.arrived == 3


async def test_a_refusal_is_waited_out_and_not_seen(client: Any, mock: MockServer) -> None:
    mock.fail_next("storm", times=3)
    assert (await client.chat.completions.create(**HELLO)).choices
    assert mock.stats.arrived == 4
    assert sender_of(client).count.refused == 3


async def test_a_surprise_at_the_server_is_absorbed(openai: Any) -> None:
    # The account has a third of what its tier says.
    async with mock_of(rpm=20) as mock, openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test") as bare:
        client = rate_limited(bare, table=table(rpm=60))
        replies = await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(80)))
    assert len({reply.id for reply in replies}) == 80


async def test_out_of_credits_stops_all_that_wait_and_none_that_come_later(
    openai: Any, client: Any, mock: MockServer
) -> None:
    loop = asyncio.get_running_loop()
    await client.chat.completions.create(**HELLO)
    mock.fault("insufficient_quota")
    outcomes = await asyncio.gather(
        *(client.chat.completions.create(**HELLO) for _ in range(500)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {openai.RateLimitError}
    assert {getattr(outcome, "code", None) for outcome in outcomes} == {"insufficient_quota"}
    assert mock.stats.arrived <= 60
    assert loop.time() < 1

    arrived = mock.stats.arrived
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**HELLO)
    assert caught.value.response.headers["x-ratelimit-error"] == "JobStopped"
    assert mock.stats.arrived == arrived

    mock.clear_faults()
    await asyncio.sleep(HALT)
    assert (await client.chat.completions.create(**HELLO)).choices
    assert (lane_of(client).waiting, lane_of(client).in_flight) == (0, 0)


async def test_one_rejected_key_stops_nobody_elses_requests(openai: Any, client: Any, mock: MockServer) -> None:
    mock.revoke("sk-revoked")
    other = client.with_options(api_key="sk-revoked")
    outcomes = await asyncio.gather(
        *(one.chat.completions.create(**HELLO) for _ in range(40) for one in (client, other)), return_exceptions=True
    )
    assert {type(outcome).__name__ for outcome in outcomes[0::2]} == {"ChatCompletion"}
    assert {type(outcome) for outcome in outcomes[1::2]} == {openai.AuthenticationError}
    assert lane_of(client).in_flight == 0


async def test_a_deadline_counts_the_waiting(openai: Any, bare: Any, mock: MockServer) -> None:
    loop = asyncio.get_running_loop()
    client = rate_limited(bare, table=table(), deadline=5)
    outcomes = await asyncio.gather(
        *(client.chat.completions.create(**HELLO) for _ in range(80)), return_exceptions=True
    )
    late: list[Any] = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {(type(each), each.code) for each in late} == {(openai.RateLimitError, "deadline_passed")}
    assert (
        "no answer within the deadline of 5 s: the lane stands at <Scheduler gpt-4o-mini: " in late[0].body["message"]
    )
    assert len(late) == 80 - mock.stats.arrived
    assert loop.time() == pytest.approx(5, abs=0.01)


async def test_to_cancel_a_call_is_to_leave_the_line(client: Any, mock: MockServer) -> None:
    tasks = [asyncio.create_task(client.chat.completions.create(**HELLO)) for _ in range(80)]
    await asyncio.sleep(1.5)
    for task in tasks[-15:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(task.cancelled() for task in tasks) == 15
    assert mock.stats.arrived == 65
    assert (lane_of(client).waiting, lane_of(client).in_flight) == (0, 0)


async def test_clients_that_share_stand_in_the_same_lines(
    openai: Any, client: Any, bare: Any, mock: MockServer
) -> None:
    loop = asyncio.get_running_loop()
    async with openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-other") as second:
        urgent = rate_limited(second, share=client, priority=-1)
        assert limiter_of(urgent) is limiter_of(client)
        slow = [asyncio.create_task(client.chat.completions.create(**HELLO)) for _ in range(80)]
        await asyncio.sleep(1.5)
        began = loop.time()
        await urgent.chat.completions.create(**HELLO)
        assert loop.time() - began < 1.1
        await asyncio.gather(*slow)
    assert mock.stats.refused.total() == 0


async def test_another_service_has_limits_of_its_own(openai: Any, client: Any, mock: MockServer) -> None:
    loop = asyncio.get_running_loop()
    async with mock_of() as second:
        other = client.with_options(base_url=second.base_url)
        await asyncio.gather(*(one.chat.completions.create(**HELLO) for _ in range(59) for one in (client, other)))
        assert loop.time() < 10  # together they would take a minute
        assert (mock.stats.arrived, second.stats.arrived) == (59, 59)


@pytest.mark.parametrize(
    ("request_", "status", "code", "error", "message"),
    [
        (
            {"model": "gpt-none"},
            404,
            "model_not_found",
            "UnknownModel",
            (
                'no table has limits for the model "gpt-none"; did you mean gpt-4o-mini? If not, give its '
                "limits in ratelimit.toml under [models.gpt-none.tiers.tier-1], such as rpm = 500"
            ),
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 10_000}]},
            429,
            "rate_limit_exceeded",
            "NeverFits",
            (
                "this request needs 2,502 of TPM, which allows at most 1,000 at once; lower max_tokens, split the "
                "prompt, or choose a higher tier"
            ),
        ),
    ],
)
async def test_what_no_waiting_can_cure_is_a_typed_exception_of_the_sdk(
    openai: Any, bare: Any, mock: MockServer, request_: Any, status: int, code: str, error: str, message: str
) -> None:
    client = rate_limited(bare, table=table(tpm=1000)).with_options(max_retries=2)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**{**HELLO, **request_})
    found = caught.value
    assert type(found) is {404: openai.NotFoundError, 429: openai.RateLimitError}[status]
    assert (found.status_code, found.code, found.body["message"]) == (status, code, message)
    assert found.response.headers["x-ratelimit-error"] == error
    assert mock.stats.arrived == 0


async def test_a_model_that_the_tier_cannot_use_is_not_found(openai: Any, bare: Any, mock: MockServer) -> None:
    client = rate_limited(bare, table=table(), tier="tier-2")
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**HELLO)
    assert caught.value.response.headers["x-ratelimit-error"] == "ModelNotInTier"
    assert (await client.moderations.create(model="omni-moderation", input="Hello")).results
    assert mock.stats.arrived == 1


@pytest.mark.parametrize(
    ("fault", "kind", "arrived"),
    [
        ("invalid_key", "AuthenticationError", 1),
        ("500", "InternalServerError", 3),
        ("overloaded", "InternalServerError", 3),
        ("credit_balance_exhausted", "RateLimitError", 1),
        ("reset", "APIConnectionError", 3),
    ],
)
async def test_failures_arrive_as_they_always_did(
    openai: Any, client: Any, mock: MockServer, fault: str, kind: str, arrived: int
) -> None:
    mock.fault(fault)
    with pytest.raises(getattr(openai, kind)) as caught:
        await client.chat.completions.create(**HELLO)
    assert type(caught.value).__name__ == kind
    assert mock.stats.arrived == arrived
    assert lane_of(client).in_flight == 0


async def test_a_request_the_service_finds_wrong_is_asked_once(openai: Any, client: Any, mock: MockServer) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODEL, messages=[])
    assert caught.value.request_id
    assert mock.stats.arrived == 1
