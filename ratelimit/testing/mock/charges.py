"""What the mock takes from the tokens limit when it admits a request.

The service has changed this and documents something else again, so it is a switch:

- `chat_2025`: what recorded replies show since April 2025. Text in bytes over four, one a message, one a choice,
  765 an image; tools, schemas and `max_tokens` are free. Responses: the exact input plus 19, plus 217 with functions.
- `chat_2024`: until then, the sum of the estimate and `max_tokens` (16 where none is given) for each choice.
- `documented`: the guide's sentence, the maximum of `max_tokens` and the estimate from the number of characters.
- `exact`: the input tokens and the whole output cap.
"""

from __future__ import annotations

from typing import Literal, get_args

from ratelimit.testing.mock.asks import Ask

Profile = Literal["chat_2025", "chat_2024", "documented", "exact"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

_IMAGE = 765
_DEFAULT_CAP = 16


def charge(ask: Ask, endpoint: str, profile: Profile) -> int:
    """The tokens taken for a request to an endpoint; never below one."""
    estimate = -(-ask.text_bytes // 4)
    if endpoint == "embeddings":
        return max(estimate, 1)
    images = _IMAGE * ask.images
    if profile == "documented":
        return max(ask.cap or 0, -(-ask.text_chars // 4) + images, 1)
    if profile == "exact":
        return max(ask.prompt_tokens + images + ask.choices * (ask.cap or 0), 1)
    if endpoint == "responses":
        return ask.prompt_tokens + images + (217 if ask.function_tools else 19)
    if profile == "chat_2024":
        reserved = ask.choices * (_DEFAULT_CAP if ask.cap is None else ask.cap)
        return max(estimate + ask.messages + images + reserved, 1)
    if endpoint == "chat":
        return estimate + ask.messages + ask.choices + images
    return max(estimate, 1)
