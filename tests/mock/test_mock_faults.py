"""What goes wrong on request: by rate, number, time and demand; answers, connections, bodies, headers, streams."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from mock_http import CHAT, HI, MODELS, post, session

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import Limits, MockServer
from ratelimit.testing.mock.faults import KINDS, PROBLEMS


async def statuses(http: aiohttp.ClientSession, mock: MockServer, times: int, path: str = CHAT) -> list[int]:
    body = HI if path == CHAT else {"model": "gpt-4o-mini", "input": "hi"}
    return [(await post(http, mock, path, body))[0] for _ in range(times)]


WORDS: list[tuple[str, int, str, str | None, str]] = [
    ("500", 500, "server_error", None, "The server had an error while processing your request. Sorry about that!"),
    ("502", 502, "server_error", None, "Bad gateway."),
    ("503", 503, "server_error", None, "The engine is currently overloaded, please try again later"),
    (
        "overloaded",
        503,
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
    (
        "slow_down",
        429,
        "rate_limit_error",
        "slow_down",
        "Your request rate has increased too quickly. Please slow down.",
    ),
    ("flex", 429, "requests", "resource_unavailable", "Resource Unavailable"),
    (
        "storm",
        429,
        "requests",
        "rate_limit_exceeded",
        (
            "Rate limit reached for gpt-4o-mini in organization org-mock on requests per min (RPM): Limit 10000, "
            "Used 10000, Requested 1. Please try again in 6ms. Visit "
            "https://platform.openai.com/account/rate-limits to learn more."
        ),
    ),
    (
        "invalid_key",
        401,
        "invalid_request_error",
        "invalid_api_key",
        (
            "Incorrect API key provided: sk-rev***ult. You can find your API key at "
            "https://platform.openai.com/account/api-keys."
        ),
    ),
    (
        "insufficient_quota",
        429,
        "insufficient_quota",
        "insufficient_quota",
        (
            "You exceeded your current quota, please check your plan and billing details. For more information on this "
            "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
        ),
    ),
    (
        "credit_balance_exhausted",
        429,
        "insufficient_quota",
        "credit_balance_exhausted",
        "You have no credits remaining.",
    ),
    (
        "organization_spend_limit_exceeded",
        429,
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "Your organization has reached its spend limit.",
    ),
    (
        "project_spend_limit_exceeded",
        429,
        "insufficient_quota",
        "project_spend_limit_exceeded",
        "Your project has reached its spend limit.",
    ),
    (
        "organization_usage_limit_exceeded",
        429,
        "insufficient_quota",
        "organization_usage_limit_exceeded",
        "Your organization has reached its usage limit.",
    ),
]


def test_the_words_of_every_problem_are_checked() -> None:
    assert {row[0] for row in WORDS} == set(PROBLEMS)


@pytest.mark.parametrize(("kind", "status", "kind_said", "code", "message"), WORDS)
async def test_a_problem_is_said_in_the_words_of_the_service_and_charged_only_if_it_came_after_admission(
    http: aiohttp.ClientSession, kind: str, status: int, kind_said: str, code: str | None, message: str
) -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next(kind)
        found, body = await post(http, mock, CHAT, HI)
        assert (found, body["error"]) == (
            status,
            {"message": message, "type": kind_said, "param": None, "code": code},
        )
        assert mock.stats.admitted == (1 if status >= 500 else 0)
        assert mock.stats.faults == {kind: 1}
        assert await statuses(http, mock, 1) == [200]


@pytest.mark.parametrize(
    ("given", "said"),
    [("121", "121"), ("soon", "soon"), ("date:30", "Tue, 14 Nov 2023 22:13:50 GMT")],
)
@pytest.mark.parametrize("kind", ["overloaded", "storm", "slow_down"])
async def test_retry_after_is_written_as_given_or_as_a_date(
    http: aiohttp.ClientSession, kind: str, given: str, said: str
) -> None:
    async with MockServer(models=MODELS, epoch=1_700_000_000, faults=[f"{kind}:retry_after={given}"]) as mock:
        reply = await http.post(mock.base_url + CHAT, json=HI)
        assert reply.headers.getall("retry-after") == [said]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("500:at=2+4", [200, 500, 200, 500, 200, 200]),
        ("500:every=3", [200, 200, 500, 200, 200, 500]),
        ("insufficient_quota:from=4", [200, 200, 200, 429, 429, 429]),
        ("invalid_key:from=2,to=3", [200, 401, 401, 200, 200, 200]),
        ("500:times=2", [500, 500, 200, 200, 200, 200]),
        ("500:rate=0", [200] * 6),
        ("500:path=/responses", [200] * 6),
    ],
)
async def test_selectors_say_which_requests_are_struck(
    http: aiohttp.ClientSession, spec: str, expected: list[int]
) -> None:
    async with MockServer(models=MODELS, faults=[spec]) as mock:
        assert await statuses(http, mock, 6) == expected


async def test_a_rate_strikes_its_share_the_same_for_the_same_seed(http: aiohttp.ClientSession) -> None:
    found = []
    for seed in (1, 1, 2):
        async with MockServer(models=MODELS, faults=["500:rate=0.3"], seed=seed) as mock:
            found.append(await statuses(http, mock, 100))
    assert found[0] == found[1] != found[2]
    assert found[0].count(500) == 27


async def test_a_window_of_time_strikes_what_comes_in_it(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, faults=["storm:between=10s-20s"]) as mock:
        found = []
        for _ in range(6):
            found += await statuses(http, mock, 1)
            await asyncio.sleep(5)
    assert found == [200, 200, 429, 429, 200, 200]


async def test_limits_are_lowered_for_a_while_and_then_as_before(http: aiohttp.ClientSession) -> None:
    async with MockServer(models={"gpt-4o-mini": Limits(rpm=600)}, faults=["limits:between=10s-20s,rpm=60"]) as mock:
        shown = []
        for _ in range(3):
            async with http.post(mock.base_url + CHAT, json=HI) as reply:
                shown.append(reply.headers["x-ratelimit-limit-requests"])
            await asyncio.sleep(10)
        assert shown == ["600", "60", "600"]
        mock.set_limits(rpm=1)
        assert await statuses(http, mock, 2) == [200, 429]
        mock.clear_faults()
        assert mock.service.counters.limits("org-mock", mock.service.catalogue.families()[0]).rpm == 600


async def test_connections_are_refused_and_open_ones_reset_for_a_while(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, faults=["refuse:between=10s-20s"]) as mock:
        assert await statuses(http, mock, 1) == [200]
        await asyncio.sleep(11)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError):
                await statuses(http, mock, 1)
        await asyncio.sleep(10)
        assert await statuses(http, mock, 1) == [200]
        mock.fail_next("refuse", seconds=3)
        with pytest.raises(aiohttp.ClientConnectionError):
            await statuses(http, mock, 1)
        with pytest.raises(aiohttp.ClientConnectorError):
            async with session() as other:
                await statuses(other, mock, 1)
        await asyncio.sleep(4)
        assert await statuses(http, mock, 1) == [200]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("melt", f"--fault cannot be 'melt': its kind is one of {', '.join(KINDS)}"),
        ("500:often", "--fault cannot be '500:often': 'often' is not option=value"),
        (
            "500:bytes=3",
            (
                "--fault cannot be '500:bytes=3': 500 has no option 'bytes'; it has rate, at, every, from, to, "
                "between, times, path, retry_after"
            ),
        ),
        ("500:rate=2", "--fault cannot be '500:rate=2': rate=2 cannot be read; write a share from 0 to 1"),
        ("500:at=0", "--fault cannot be '500:at=0': at=0 cannot be read; write request numbers joined by +"),
        (
            "500:between=5",
            "--fault cannot be '500:between=5': between=5 cannot be read; write two times in seconds, as in 10s-20s",
        ),
        ("500:times=x", "--fault cannot be '500:times=x': times=x cannot be read; write a whole number"),
        (
            "limits:from=3",
            (
                "--fault cannot be 'limits:from=3': say which limits change and to what, "
                "as in limits:between=30s-60s,rpm=100"
            ),
        ),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_the_way_to_write_it(spec: str, message: str) -> None:
    with pytest.raises(BadMockOption) as raised:
        MockServer(models=MODELS, faults=[spec])
    assert str(raised.value) == message


def test_limits_are_not_a_fault_of_one_request() -> None:
    with pytest.raises(BadMockOption) as raised:
        MockServer(models=MODELS).fail_next("limits", rpm=3)
    assert str(raised.value) == ("fail_next cannot be 'limits': change limits with set_limits() or a standing fault")
