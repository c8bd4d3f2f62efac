"""Durations and 429 messages: read as the service writes them, and checked against its own arithmetic."""

from __future__ import annotations

from typing import SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.limits.durations import LONGEST, LONGEST_TEXT, parse_duration
from ratelimit.limits.refusals import LONGEST_MESSAGE, Refusal, parse_refusal

MINUTE, DAY, MONTH = 60_000, 86_400_000, 2_592_000_000


def shown(value: object) -> str:
    """The name of a test's case: short, whatever the value."""
    return ascii(value)[:40]


def go_ms(ms: int) -> str:
    """Go's `time.Duration.String()` of whole milliseconds: the oracle that `parse_duration` undoes."""
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:03}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}{fraction}s"


def reached(dimension: str, limit: int, used: int, requested: int, wait: str) -> str:
    """A refusal as the service words it."""
    return (
        f"Rate limit reached for gpt-4o in organization org-AAA on {dimension}: Limit {limit}, Used {used}, "
        f"Requested {requested}. Please try again in {wait}. "
        f"Visit https://platform.openai.com/account/rate-limits to learn more."
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("120ms", 0.12),
        ("8.64s", 8.64),
        ("2m7.93s", 127.93),
        ("6m0s", 360.0),
        ("20m52.666s", 1252.666),
        ("23h18m29.144s", 83909.144),
        ("1h0m0s", 3600.0),
        ("1h5s", 3605.0),
        ("90m", 5400.0),
        ("720h0m0s", 2_592_000.0),
        ("744h0m0s", LONGEST),
        ("17.399999999s", 17.399999999),
        ("6m17.399999999s", 377.399999999),
        ("1.5\u00b5s", 1.5e-6),
        ("1.5\u03bcs", 1.5e-6),
        ("1.5us", 1.5e-6),
        ("12.5ms", 0.0125),
        ("120ns", 1.2e-7),
        ("0.00000000049s", 0.0),
        ("55", 55.0),
        ("0.5", 0.5),
        (" 55\t", 55.0),
    ],
)
def test_a_duration_is_read_to_the_float(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "s",
            "ms",
            ".",
            ".5s",
            "5.s",
            "-1",
            "-5s",
            "+5s",
            "1e3",
            "1e3s",
            "nan",
            "inf",
            "NaN",
            "1_000",
            "1,5s",
        ),
        *("1d2h", "2d", "1w", "5s2m", "2m2m", "1h1h", "1ms1s", "1s1ms", "1 s", "0x10", "None", "true", "2m7.93s!"),
        *("744h0m0.001s", "2678400.001", "1000000000000", "999999999h", "\u0661\u0662s", "\uff15s", "\ud800", "5s\n5s"),
        *("9" * 5001, "9" * 5001 + "s", "1" * 10**6, " " * 10**6, "1h" * 500_000, "5" + " " * LONGEST_TEXT),
    ],
    ids=shown,
)
def test_what_is_no_duration_or_too_long_was_not_observed(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, 31 * DAY))
@settings(max_examples=500, deadline=None)
def test_every_duration_go_prints_is_read_back_exactly(ms: int) -> None:
    assert parse_duration(go_ms(ms)) == ms / 1000


@pytest.mark.parametrize("ms", [0, 1, 999, 1000, 59_999, 60_000, 3_599_999, 3_600_000, 127_930, MONTH, 31 * DAY])
def test_the_seams_between_units_are_read_back_exactly(ms: int) -> None:
    assert parse_duration(go_ms(ms)) == ms / 1000


