"""What a request will be charged, and whether it can pass at all.

The *charge* is what the server takes from tokens per minute when it admits a request. It is not what it bills, it is
not documented truthfully, and it has changed; so it is one of several formulas, and which of them a server uses is
learnt from its replies. `docs/charges.md` has the formulas and where each comes from.

Reserving and refusing want different formulas. To reserve too much costs a moment, so a lane that knows nothing starts
with a careful formula. To refuse wrongly loses a request, so `check` refuses by the formula the server was seen to use,
or, without one, by the least that any was.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from ratelimit.errors import InputTooLong, NeverFits, OutputTooLong
from ratelimit.limits import billed, tokens
from ratelimit.limits.billed import ModelFacts, billed_input
from ratelimit.limits.bucket import Limit
from ratelimit.limits.content import Size, endpoint_of, measure, utf8_length

__all__ = [
    "FORMULAS",
    "Formula",
    "ModelFacts",
    "Size",
    "billed_input",
    "candidates",
    "charge",
    "check",
    "endpoint_of",
    "measure",
]

Formula = Literal["chat_2025", "chat_2024", "documented", "exact_plus_cap", "exact"]
FORMULAS: Final[tuple[Formula, ...]] = get_args(Formula)

_BY_TOKENS: Final[frozenset[Formula]] = frozenset(("exact", "exact_plus_cap"))
_IMAGE = 765  # whatever the model and the detail; in recorded replies from 2024 to 2026
_UNSTATED_CAP = 16  # the documented default of max_tokens for completions, reserved for chat too until March 2025
# Above the input tokens of the Responses API, in recorded replies: without and with functions, and the most ever seen
# for models that reason, whose charges (0, 81, 216, 612) follow no rule anybody knows.
_HOSTED, _FUNCTIONS, _REASONING = 19, 217, 612


def charge(size: Size, formula: Formula, model: ModelFacts | None = None) -> int:
    """Tokens the server takes from TPM for this request, if it counts by `formula`.

    Loads the tokenizer for `exact` and `exact_plus_cap`, and for every formula on the Responses API.
    """
    if size.endpoint == "responses":
        return _responses(size, formula, model)
    match formula:
        case "chat_2025":
            return _estimate(size)
        case "chat_2024":
            # The answers take the place of the one token each that the later formula has for them.
            return _estimate(size) - _answers(size) + _reserve(size)
        case "documented":
            return max(_estimate(size), _stated(size))
        case "exact":
            return _exact(size, model)
        case "exact_plus_cap":
            return max(_estimate(size), _exact(size, model)) + _reserve(size)


def candidates(size: Size, model: ModelFacts | None = None, *, exact: bool = False) -> tuple[tuple[Formula, int], ...]:
    """What each formula comes to, ascending; equal ones in the order of `FORMULAS`.

    Those that need a token count are left out unless `exact`; on the Responses API all need it, and share it.
    """
    wanted = (f for f in FORMULAS if exact or size.endpoint == "responses" or f not in _BY_TOKENS)
    return tuple(sorted(((f, charge(size, f, model)) for f in wanted), key=lambda pair: pair[1]))


def check(size: Size, model: ModelFacts | None, tpm: Limit | None, formula: Formula | None = None) -> None:
    """Raise for a request that can never pass, whoever waits; the model's bounds first, for no tier moves them.

    `InputTooLong` and `OutputTooLong` go by the model, `NeverFits` by the charge against the whole of `tpm`.
    """
    if model is not None:
        _check_window(size, model)
        if size.cap and model.max_output is not None and size.cap > model.max_output:
            raise OutputTooLong(model.name, size.cap, model.max_output)
    if tpm is not None:
        amount = charge(size, formula, model) if formula else _least(size, model, tpm.amount)
        if amount > tpm.amount:
            raise NeverFits(tpm.name, amount, tpm.amount)


def _least(size: Size, model: ModelFacts | None, bound: float) -> int:
    """The least that any server was seen to take, or, where that is cheaper, a number between it and `bound`."""
    if size.endpoint != "responses":
        return _estimate(size)
    most = size.utf8_bytes + billed.framing(size)
    encoding = tokens.encoding_of(billed.name_of(size, model))
    return most if most <= bound else billed.content_tokens(size, encoding) if encoding else 0


def _estimate(size: Size) -> int:
    """A quarter of the bytes, rounded up, and what each message, answer and image adds."""
    total = -(-size.utf8_bytes // 4) + size.given + _IMAGE * size.images
    return total + size.messages + size.choices if size.endpoint == "chat" else total


def _answers(size: Size) -> int:
    return size.choices if size.endpoint == "chat" else 0


def _stated(size: Size) -> int:
    """Tokens of output the request says it may take: of all its answers, and by default what the docs say it is."""
    return size.choices * (size.cap or (_UNSTATED_CAP if size.endpoint == "completions" else 0))


def _reserve(size: Size) -> int:
    """Tokens of output set aside by those who set some aside, also for a request that states no cap."""
    return size.choices * (size.cap or (_UNSTATED_CAP if size.endpoint in {"chat", "completions"} else 0))


def _exact(size: Size, model: ModelFacts | None) -> int:
    return billed.text_tokens(size, model) + _IMAGE * size.images


def _responses(size: Size, formula: Formula, model: ModelFacts | None) -> int:
    """The Responses API tokenizes before it admits; only what it adds is open, and only for models that reason.

    For those, and for models nobody knows, the formulas span what was seen, so that the right one can be learnt.
    """
    count = billed_input(size, model)
    least = usual = most = _FUNCTIONS if size.function_tools else _HOSTED
    if model is None or model.reasoning:
        least, usual, most = 0, _FUNCTIONS, _REASONING
    match formula:
        case "exact":
            return count + least
        case "chat_2025" | "chat_2024":
            return count + usual
        case "documented":
            return max(count + most, size.cap or 0)
        case "exact_plus_cap":
            return count + most + (size.cap or 0)


def _check_window(size: Size, model: ModelFacts) -> None:
    """Raise where the text alone is too long: images, tools and names can only add to it.

    No text has more tokens than bytes, so one whose bytes fit is not tokenized. One whose tokenizer nobody here knows,
    or that the server may cut to fit, is left to the server.
    """
    window, encoding = model.context_window, tokens.encoding_of(model.name)
    if window is None or encoding is None or size.body.get("truncation") == "auto":
        return
    if size.endpoint in {"chat", "responses"}:
        # The chat API counts the output asked for, too; the Responses API stops writing when the window is full.
        cap = size.cap or 0 if size.endpoint == "chat" else 0
        if size.utf8_bytes + billed.framing(size) + cap > window:
            count = billed.content_tokens(size, encoding)
            if count + cap > window:
                raise InputTooLong(model.name, count, window, cap)
        return
    cap = size.cap or 0 if size.endpoint == "completions" else 0
    for text in size.texts:  # each has a window of its own
        if utf8_length(text) + cap > window and (count := tokens.count(text, encoding)) + cap > window:
            raise InputTooLong(model.name, count, window, cap)
