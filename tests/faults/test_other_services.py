"""What services answer that are compatible nearly, and addresses that are right nearly: no row pays for either."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from jobbing import Place, batch_line
from wire_rig import CHAT, Raw, reply

from ratelimit.testing.mock import MockServer
from ratelimit.wire.judge import judge
from ratelimit.wire.lenient import for_anybody
from ratelimit.wire.messages import Reply


async def run(place: Place, raw: bytes, rows: int = 3) -> Any:
    place.write(batch_line(f"row-{n}") for n in range(rows))
    async with Raw(*[raw] * rows) as server, MockServer() as unused:
        summary = await place.run(unused, base_url=server.url, tier="tier-1")
        return summary, len(server.requests), server.url


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ('"half: \\ud83d"', "half: \N{REPLACEMENT CHARACTER}"),
        ('"\\uDE00 half"', "\N{REPLACEMENT CHARACTER} half"),
        ('"whole: \\ud83d\\ude00"', "whole: \N{GRINNING FACE}"),
        ('"odd", "logprob": NaN', "odd"),
        ('"odd", "logprob": -Infinity', "odd"),
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
async def test_an_answer_that_strict_readers_refuse_is_paid_for_once_and_kept(
    place: Place, said: str, read: str, bom: bytes
) -> None:
    body = bom + json.dumps(CHAT).replace('"hello there"', said).encode()
    summary, sent, _ = await run(place, reply(body))
    assert (summary.answered, summary.input_tokens, summary.exit_code, sent) == (3, 30, 0, 3)
    assert set(place.answers().values()) == {read}
    for line in place.output.read_bytes().splitlines():
        msgspec.json.decode(line)
    again, _, _ = await run(place, reply(body))
    assert (again.answered, again.done_before) == (0, 3)


@pytest.mark.parametrize("body", [b'{"a": "\\ud83d', b'{"a": NaN', b'{"a": 1e999, "b": NaN}', b"[" * 100_000 + b"NaN"])
def test_what_is_not_even_nearly_json_stays_as_it_is(body: bytes) -> None:
    assert for_anybody(body) == body
    assert judge(Reply(200, {}, body)).kind == "again"


NOTHING = "set base_url to what stands before /chat/completions, which usually ends in /v1, then run again"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"404 page not found", "404 page not found"),
        (404, {"detail": "Not Found"}, '{"detail": "Not Found"}'),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, "Resource not found"),
        (
            404,
            {"error": {"message": "Invalid URL (POST /chat/completions)", "type": "invalid_request_error"}},
            "Invalid URL (POST /chat/completions)",
        ),
        (405, {"detail": "Method Not Allowed"}, '{"detail": "Method Not Allowed"}'),
    ],
)
async def test_an_address_at_which_there_is_nothing_costs_no_row(
    place: Place, status: int, body: Any, said: str
) -> None:
    summary, _, url = await run(place, reply(body, status))
    assert (summary.exit_code, summary.failed, summary.left) == (3, 0, 3)
    assert summary.stopped == (
        f"there is nothing at {url}/chat/completions ({status}: {said}); its rows are untouched; {NOTHING}"
    )
    assert place.errors() == {}


async def test_a_row_whose_path_has_answered_others_fails_alone(place: Place) -> None:
    place.write(batch_line(f"row-{n}") for n in range(3))
    async with Raw(reply(CHAT), reply(b"", 404), reply(CHAT)) as server, MockServer() as unused:
        summary = await place.run(unused, base_url=server.url, tier="tier-1", concurrency=1)
    assert (summary.answered, summary.failed, summary.exit_code) == (2, 1, 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}),
        (404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}),
        (404, {"message": 'model "x" not found, try pulling it first', "type": "api_error"}),
        (400, {"message": "Invalid model name passed in model=x. Call `/v1/models`", "code": "400"}),
    ],
    ids=["Azure", "vLLM", "Ollama", "LiteLLM"],
)
async def test_a_model_that_is_not_served_costs_no_row(place: Place, status: int, error: Any) -> None:
    summary, _, _ = await run(place, reply({"error": error}, status))
    assert (summary.exit_code, summary.failed, summary.left) == (3, 0, 3)
    assert summary.stopped == (
        f'the service does not have the model "gpt-4o-mini" for this key: {error["message"]} Its rows are untouched; '
        f"name another model in them, or use a key that may use it, then run again"
    )


async def test_credits_that_are_used_up_by_another_status_stop_the_run(place: Place) -> None:
    summary, _, _ = await run(place, reply({"error": {"message": "Insufficient credits.", "code": 402}}, 402))
    assert (summary.exit_code, summary.failed) == (3, 0)
    assert summary.stopped == (
        "the account's quota is used up (402): Insufficient credits. Add credits or raise the spending limit, then run "
        "again"
    )
