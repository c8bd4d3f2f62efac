"""The Responses API as the service writes it: whole bodies, and streams of typed events without `[DONE]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ratelimit.testing.mock.answers import Answer, Stamp
from ratelimit.testing.mock.asks import Ask
from ratelimit.testing.mock.chat import pieces

_json = msgspec.json.encode


def _response(ask: Ask, stamp: Stamp, status: str, output: list[Any], answer: Answer | None) -> dict[str, Any]:
    given = ask.body or {}
    usage = None
    if answer is not None:
        usage = {
            "input_tokens": ask.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer.tokens,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning},
            "total_tokens": ask.prompt_tokens + answer.tokens,
        }
    cut = status == "incomplete"
    return {
        "id": f"resp_{stamp.number:048x}",
        "object": "response",
        "created_at": stamp.created,
        "status": status,
        "background": False,
        "billing": {"payer": "developer"},
        "completed_at": stamp.created if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "max_tool_calls": None,
        "model": stamp.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **given.get("text", {})},
        "tool_choice": "auto",
        "tools": given.get("tools", []),
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": given.get("metadata", {}),
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(stamp: Stamp, status: str, content: list[Any]) -> dict[str, Any]:
    name = f"msg_{stamp.number:048x}"
    return {"id": name, "type": "message", "status": status, "role": "assistant", "content": content}


def _ended(answer: Answer) -> str:
    return "incomplete" if answer.finish == "length" else "completed"


def _whole(ask: Ask, stamp: Stamp, answer: Answer) -> dict[str, Any]:
    output: list[Any] = []
    if answer.reasoning:
        output.append({"id": f"rs_{stamp.number:048x}", "type": "reasoning", "summary": []})
    if answer.text or answer.finish == "stop":
        output.append(_item(stamp, _ended(answer), [_part(answer.text)]))
    return _response(ask, stamp, _ended(answer), output, answer)


def response_body(ask: Ask, stamp: Stamp, answers: list[Answer]) -> bytes:
    """The body of a response."""
    return _json(_whole(ask, stamp, answers[0])) + b"\n"


def _event(number: int, kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _json({"type": kind, "sequence_number": number, **data}) + b"\n\n"


def _steps(ask: Ask, stamp: Stamp, answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = _response(ask, stamp, "in_progress", [], None)
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    whole = _whole(ask, stamp, answer)
    for place, item in enumerate(whole["output"]):
        if item["type"] == "reasoning":
            yield "response.output_item.added", {"output_index": place, "item": item}
        else:
            yield from _message_steps(stamp, answer, place)
        yield "response.output_item.done", {"output_index": place, "item": item}
    yield f"response.{_ended(answer)}", {"response": whole}


def _message_steps(stamp: Stamp, answer: Answer, place: int) -> Iterator[tuple[str, dict[str, Any]]]:
    item = _item(stamp, "in_progress", [])
    yield "response.output_item.added", {"output_index": place, "item": item}
    where = {"item_id": item["id"], "output_index": place, "content_index": 0}
    yield "response.content_part.added", {**where, "part": _part("")}
    for piece in pieces(answer.text):
        yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**where, "text": answer.text, "logprobs": []}
    yield "response.content_part.done", {**where, "part": _part(answer.text)}


def response_events(ask: Ask, stamp: Stamp, answers: list[Answer]) -> Iterator[bytes]:
    """The events of a streamed response, numbered from zero; the last carries the whole response."""
    for number, (kind, data) in enumerate(_steps(ask, stamp, answers[0])):
        yield _event(number, kind, data)


def failed_events(ask: Ask, stamp: Stamp, error: dict[str, str | None]) -> Iterator[bytes]:
    """A stream that was accepted with 200 and then ends in `response.failed`."""
    error = {"code": error["code"], "message": error["message"]}
    begun = _response(ask, stamp, "in_progress", [], None)
    failed = {**_response(ask, stamp, "failed", [], None), "error": error}
    yield _event(0, "response.created", {"response": begun})
    yield _event(1, "response.in_progress", {"response": begun})
    yield _event(2, "response.failed", {"response": failed})
