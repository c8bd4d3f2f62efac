from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import BadRequest, InputTooLong, NeverFits, OutputTooLong
from ratelimit.limits import tokens
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.charge import FORMULAS, Formula, Size, candidates, charge, check, measure
from ratelimit.limits.content import Endpoint


@dataclass(frozen=True)
class Facts:
    name: str = "gpt-4o"
    context_window: int | None = None
    max_output: int | None = None
    reasoning: bool = False


MODEL = Facts()
REASONER = Facts("gpt-5-nano", reasoning=True)


def tpm(amount: float) -> Limit:
    return Limit("tokens", amount, MINUTE)


def chat(text: str = "", **fields: object) -> Size:
    return measure({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **fields})


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(encoding: str) -> None:
        pytest.fail("the tokenizer was asked for")

    monkeypatch.setattr(tokens, "load", load)


@pytest.mark.usefixtures("no_tokenizer")
@pytest.mark.parametrize(
    ("formula", "size", "expected"),
    [  # what recorded replies took from x-ratelimit-remaining-tokens
        ("chat_2025", Size("chat", utf8_bytes=93, messages=2, cap=100), 27),
        ("chat_2025", Size("chat", utf8_bytes=19, messages=1, cap=10), 7),
        ("chat_2025", Size("chat", utf8_bytes=21, messages=1, images=1), 773),
        ("chat_2024", Size("chat", utf8_bytes=21, messages=1, images=1), 788),
        ("chat_2024", Size("chat", utf8_bytes=18, messages=1, cap=50), 56),
        ("chat_2024", Size("completions", utf8_bytes=247, inputs=1, cap=256), 318),
        ("chat_2024", Size("completions", utf8_bytes=5469, inputs=1, cap=400), 1768),
        ("chat_2025", Size("completions", utf8_bytes=34, inputs=1), 9),
        ("chat_2025", Size("completions", utf8_bytes=45, inputs=1, cap=10), 12),
        ("chat_2025", Size("embeddings", utf8_bytes=94_995, inputs=22), 23_749),
        ("chat_2025", Size("embeddings", utf8_bytes=105, inputs=1), 27),
        ("chat_2025", Size("embeddings", utf8_bytes=151, inputs=3), 38),
        # and what follows from the formulas
        ("chat_2024", Size("chat", utf8_bytes=4, messages=1, choices=2), 34),
        ("chat_2024", Size("chat", utf8_bytes=4, messages=1, choices=3, cap=100), 302),
        ("chat_2025", Size("chat", utf8_bytes=4, messages=1, choices=3, cap=100), 5),
        ("chat_2025", Size("chat", utf8_bytes=0, messages=0), 1),
        ("chat_2024", Size("completions", utf8_bytes=34, inputs=1), 25),
        ("chat_2024", Size("embeddings", utf8_bytes=151, inputs=3), 38),
        ("chat_2025", Size("embeddings", utf8_bytes=3, given=10, inputs=2), 11),
        ("chat_2025", Size("moderations", utf8_bytes=9, images=1), 768),
        ("chat_2024", Size("other", utf8_bytes=9), 3),
        ("documented", Size("chat", utf8_bytes=93, messages=2), 27),
        ("documented", Size("chat", utf8_bytes=93, messages=2, cap=100), 100),
        ("documented", Size("chat", utf8_bytes=93, messages=2, cap=100, choices=2), 200),
        ("documented", Size("chat", utf8_bytes=4000, messages=1, cap=100), 1002),
        ("documented", Size("completions", utf8_bytes=4), 16),
        ("documented", Size("embeddings", utf8_bytes=4), 1),
    ],
)
def test_formulas_that_need_no_tokenizer(formula: Formula, size: Size, expected: int) -> None:
    assert charge(size, formula) == expected


def test_the_bytes_count_and_not_the_characters() -> None:
    assert charge(chat("é" * 8), "chat_2025") == 4 + 1 + 1


def test_tools_and_calls_are_not_charged_to_chat() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 400}}]
    assert charge(chat("abcd", tools=tools), "chat_2025") == charge(chat("abcd"), "chat_2025") == 3


@pytest.mark.parametrize(
    ("formula", "size", "expected"),
    [  # "tiktoken is great!" is 6 tokens and 18 bytes; a chat adds 7
        ("exact", chat("tiktoken is great!"), 13),
        ("exact", chat("tiktoken is great!", max_tokens=100), 13),
        ("exact_plus_cap", chat("tiktoken is great!"), 13 + 16),
        ("exact_plus_cap", chat("tiktoken is great!", max_tokens=100, n=2), 13 + 200),
        ("exact_plus_cap", chat("x y " * 99 + "x y", max_tokens=1), 207 + 1),
        ("exact_plus_cap", chat(" " * 400, max_tokens=1), 102 + 1),
        ("exact", measure({"input": "tiktoken is great!"}, "/v1/embeddings"), 6),
        ("exact_plus_cap", measure({"prompt": "tiktoken is great!"}, "/v1/completions"), 22),
        ("exact_plus_cap", measure({"input": "tiktoken is great!"}, "/v1/embeddings"), 6),
    ],
)
def test_formulas_that_count_tokens(formula: Formula, size: Size, expected: int) -> None:
    assert charge(size, formula, MODEL) == expected