@given(st.one_of(st.text(max_size=80), st.text("0123456789.hmsnu\u00b5- ", max_size=20)))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_duration_within_bounds_or_none(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is None or 0 <= seconds <= LONGEST


TPM, TPD, RPM, RPD = "tokens per min (TPM)", "tokens per day (TPD)", "requests per min (RPM)", "requests per day (RPD)"
IMAGES = "input-images per min"
OBSERVED = [
    (TPM, 30000, 29937, 385, "644ms", MINUTE),
    (TPM, 10000, 8554, 3082, "9.816s", MINUTE),
    (TPM, 30000, 28039, 3906, "3.89s", MINUTE),
    (TPM, 30000, 18928, 11159, "174ms", MINUTE),
    (TPM, 30000, 22343, 10955, "6.596s", MINUTE),
    (TPM, 200000, 191584, 45490, "11.122s", MINUTE),
    (TPM, 200000, 198469, 7607, "1.822s", MINUTE),
    (TPM, 30000, 18271, 16921, "10.384s", MINUTE),
    (TPM, 10000, 6630, 3787, "2.502s", MINUTE),
    (TPM, 30000, 14567, 24754, "18.642s", MINUTE),
    (TPM, 30000, 20122, 18269, "16.782s", MINUTE),
    (TPM, 200000, 189447, 33160, "6.782s", MINUTE),
    (TPM, 200000, 200000, 2148, "644ms", MINUTE),
    (TPM, 30000, 22999, 12528, "11.054s", MINUTE),
    (TPM, 10000, 9348, 5086, "26.604s", MINUTE),
    (RPM, 3, 3, 1, "20s", MINUTE),
    (RPD, 10000, 10000, 1, "8.64s", DAY),
    (RPD, 200, 200, 1, "7m12s", DAY),
    (RPD, 1000, 1000, 1, "1m26.4s", DAY),
    (IMAGES, 250, 250, 1, "240ms", MINUTE),
    (IMAGES, 5, 5, 1, "12s", MINUTE),
    (TPM, 100000, 99918, 2094, "14h29m11.04s", MONTH),
]


@pytest.mark.parametrize(("dimension", "limit", "used", "requested", "wait", "window_ms"), OBSERVED)
def test_every_observed_message_and_its_arithmetic(
    dimension: str, limit: int, used: int, requested: int, wait: str, window_ms: int
) -> None:
    refusal = parse_refusal(reached(dimension, limit, used, requested, wait))
    wait_ms = (used + requested - limit) * window_ms // limit
    assert refusal == Refusal(
        kind="reached",
        unit=dimension.split(maxsplit=1)[0],
        window=86_400.0 if "day" in dimension else 60.0,
        limit=limit,
        used=used,
        requested=requested,
        wait=wait_ms / 1000,
        model="gpt-4o",
        bucket=None,
    )
    assert go_ms(wait_ms) == wait
    assert refusal.implied_window() == window_ms / 1000


def test_all_observed_messages_are_here() -> None:
    assert len(OBSERVED) == 22


@given(
    limit=st.sampled_from([3, 200, 500, 10_000, 30_000, 200_000, 2_000_000, 150_000_000, 15_000_000_000]),
    window_ms=st.sampled_from([MINUTE, DAY, MONTH]),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_the_window_of_any_wait_of_a_millisecond_or_more_is_found(
    limit: int, window_ms: int, data: st.DataObject
) -> None:
    requested = data.draw(st.integers(1, limit))
    used = data.draw(st.integers(limit - requested, limit))
    wait_ms = (used + requested - limit) * window_ms // limit
    refusal = parse_refusal(reached(TPD, limit, used, requested, go_ms(wait_ms)))
    assert refusal is not None
    assert refusal.wait == wait_ms / 1000
    assert refusal.implied_window() == window_ms / 1000 or wait_ms == 0


def test_a_request_larger_than_the_limit_is_told_apart() -> None:
    message = (
        "Request too large for gpt-4o in organization org-AAA on tokens per min (TPM): Limit 30000, Requested 41000. "
        "The input or output tokens must be reduced in order to run successfully. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    refusal = parse_refusal(message)
    assert refusal == Refusal("too large", "tokens", 60.0, 30000.0, None, 41000.0, None, "gpt-4o", None)
    assert refusal.implied_window() is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            (
                "Rate limit reached for gpt-4.1-2025-04-14 (for limit gpt-4.1) in organization org-AAA on tokens per "
                "min (TPM): Limit 30000, Used 22999, Requested 12528. Please try again in 11.054s."
            ),
            Refusal("reached", "tokens", 60.0, 30000, 22999, 12528, 11.054, "gpt-4.1-2025-04-14", "gpt-4.1"),
        ),
        (
            (
                "Rate limit reached for gpt-image-2 (for limit gpt-image) in organization org-AAA on images per "
                "minute: Limit 250, Used 250, Requested 1. Please try again in 240ms"
            ),
            Refusal("reached", "input-images", 60.0, 250, 250, 1, 0.24, "gpt-image-2", "gpt-image"),
        ),
        (
            (
                "Rate limit reached for model `llama-3.3-70b` in organization `org_01` service tier `on_demand` "
                "on tokens per day (TPD): Limit 100000, Used 99336, Requested 1234. "
                "Please try again in 8m12.480000001s. Need more?"
            ),
            Refusal("reached", "tokens", 86_400.0, 100000, 99336, 1234, 492.480000001, "llama-3.3-70b", None),
        ),
        (
            (
                "Request too large for model `llama-3.3-70b` in organization `org_01` service tier `on_demand` on "
                "tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your message size and try again."
            ),
            Refusal("too large", "tokens", 60.0, 6000, None, 8000, None, "llama-3.3-70b", None),
        ),
        (
            "Rate limit reached for gpt-4o on requests per min (RPM): Limit 3, Used 3, Requested 1.",
            Refusal("reached", "requests", 60.0, 3, 3, 1, None, "gpt-4o", None),
        ),
        (
            (
                "Rate limit reached for gpt-4o in organization org-A in project proj_B on requests per min (RPM): "
                "Limit 0, Used 0, Requested 1. Please try again in 9999h0m0s."
            ),
            Refusal("reached", "requests", 60.0, 0, 0, 1, None, "gpt-4o", None),
        ),
    ],
    ids=["snapshot", "images", "groq", "groq too large", "no wait", "project, nothing allowed, absurd wait"],
)
def test_the_other_wordings(message: str, expected: Refusal) -> None:
    assert parse_refusal(message) == expected


