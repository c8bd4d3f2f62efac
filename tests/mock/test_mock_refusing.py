"""What the mock refuses: the order of its checks, whose limits count, and the words."""

from __future__ import annotations

import aiohttp
import pytest
from mock_http import (
    CHAT,
    HI,
    Json,
    post,
)

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import Account, Limits, MockServer


async def test_checks_come_in_the_order_key_model_validation_limits(http: aiohttp.ClientSession) -> None:
    wrong: Json = {"model": "nope", "messages": []}
    async with MockServer(models={"m": Limits(rpm=1, tpm=10)}, keys={"sk-good": Account("org-a", "proj-a")}) as mock:
        good = {"Authorization": "Bearer sk-good"}
        status, body = await post(http, mock, CHAT, wrong)
        assert (status, body["error"]) == (
            401,
            {
                "message": "Incorrect API key provided: sk-tes***789. You can find your API key at "
                "https://platform.openai.com/account/api-keys.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            },
        )
        status, body = await post(http, mock, CHAT, wrong, **good)
        assert (status, body["error"]) == (
            404,
            {
                "message": "The model `nope` does not exist or you do not have access to it.",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_found",
            },
        )
        status, body = await post(http, mock, "/responses", {"model": "nope", "input": "x"}, **good)
        assert (status, body["error"]) == (
            400,
            {
                "message": "The requested model 'nope' does not exist.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            },
        )
        long = {"role": "user", "content": "x" * 100}
        status, body = await post(http, mock, CHAT, {"model": "m", "messages": [long]}, **good)
        assert (status, body["error"]["type"]) == (429, "tokens")
        status, body = await post(http, mock, CHAT, {"model": "m", "messages": [long], "n": 0}, **good)
        assert (status, body["error"]["code"]) == (400, "integer_below_min_value")
        mock.revoke("sk-good")
        assert (await post(http, mock, CHAT, {**HI, "model": "m"}, **good))[0] == 401


async def test_a_refusal_has_the_headers_of_the_state_it_leaves_and_says_when(http: aiohttp.ClientSession) -> None:
    async with MockServer(tier="free", models=["gpt-4o-mini"]) as mock:
        for _ in range(3):
            assert (await post(http, mock, CHAT, HI))[0] == 200
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            text = await reply.text()
            headers = {name.lower(): value for name, value in reply.headers.items()}
    assert text == (
        '{\n    "error": {\n        "message": "Rate limit reached for gpt-4o-mini in organization org-mock on '
        "requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit "
        "https://platform.openai.com/account/rate-limits to learn more. You can increase your rate limit by adding "
        'a payment method to your account at https://platform.openai.com/account/billing.",\n'
        '        "type": "requests",\n        "param": null,\n        "code": "rate_limit_exceeded"\n    }\n}\n'
    )
    assert reply.status == 429
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("20", "20000")
    assert headers["x-ratelimit-remaining-requests"] == "197"
    assert mock.stats.refused == {"rpm": 1}


async def test_a_refused_response_may_come_without_headers_as_in_2025(http: aiohttp.ClientSession) -> None:
    ask = {"model": "m", "input": "hi"}
    for shown in (True, False):
        async with MockServer(models={"m": Limits(rpm=1)}, responses_429_headers=shown) as mock:
            await post(http, mock, "/responses", ask)
            async with http.post(mock.base_url + "/responses", json=ask) as reply:
                assert reply.status == 429
                assert ("x-ratelimit-limit-requests" in reply.headers) is shown
                assert ("retry-after" in reply.headers) is shown


async def test_organizations_and_projects_have_limits_of_their_own(http: aiohttp.ClientSession) -> None:
    keys = {
        "sk-a": Account("org-a", "proj-1"),
        "sk-b": Account("org-a", "proj-2"),
        "sk-c": Account("org-c", "proj-3"),
    }
    async with MockServer(
        models={"m": Limits(rpm=4)},
        keys=keys,
        project_limits={"proj-1": Limits(rpm=1)},
        organization_limits={"org-c": Limits(rpm=2)},
    ) as mock:

        async def statuses(key: str, times: int) -> list[int]:
            header = {"Authorization": f"Bearer {key}"}
            return [(await post(http, mock, CHAT, {**HI, "model": "m"}, **header))[0] for _ in range(times)]

        assert await statuses("sk-a", 2) == [200, 429]
        assert await statuses("sk-b", 4) == [200, 200, 200, 429]
        assert await statuses("sk-c", 3) == [200, 200, 429]


async def test_the_context_window_and_the_output_cap_are_checked(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=["gpt-4o-mini"], tpm=10_000_000) as mock:
        huge = [{"role": "user", "content": "x" * 4 * 128_000}]
        _, body = await post(http, mock, CHAT, {**HI, "messages": huge})
        assert body["error"] == {
            "message": "This model's maximum context length is 128000 tokens. However, your messages resulted in "
            "128006 tokens. Please reduce the length of the messages.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
        _, body = await post(http, mock, CHAT, {**HI, "messages": huge, "max_tokens": 10})
        assert body["error"]["message"] == (
            "This model's maximum context length is 128000 tokens. However, you requested 128016 tokens (128006 in the "
            "messages, 10 in the completion). Please reduce the length of the messages or completion."
        )
        _, body = await post(http, mock, "/responses", {"model": "gpt-4o-mini", "input": "x" * 4 * 128_000})
        assert body["error"]["message"] == (
            "Your input exceeds the context window of this model. Please adjust your input and try again."
        )
        status, body = await post(http, mock, CHAT, {**HI, "max_tokens": 16_385})
        assert status == 400
        assert body["error"]["message"] == (
            "max_tokens is too large: 16385. This model supports at most 16384 completion tokens, whereas you provided "
            "16385."
        )


async def test_an_image_that_cannot_be_loaded_is_charged_and_refused_with_headers(http: aiohttp.ClientSession) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://nowhere.invalid/a.png"}}
    async with (
        MockServer(models={"m": Limits(tpm=30_000, images=250)}) as mock,
        http.post(
            mock.base_url + CHAT, json={"model": "m", "messages": [{"role": "user", "content": [image]}]}
        ) as reply,
    ):
        body = await reply.json()
    assert (reply.status, body["error"]["code"]) == (400, "invalid_image_url")
    assert body["error"]["message"] == "Error while downloading https://nowhere.invalid/a.png."
    assert reply.headers["x-ratelimit-remaining-tokens"] == str(30_000 - 767)
    assert reply.headers["x-ratelimit-remaining-input-images"] == "249"


SPREAD = "write a number, LOW-HIGH, lognormal:MEDIAN,SIGMA or exponential:MEAN, none of them negative"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"enforce": "leaky"},
            "--enforce cannot be 'leaky': choose one of bucket, sliding, fixed, quantised",
        ),
        (
            {"charge": "free"},
            "--charge cannot be 'free': choose one of chat_2025, chat_2024, documented, exact",
        ),
        (
            {"tier": "gold"},
            "--tier cannot be 'gold': choose one of free, tier-1, tier-2, tier-3, tier-4, tier-5",
        ),
        (
            {"latency": "fast"},
            f"--latency cannot be 'fast': {SPREAD}",
        ),
        (
            {"output_tokens": (9, 3)},
            f"--output-tokens cannot be '9-3': {SPREAD}",
        ),
        ({"rpm": 0}, "rpm cannot be 0: give a whole number of at least 1, or leave it out for no limit"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(given: Json, message: str) -> None:
    with pytest.raises(BadMockOption) as raised:
        MockServer(**given)
    assert str(raised.value) == message
    assert raised.value.exit_code == 2