def test_an_image_is_charged_alike_by_every_formula_for_chat() -> None:
    content = [{"type": "text", "text": "tiktoken is great!"}, {"type": "image_url", "image_url": {"url": "https://x"}}]
    size = measure({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]})
    assert charge(size, "exact") == 13 + 765


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize(
    ("model", "added"),
    [
        (MODEL, {"exact": 0, "chat_2025": 0, "chat_2024": 0, "documented": 0, "exact_plus_cap": 10}),
        (REASONER, {"exact": 0, "chat_2025": 217, "chat_2024": 217, "documented": 612, "exact_plus_cap": 622}),
        (None, {"exact": 0, "chat_2025": 217, "chat_2024": 217, "documented": 612, "exact_plus_cap": 622}),
    ],
)
def test_the_responses_api_adds_to_an_exact_count(
    function: bool, model: Facts | None, added: dict[Formula, int]
) -> None:
    body = {
        "model": "gpt-4o",
        "input": "tiktoken is great!",
        "max_output_tokens": 10,
        "tools": [{"type": "function" if function else "web_search"}],
    }
    size = measure(body, "/v1/responses")
    fixed = (217 if function else 19) if model is MODEL else 0
    assert {formula: charge(size, formula, model) for formula in FORMULAS} == {
        formula: 13 + fixed + more for formula, more in added.items()
    }


def test_a_cap_on_responses_counts_only_where_it_is_documented() -> None:
    size = measure({"model": "gpt-4o", "input": "tiktoken is great!", "max_output_tokens": 1024}, "/v1/responses")
    assert charge(size, "chat_2025", MODEL) == 32
    assert charge(size, "documented", MODEL) == 1024


@pytest.mark.usefixtures("no_tokenizer")
def test_candidates_ascend_and_cheap_ones_need_no_tokenizer() -> None:
    assert candidates(chat("x" * 93, max_tokens=100)) == (("chat_2025", 26), ("documented", 100), ("chat_2024", 125))
    assert candidates(chat("x" * 93)) == (("chat_2025", 26), ("documented", 26), ("chat_2024", 41))


def test_candidates_with_a_count() -> None:
    assert candidates(chat("tiktoken is great!", max_tokens=10), MODEL, exact=True) == (
        ("chat_2025", 7),
        ("documented", 10),
        ("exact", 13),
        ("chat_2024", 16),
        ("exact_plus_cap", 23),
    )


def test_candidates_for_the_responses_api_share_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def count(text: str, encoding: tokens.Encoding) -> int:
        counted.append(text)
        return 6

    monkeypatch.setattr(tokens, "count", count)
    size = measure({"model": "gpt-5-nano", "input": "hello"}, "/v1/responses")
    assert candidates(size, REASONER) == (
        ("exact", 13),
        ("chat_2025", 230),
        ("chat_2024", 230),
        ("documented", 625),
        ("exact_plus_cap", 625),
    )
    assert counted == ["hello"]


ENDPOINTS: st.SearchStrategy[Endpoint] = st.sampled_from(
    ("chat", "responses", "embeddings", "completions", "moderations", "other")
)


@settings(deadline=None)
@given(
    st.builds(
        Size,
        endpoint=ENDPOINTS,
        utf8_bytes=st.integers(0, 10**6),
        messages=st.integers(0, 50),
        images=st.integers(0, 3),
        choices=st.integers(1, 9),
        cap=st.none() | st.integers(1, 10**5),
        function_tools=st.booleans(),
        given=st.integers(0, 1000),
    ),
    st.sampled_from([None, MODEL, REASONER]),
)
def test_the_most_careful_formula_is_never_below_another(size: Size, model: Facts | None) -> None:
    by = dict(candidates(size, model, exact=True))
    assert by["exact_plus_cap"] == max(by.values())
    assert by["chat_2025"] <= min(by["chat_2024"], by["documented"])


WORDS_10 = "hello " * 9 + "hello"  # ten tokens, 59 bytes; a chat adds 7


