"""The endpoints that a model answers: how each is read, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ratelimit.testing.mock import asks, chat, embeddings, refusals, responses
from ratelimit.testing.mock.answers import Answer, Stamp, Writer
from ratelimit.testing.mock.asks import Ask
from ratelimit.testing.mock.catalogue import Family
from ratelimit.testing.mock.refusals import Problem, Refused


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path that takes a model: its reader, its writers and what it says of a model it does not know."""

    name: str
    path: str
    read: Callable[[bytes], Ask]
    body: Callable[[Ask, Stamp, list[Answer]], bytes]
    events: Callable[[Ask, Stamp, list[Answer]], Iterator[bytes]] | None = None
    failed: Callable[[Ask, Stamp, dict[str, str | None]], Iterator[bytes]] = chat.failed_events
    unknown: Callable[[str], Problem] = refusals.model_not_found
    limited: bool = True
    writes: bool = True

    def check(self, ask: Ask, family: Family) -> None:
        """Raises Refused for what the model can never do."""
        prompt, cap, window = ask.prompt_tokens, ask.cap, family.context_window
        if cap is not None and cap > family.max_output:
            raise Refused(refusals.cap_too_large(ask.cap_name, cap, family.max_output))
        if prompt + (cap or 0) > window and self.writes:
            problem = refusals.context_exceeded(window, prompt, cap)
            raise Refused(refusals.INPUT_EXCEEDED if self.name == "responses" else problem)

    def answers(self, ask: Ask, family: Family, writer: Writer) -> list[Answer]:
        """What the model writes; nothing where the endpoint is not about writing."""
        return writer.write(ask, reasoning=family.reasoning) if self.writes else []


CHAT = Endpoint("chat", "/v1/chat/completions", asks.chat, chat.chat_body, chat.chat_events)
COMPLETIONS = Endpoint("completions", "/v1/completions", asks.completion, chat.completion_body, chat.completion_events)
RESPONSES = Endpoint(
    "responses",
    "/v1/responses",
    asks.responses,
    responses.response_body,
    responses.response_events,
    failed=responses.failed_events,
    unknown=refusals.requested_model_not_found,
)
EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings", asks.embeddings, embeddings.embeddings_body, writes=False)
MODERATIONS = Endpoint(
    "moderations", "/v1/moderations", asks.moderation, embeddings.moderations_body, limited=False, writes=False
)
ENDPOINTS = {each.path: each for each in (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MODERATIONS)}