@pytest.mark.parametrize("field", ["used", "wait", "limit"])
def test_the_window_is_not_guessed_from_half_the_numbers(field: str) -> None:
    numbers: dict[str, float | None] = {"used": 29937.0, "wait": 0.644, "limit": 30000.0, field: None}
    limit = numbers["limit"] or 0.0
    refusal = Refusal("reached", "tokens", 60.0, limit, numbers["used"], 385.0, numbers["wait"], "gpt-4o")
    assert refusal.implied_window() is None


def test_a_wait_that_no_float_holds_exactly_is_not_cut_a_millisecond_short() -> None:
    refusal = Refusal("reached", "tokens", 60.0, 60000.0, 60000.0, 1001.0, 1.001, "gpt-4o")
    assert refusal.wait is not None
    assert refusal.wait * 1000 < 1001
    assert refusal.implied_window() == MINUTE / 1000


@pytest.mark.parametrize(("wait", "window"), [(0.643, None), (0.644, 60.0), (0.645, None), (0.0, None)])
def test_a_wait_that_fits_no_window_implies_none(wait: float, window: float | None) -> None:
    refusal = Refusal("reached", "tokens", 60.0, 30000.0, 29937.0, 385.0, wait, "gpt-4o")
    assert refusal.implied_window() == window


@pytest.mark.parametrize(
    "message",
    [
        "",
        "You exceeded your current quota, please check your plan and billing details.",
        "Rate limit reached for gpt-4o",
        (
            "Rate limit reached for 10KTPM-200RPM in organization org-X on tokens per min. Limit: 10000 / min. "
            "Please try again in 6ms."
        ),
        "Note: " + reached(TPM, 30000, 29937, 385, "644ms"),
        reached(TPM, -1, 29937, 385, "644ms"),
        reached(TPM, 10**12, 29937, 385, "644ms"),
        reached(TPM, 30000, 10**12, 385, "644ms"),
        reached(TPM, 30000, 29937, 10**12, "644ms"),
        reached("tokens per fortnight", 30000, 29937, 385, "644ms"),
        reached("bananas per min", 30000, 29937, 385, "644ms"),
        reached(TPM, 30000, 29937, 385, "644ms").replace("385", "38.5"),
        reached(TPM, 30000, 29937, 385, "644ms").replace("30000", "9" * 5001),
        reached(TPM, 30000, 29937, 385, "644ms").replace("30000", "\u0663\u0660"),
        "\ud800",
        None,
        429,
        b"Rate limit reached for gpt-4o",
        ["Rate limit reached for gpt-4o"],
    ],
    ids=shown,
)
def test_any_other_message_says_nothing(message: object) -> None:
    assert parse_refusal(message) is None


class Watched(str):
    """A text that notes which parts of it are taken."""

    __slots__ = ("taken",)

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        self.taken = [*getattr(self, "taken", []), key]
        return super().__getitem__(key)


@pytest.mark.parametrize(
    "message",
    [
        "Rate limit reached for " + "a" * 10**6,
        "Rate limit reached for a" + " on tokens per min:" * 50_000,
        "Rate limit reached for a (for limit " * 30_000,
        "Rate limit reached for a" + " " * 10**6,
        reached(TPM, 30000, 29937, 385, "9" * 10**6 + "s"),
        reached(TPM, 30000, 29937, 385, "1h" * 10**6),
    ],
    ids=["model", "dimension", "bucket", "spaces", "digits", "hours"],
)
def test_only_a_bounded_part_of_a_huge_message_is_looked_at(message: str) -> None:
    watched = Watched(message)
    refusal = parse_refusal(watched)
    assert watched.taken == [slice(None, LONGEST_MESSAGE, None)]
    assert refusal == parse_refusal(message[:LONGEST_MESSAGE])
    assert refusal is None or refusal.wait is None


def test_what_follows_the_numbers_may_be_of_any_length() -> None:
    message = reached(TPM, 30000, 29937, 385, "644ms")
    assert parse_refusal(message + "x" * 10**6) == parse_refusal(message) is not None


pieces = st.sampled_from(
    [
        *("Rate limit reached", "Request too large", " for ", "model ", "`", "gpt-4o", " (for limit ", ")", " in "),
        *("organization ", "org-A", " on ", "tokens", "requests", " per ", "min", "day", " (TPM)", ":", " Limit "),
        *("30000", ", Used ", ", Requested ", ".", " Please try again in ", "644ms", "\n", "\ud800", "9" * 5001),
    ]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=40).map("".join), st.integers(0, 200)))
@settings(max_examples=300, deadline=None)
def test_no_text_raises(message: str | int) -> None:
    text = reached(TPM, 30000, 29937, 385, "644ms")[:message] if isinstance(message, int) else message
    refusal = parse_refusal(text)
    assert refusal is None or (refusal.limit >= 0 and refusal.requested >= 0)