@pytest.mark.usefixtures("no_tokenizer")
def test_what_fits_by_its_bytes_is_not_tokenized() -> None:
    check(chat(WORDS_10), Facts(context_window=66), tpm(10_000))
    check(measure({"input": WORDS_10}, "/v1/responses"), Facts(context_window=66), tpm(66))
    check(measure({"input": [WORDS_10] * 3}, "/v1/embeddings"), Facts(context_window=59), tpm(10_000))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_an_input_longer_than_the_window(path: str) -> None:
    size = measure({"messages": [{"role": "user", "content": WORDS_10}], "input": WORDS_10}, path)
    check(size, Facts(context_window=17), None)
    with pytest.raises(InputTooLong) as caught:
        check(size, Facts(context_window=16), None)
    assert str(caught.value) == (
        "the 17 tokens of input are more than the context window of gpt-4o, 16; "
        "shorten or split the input, or choose a model with a larger window"
    )
    error = caught.value
    assert (error.model, error.tokens, error.window, error.cap) == ("gpt-4o", 17, 16, 0)
    assert isinstance(error, BadRequest)


def test_the_format_may_be_longer_than_the_text() -> None:
    size = measure({"messages": [{"role": "user", "content": "a"}] * 100})
    check(size, Facts(context_window=503), None)
    with pytest.raises(InputTooLong):
        check(size, Facts(context_window=502), None)


def test_an_input_that_leaves_too_little_for_the_output() -> None:
    check(chat(WORDS_10, max_tokens=1000), Facts(context_window=1017), None)
    with pytest.raises(InputTooLong) as caught:
        check(chat(WORDS_10, max_tokens=1000), Facts(context_window=1016), None)
    assert str(caught.value) == (
        "the 17 tokens of input and up to 1,000 of output are 1,017 more than the context window of gpt-4o, 1,016; "
        "lower the cap on output, shorten or split the input, or choose a model with a larger window"
    )


def test_the_responses_api_writes_until_the_window_is_full() -> None:
    body = {"input": WORDS_10, "max_output_tokens": 1000}
    check(measure(body, "/v1/responses"), Facts(context_window=17), None)


def test_each_input_has_a_window_of_its_own() -> None:
    check(measure({"input": [WORDS_10] * 50}, "/v1/embeddings"), Facts(context_window=10), None)
    with pytest.raises(InputTooLong):
        check(measure({"input": ["hello", WORDS_10]}, "/v1/embeddings"), Facts(context_window=9), None)
    check(measure({"prompt": [WORDS_10], "max_tokens": 5}, "/v1/completions"), Facts(context_window=15), None)
    with pytest.raises(InputTooLong):
        check(measure({"prompt": [WORDS_10], "max_tokens": 5}, "/v1/completions"), Facts(context_window=14), None)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Facts("llama-3.3-70b", context_window=5), {"input": WORDS_10}),
        (Facts(context_window=5), {"input": WORDS_10, "truncation": "auto"}),
        (Facts(context_window=None), {"input": WORDS_10}),
        (None, {"input": WORDS_10}),
    ],
)
def test_what_is_not_certain_is_left_to_the_server(model: Facts | None, body: dict[str, object]) -> None:
    check(measure(body, "/v1/responses"), model, None)


def test_more_output_than_the_model_writes() -> None:
    check(chat(max_tokens=16_384), Facts(max_output=16_384), None)
    check(chat(), Facts(max_output=16_384), None)
    with pytest.raises(OutputTooLong) as caught:
        check(chat(max_tokens=16_385), Facts(max_output=16_384), None)
    assert str(caught.value) == (
        "the request asks for up to 16,385 tokens of output, but gpt-4o writes at most 16,384; "
        "lower max_completion_tokens (max_output_tokens, max_tokens) to 16,384 or leave it out"
    )
    assert (caught.value.model, caught.value.cap, caught.value.most) == ("gpt-4o", 16_385, 16_384)


def test_a_charge_above_the_whole_limit() -> None:
    size = chat("x" * 392, max_tokens=1000)
    check(size, None, tpm(100))
    with pytest.raises(NeverFits) as caught:
        check(size, None, tpm(99))
    assert (caught.value.limit, caught.value.amount, caught.value.most) == ("TPM", 100, 99)
    with pytest.raises(NeverFits):
        check(size, None, tpm(999), "documented")


def test_without_a_formula_responses_are_refused_by_their_text_alone() -> None:
    size = measure({"model": "gpt-4o", "input": WORDS_10}, "/v1/responses")
    check(size, MODEL, tpm(17))
    with pytest.raises(NeverFits):
        check(size, MODEL, tpm(16))
    with pytest.raises(NeverFits):
        check(size, MODEL, tpm(35), "chat_2025")
    check(size, Facts("llama-3.3-70b"), tpm(16))


def test_the_models_bounds_are_told_before_the_tiers() -> None:
    with pytest.raises(InputTooLong):
        check(chat("hello " * 1000, max_tokens=9), Facts(context_window=100, max_output=5), tpm(1))
    with pytest.raises(OutputTooLong):
        check(chat("hello " * 1000, max_tokens=9), Facts(context_window=5000, max_output=5), tpm(1))
