"""Files and batches: the whole life, every way it fails, the queue limit, and speed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from mock_http import CHAT_SHAPE, MODELS, Json, fits, post

from ratelimit.testing.mock import Limits, MockServer

URL = "/v1/chat/completions"
FILE_SHAPE = {
    "id": str,
    "object": "file",
    "bytes": int,
    "created_at": int,
    "filename": str,
    "purpose": str,
    "status": "processed",
    "expires_at": (int, None),
    "status_details": None,
}
STAGES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
BATCH_SHAPE = {
    "id": str,
    "object": "batch",
    "endpoint": str,
    "model": (str, None),
    "errors": (dict, None),
    "input_file_id": str,
    "completion_window": "24h",
    "status": ("validating", *STAGES),
    "output_file_id": (str, None),
    "error_file_id": (str, None),
    "created_at": int,
    "expires_at": int,
    **{f"{stage}_at": (int, None) for stage in STAGES},
    "request_counts": {"total": int, "completed": int, "failed": int},
    "usage": {
        "input_tokens": int,
        "input_tokens_details": {"cached_tokens": int},
        "output_tokens": int,
        "output_tokens_details": {"reasoning_tokens": int},
        "total_tokens": int,
    },
    "metadata": (dict, None),
}


def row(name: str, *, url: str = URL, **body: Any) -> Json:
    given = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": given}


async def upload(
    http: aiohttp.ClientSession,
    mock: MockServer,
    content: bytes | list[Json],
    name: str = "in.jsonl",
    purpose: str = "batch",
) -> tuple[int, Json]:
    if isinstance(content, list):
        content = b"".join(json.dumps(each).encode() + b"\n" for each in content)
    form = aiohttp.FormData()
    form.add_field("purpose", purpose)
    form.add_field("file", content, filename=name)
    async with http.post(mock.base_url + "/files", data=form) as reply:
        return reply.status, await reply.json()


async def get(http: aiohttp.ClientSession, mock: MockServer, path: str) -> tuple[int, Json]:
    async with http.get(mock.base_url + path) as reply:
        return reply.status, await reply.json()


async def lines(http: aiohttp.ClientSession, mock: MockServer, name: str) -> list[Json]:
    async with http.get(f"{mock.base_url}/files/{name}/content") as reply:
        assert reply.status == 200
        return [json.loads(line) for line in (await reply.text()).splitlines()]


async def begin(http: aiohttp.ClientSession, mock: MockServer, rows: bytes | list[Json], url: str = URL) -> Json:
    _, file = await upload(http, mock, rows)
    asked = {"input_file_id": file["id"], "endpoint": url, "completion_window": "24h"}
    status, batch = await post(http, mock, "/batches", asked)
    assert status == 200
    fits(batch, BATCH_SHAPE)
    assert batch["status"] == "validating"
    return batch


async def ended(http: aiohttp.ClientSession, mock: MockServer, batch: Json) -> tuple[Json, list[str]]:
    """The batch at its end, and the states it was seen in on the way."""
    seen: list[str] = []
    while True:
        _, batch = await get(http, mock, f"/batches/{batch['id']}")
        fits(batch, BATCH_SHAPE)
        if batch["status"] not in seen:
            seen.append(batch["status"])
        if batch["status"] in ("completed", "failed", "expired", "cancelled"):
            return batch, seen
        await asyncio.sleep(0.1)


async def test_files_are_kept_listed_read_and_deleted(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, epoch=1_700_000_000) as mock:
        status, file = await upload(http, mock, b"hello\n", purpose="user_data", name="a.txt")
        assert status == 200
        fits(file, FILE_SHAPE)
        assert (file["bytes"], file["filename"], file["created_at"]) == (6, "a.txt", 1_700_000_000)
        _, other = await upload(http, mock, b"")
        assert other["expires_at"] == other["created_at"] + 30 * 86_400
        _, listed = await get(http, mock, "/files")
        assert [each["id"] for each in listed["data"]] == [other["id"], file["id"]]
        _, listed = await get(http, mock, "/files?purpose=user_data")
        assert listed["data"] == [file]
        async with http.get(f"{mock.base_url}/files/{file['id']}/content") as reply:
            assert await reply.read() == b"hello\n"
        async with http.delete(f"{mock.base_url}/files/{file['id']}") as reply:
            assert await reply.json() == {"id": file["id"], "object": "file", "deleted": True}
        status, body = await get(http, mock, f"/files/{file['id']}")
        assert (status, body["error"]["message"]) == (404, f"No such File object: {file['id']}")
        assert (await get(http, mock, "/files"))[1]["data"] == [other]


@pytest.mark.parametrize(
    ("name", "purpose", "message"),
    [
        ("in.txt", "batch", "Invalid file format for Batch API. Must be .jsonl"),
        (
            "in.jsonl",
            "fun",
            "Invalid value for purpose. Expected one of assistants, batch, evals, fine-tune, user_data, vision.",
        ),
    ],
)
async def test_an_upload_that_cannot_be_is_refused(
    http: aiohttp.ClientSession, name: str, purpose: str, message: str
) -> None:
    async with MockServer(models=MODELS) as mock:
        status, body = await upload(http, mock, b"{}\n", name=name, purpose=purpose)
        assert (status, body["error"]["message"]) == (400, message)
        status, body = await post(http, mock, "/files", {})
        assert (status, body["error"]["message"]) == (
            400,
            "Expected a multipart/form-data body with the parts 'purpose' and 'file'.",
        )
        form = aiohttp.FormData({"purpose": "batch"}, default_to_multipart=True)
        async with http.post(mock.base_url + "/files", data=form) as reply:
            assert (await reply.json())["error"]["message"] == "'file' is a required property"


async def test_a_batch_lives_from_validating_to_completed(http: aiohttp.ClientSession) -> None:
    rows = [row(f"r{n}") for n in range(10)]
    rows[3]["body"]["messages"] = "wrong"
    async with MockServer(models=MODELS, batch_speed=10, epoch=1_700_000_000, seed=3) as mock:
        batch, seen = await ended(http, mock, await begin(http, mock, rows))
        assert seen == ["validating", "in_progress", "finalizing", "completed"]
        assert batch["request_counts"] == {"total": 10, "completed": 9, "failed": 1}
        assert batch["in_progress_at"] - batch["created_at"] in (0, 1)
        assert batch["expires_at"] == batch["created_at"] + 86_400
        assert batch["completed_at"] - batch["created_at"] == 2
        output = await lines(http, mock, batch["output_file_id"])
        errors = await lines(http, mock, batch["error_file_id"])
        _, file = await get(http, mock, f"/files/{batch['output_file_id']}")
    assert file["purpose"] == "batch_output"
    assert [each["custom_id"] for each in output] == [f"r{n}" for n in range(10) if n != 3]
    fits(output[0], {"id": str, "custom_id": "r0", "response": dict, "error": None})
    fits(output[0]["response"], {"status_code": 200, "request_id": str, "body": CHAT_SHAPE})
    assert [each["custom_id"] for each in errors] == ["r3"]
    assert errors[0]["response"]["status_code"] == 400
    assert errors[0]["response"]["body"]["error"]["code"] == "invalid_type"
    assert batch["usage"]["output_tokens"] == sum(
        each["response"]["body"]["usage"]["completion_tokens"] for each in output
    )


async def test_a_batch_whose_rows_all_fail_completes_without_an_output_file(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        batch, _ = await ended(http, mock, await begin(http, mock, [row("a", messages=[])]))
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 1, "completed": 0, "failed": 1}


JSON_LINE = "This line is not parseable as valid JSON."


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"", [("empty_file", None)]),
        (b"\n\n", [("empty_file", None)]),
        ([row("a"), row("a")], [("duplicate_custom_id", 2)]),
        ([row("a", url="/v1/responses")], [("url_mismatch", 1)]),
        ([row("a"), row("b", model="text-embedding-3-small")], [("model_mismatch", 2)]),
        ([row("a", model="nope")], [("model_not_found", 1)]),
        ([{**row("a"), "method": "GET"}], [("invalid_method", 1)]),
        ([{"custom_id": "a"}], [("missing_required_parameter", 1)]),
        (b'{"custom_id"\nnonsense\n\xff\n{"body":' + b"[" * 10_000, [("invalid_json_line", n) for n in (1, 2, 3, 4)]),
    ],
)
async def test_a_batch_that_is_wrong_fails_with_a_code_and_a_line(
    http: aiohttp.ClientSession, content: bytes | list[Json], errors: list[tuple[str, int | None]]
) -> None:
    async with MockServer(models=MODELS) as mock:
        batch, seen = await ended(http, mock, await begin(http, mock, content))
    assert seen == ["validating", "failed"]
    assert [(each["code"], each["line"]) for each in batch["errors"]["data"]] == errors
    assert batch["errors"]["object"] == "list"
    if errors[0][0] == "invalid_json_line":
        assert {each["message"] for each in batch["errors"]["data"]} == {JSON_LINE}


async def test_the_queue_limit_fails_a_batch_later_and_is_free_again_with_a_lag(http: aiohttp.ClientSession) -> None:
    """Each row is 7 prompt tokens; 2,000 fit."""
    models = {"gpt-4o-mini": Limits(batch_queue=2000)}
    async with MockServer(models=models, batch_speed=100, batch_release_lag=60) as mock:
        first = await begin(http, mock, [row(f"a{n}") for n in range(200)])
        second, seen = await ended(http, mock, await begin(http, mock, [row(f"b{n}") for n in range(100)]))
        assert seen == ["validating", "failed"]
        assert second["errors"]["data"] == [
            {
                "code": "token_limit_exceeded",
                "message": "Enqueued token limit reached for gpt-4o-mini in organization org-mock. Limit: 2,000 "
                "enqueued tokens. Please try again once some in_progress batches have been completed.",
                "param": None,
                "line": None,
            }
        ]
        await ended(http, mock, first)
        _, seen = await ended(http, mock, await begin(http, mock, [row(f"b{n}") for n in range(100)]))
        assert seen[-1] == "failed"
        await asyncio.sleep(60)
        _, seen = await ended(http, mock, await begin(http, mock, [row(f"b{n}") for n in range(100)]))
        assert seen[-1] == "completed"


async def test_a_batch_that_takes_longer_than_a_day_expires_with_what_is_done(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, batch_speed=1 / 43_000) as mock:
        batch = await begin(http, mock, [row(f"r{n}") for n in range(4)])
        await asyncio.sleep(90_000)
        batch, _ = await ended(http, mock, batch)
        output = await lines(http, mock, batch["output_file_id"])
        errors = await lines(http, mock, batch["error_file_id"])
    assert batch["status"] == "expired"
    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert [each["custom_id"] for each in output] == ["r0", "r1"]
    assert [each["custom_id"] for each in errors] == ["r2", "r3"]
    assert (errors[0]["response"], errors[0]["error"]) == (
        None,
        {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        },
    )


async def test_a_batch_is_cancelled_with_what_is_done(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, batch_speed=0.1) as mock:
        batch = await begin(http, mock, [row(f"r{n}") for n in range(5)])
        await asyncio.sleep(22)
        status, cancelling = await post(http, mock, f"/batches/{batch['id']}/cancel", {})
        assert (status, cancelling["status"]) == (200, "cancelling")
        batch, seen = await ended(http, mock, batch)
        assert seen == ["cancelling", "cancelled"]
        assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 0}
        assert batch["cancelled_at"] - batch["cancelling_at"] <= 1
        status, body = await post(http, mock, f"/batches/{batch['id']}/cancel", {})
        assert (status, body["error"]["message"]) == (409, "Cannot cancel a batch with status 'cancelled'.")


async def test_batches_are_listed_a_page_at_a_time(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        names = [(await begin(http, mock, [row("a")]))["id"] for _ in range(3)][::-1]
        _, page = await get(http, mock, "/batches?limit=2")
        assert [each["id"] for each in page["data"]] == names[:2]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (names[0], names[1], True)
        _, page = await get(http, mock, f"/batches?after={names[1]}")
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (names[2:], False)
        assert (await get(http, mock, "/batches/batch_x"))[0] == 404


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion_window": "1h"}, "Invalid value: '1h'. Supported values are: '24h'."),
        (
            {"endpoint": "/v1/fun"},
            (
                "Invalid value: '/v1/fun'. Supported values are: '/v1/chat/completions', '/v1/completions', "
                "'/v1/responses', '/v1/embeddings', '/v1/moderations'."
            ),
        ),
        ({"input_file_id": 5}, "Invalid request: Expected `str`, got `int` - at `$.input_file_id`"),
        ({"input_file_id": "file-x"}, "No such File object: file-x"),
    ],
)
async def test_a_batch_that_cannot_be_created_is_refused(
    http: aiohttp.ClientSession, change: Json, message: str
) -> None:
    async with MockServer(models=MODELS) as mock:
        _, file = await upload(http, mock, [row("a")])
        asked = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h", **change}
        status, body = await post(http, mock, "/batches", asked)
    assert status in (400, 404)
    assert body["error"]["message"] == message


async def test_two_thousand_batches_an_hour_may_be_created(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        _, file = await upload(http, mock, b"")
        asked = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
        for _ in range(2000):
            mock._batches._count_creation(mock.service.accounts.of({"Authorization": "Bearer x"}))
        status, body = await post(http, mock, "/batches", asked)
        assert (status, body["error"]["message"]) == (
            429,
            (
                "Rate limit reached for batch creation in organization org-mock: Limit 2000 per hour. Please try again "
                "later."
            ),
        )
        await asyncio.sleep(3600)
        assert (await post(http, mock, "/batches", asked))[0] == 200
