"""Chat completions and legacy completions as the service writes them: whole bodies and streams.

Bodies are filled into templates instead of being encoded: this is the path load tests take.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ratelimit.testing.mock.answers import Answer, Stamp
from ratelimit.testing.mock.asks import Ask

_json = msgspec.json.encode
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
DONE = b"data: [DONE]\n\n"

_CHAT = b"""{
  "id": "chatcmpl-%029d",
  "object": "chat.completion",
  "created": %d,
  "model": %b,
  "choices": [
%b
  ],
  "usage": {
    "prompt_tokens": %d,
    "completion_tokens": %d,
    "total_tokens": %d,
    "prompt_tokens_details": {
      "cached_tokens": 0,
      "audio_tokens": 0
    },
    "completion_tokens_details": {
      "reasoning_tokens": %d,
      "audio_tokens": 0,
      "accepted_prediction_tokens": 0,
      "rejected_prediction_tokens": 0
    }
  },
  "service_tier": "default",
  "system_fingerprint": "fp_0123456789"
}
"""
_CHOICE = b"""    {
      "index": %d,
      "message": {
        "role": "assistant",
        "content": %b,
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "%b"
    }"""


def chat_body(ask: Ask, stamp: Stamp, answers: list[Answer]) -> bytes:
    """The body of a chat completion."""
    prompt = ask.prompt_tokens
    if len(answers) == 1:
        answer = answers[0]
        choices = _CHOICE % (0, _json(answer.text), answer.finish.encode())
        written, thought = answer.tokens, answer.reasoning
    else:
        choices = b",\n".join(
            _CHOICE % (index, _json(answer.text), answer.finish.encode()) for index, answer in enumerate(answers)
        )
        written, thought = sum(each.tokens for each in answers), sum(each.reasoning for each in answers)
    model = _json(stamp.model)
    return _CHAT % (stamp.number, stamp.created, model, choices, prompt, written, prompt + written, thought)


def _usage(ask: Ask, answers: list[Answer]) -> dict[str, object]:
    written = sum(each.tokens for each in answers)
    return {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": ask.prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(each.reasoning for each in answers),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def pieces(text: str) -> Iterator[str]:
    """A text cut as a stream delivers it, about a token each."""
    for start in range(0, len(text), 4):
        yield text[start : start + 4]


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + _json(data) + b"\n\n"


def chat_events(ask: Ask, stamp: Stamp, answers: list[Answer]) -> Iterator[bytes]:
    """The events of a streamed chat completion, `[DONE]` last."""
    common: dict[str, object] = {
        "id": f"chatcmpl-{stamp.number:029d}",
        "object": "chat.completion.chunk",
        "created": stamp.created,
        "model": stamp.model,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }

    def chunk(index: int, delta: dict[str, object], finish: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        data: dict[str, object] = {**common, "choices": [choice]}
        if ask.include_usage:
            data["usage"] = None
        if ask.obfuscate:
            length = 1 + (stamp.number + len(str(delta.get("content", "")))) % 9
            data["obfuscation"] = (_ALPHABET[stamp.number % 50 :] + _ALPHABET)[:length]
        return _event(data)

    for index, answer in enumerate(answers):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None}, None)
        for piece in pieces(answer.text):
            yield chunk(index, {"content": piece}, None)
        yield chunk(index, {}, answer.finish)
    if ask.include_usage:
        yield _event({**common, "choices": [], "usage": _usage(ask, answers)})
    yield DONE


def completion_body(ask: Ask, stamp: Stamp, answers: list[Answer]) -> bytes:
    """The body of a legacy completion."""
    written = sum(each.tokens for each in answers)
    choices = [
        {"text": each.text, "index": index, "logprobs": None, "finish_reason": each.finish}
        for index, each in enumerate(answers)
    ]
    usage = {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": ask.prompt_tokens + written,
    }
    body = {
        "id": f"cmpl-{stamp.number:029d}",
        "object": "text_completion",
        "created": stamp.created,
        "model": stamp.model,
        "choices": choices,
        "usage": usage,
    }
    return _json(body) + b"\n"


def completion_events(_ask: Ask, stamp: Stamp, answers: list[Answer]) -> Iterator[bytes]:
    """The events of a streamed legacy completion, `[DONE]` last."""
    common = {
        "id": f"cmpl-{stamp.number:029d}",
        "object": "text_completion",
        "created": stamp.created,
        "model": stamp.model,
    }
    for index, answer in enumerate(answers):
        for piece in pieces(answer.text):
            choice = {"text": piece, "index": index, "logprobs": None, "finish_reason": None}
            yield _event({**common, "choices": [choice]})
        last = {"text": "", "index": index, "logprobs": None, "finish_reason": answer.finish}
        yield _event({**common, "choices": [last]})
    yield DONE


def failed_events(_ask: Ask, stamp: Stamp, error: dict[str, str | None]) -> Iterator[bytes]:
    """A stream that was accepted with 200 and then carries an error instead of an answer."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    yield _event(
        {
            "id": f"chatcmpl-{stamp.number:029d}",
            "object": "chat.completion.chunk",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [choice],
        }
    )
    yield _event({"error": error})
