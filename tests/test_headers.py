"""Headers of every kind of server, read field by field, and checked against the arithmetic behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.limits.durations import LONGEST, LONGEST_TEXT, parse_http_date
from ratelimit.limits.headers import ABSURD, NOTHING, Observed, Reading, parse
from ratelimit.limits.readings import WINDOWS

MINUTE = 60


def shown(value: object) -> str:
    """The name of a test's case: short, whatever the value."""
    return ascii(value)[:40]


def tokens(limit: str | None = None, remaining: str | None = None, reset: str | None = None) -> dict[str, str]:
    """The three headers of one limit; None leaves one out."""
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{verb}-tokens": value for verb, value in values.items() if value is not None}


@pytest.mark.parametrize("text", ["500", " 500\t", "500, 500", "500,600", "500.0", "500.000000000"])
def test_an_amount_is_read(text: str) -> None:
    assert parse(tokens(limit=text)) == Observed(readings=(Reading("tokens", 500.0, None, None),))
    assert parse(tokens(remaining=text)) == Observed(readings=(Reading("tokens", None, 500.0, None),))


GARBAGE = [
    *(
        "",
        " ",
        "-5",
        "-0.5",
        "+5",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e3",
        "1_000",
        "1 000",
        "0x10",
        "None",
        "true",
        ",",
        ", 5",
    ),
    *(
        "1000000000000",
        "999999999999.999999999",
        "9" * 400,
        "9" * 5001,
        "1d2h",
        "1h1h",
        "\u0665\u0660",
        "\uff15",
        "\ud800",
    ),
    *("\u00e9\u00e8", "5" + " " * LONGEST_TEXT, " " * 10**6, "5," * 500_000, "9" * 10**6, "\x00", "5\n5"),
]


@pytest.mark.parametrize("text", GARBAGE, ids=shown)
def test_garbage_is_not_observed_and_harms_no_other_field(text: str) -> None:
    whole = Reading("tokens", 500.0, 499.0, 0.12)
    good = tokens("500", "499", "120ms")
    less = {
        "limit": replace(whole, limit=None),
        "remaining": replace(whole, remaining=None),
        "reset": replace(whole, reset=None),
    }
    for field, reading in less.items():
        assert parse(good | {f"x-ratelimit-{field}-tokens": text}) == Observed(readings=(reading,))
        assert parse({f"x-ratelimit-{field}-tokens": text}) is NOTHING
    for name in ("retry-after", "retry-after-ms", "x-rate-limit-reset-tokens", "date"):
        assert parse({name: text}) is NOTHING
    assert parse({"retry-after": text, "retry-after-ms": text, "x-ratelimit-renewalperiod-tokens": text}) is NOTHING


@pytest.mark.parametrize("text", ["1d2h", "1000000000000", "2678401", "744h0m1s"])
def test_a_time_longer_than_a_month_is_not_observed(text: str) -> None:
    assert parse(tokens(reset=text) | {"retry-after": text, "x-rate-limit-reset-tokens": text}) is NOTHING


def test_the_bounds_themselves() -> None:
    assert parse(tokens(limit="999999999999")).readings[0].limit == ABSURD - 1
    assert parse(tokens(reset="744h0m0s")).readings[0].reset == LONGEST
    assert parse({"retry-after-ms": "2678400000"}).retry_after == LONGEST
    assert parse({"retry-after-ms": "2678400001"}).retry_after is None


def test_contradictions_are_not_observed() -> None:
    assert parse(tokens("0", "0", "0s")).readings == (Reading("tokens", None, 0.0, 0.0),)
    assert parse(tokens("500", "501", "0s")).readings == (Reading("tokens", 500.0, None, 0.0),)


def test_every_unit_and_scope_in_a_fixed_order() -> None:
    names = ["project-input-images", "project-tokens", "project-requests", "input-images", "tokens", "requests"]
    seen = parse({f"x-ratelimit-limit-{name}": str(number) for number, name in enumerate(names, 1)})
    assert [(reading.unit, reading.scope, reading.limit) for reading in seen.readings] == [
        ("requests", "organization", 6.0),
        ("tokens", "organization", 5.0),
        ("input-images", "organization", 4.0),
        ("requests", "project", 3.0),
        ("tokens", "project", 2.0),
        ("input-images", "project", 1.0),
    ]


def test_azure_counts_bare_resets_in_milliseconds_beside_a_renewal_period() -> None:
    headers = tokens("250000", "249993", "1") | {
        "x-ratelimit-limit-requests": "2500",
        "x-ratelimit-remaining-requests": "2499",
        "x-ratelimit-reset-requests": "24",
        "x-ratelimit-renewalperiod-requests": "60",
        "x-ratelimit-renewalperiod-tokens": "60",
        "x-ratelimit-abusepenalty-active": "False",
        "x-ratelimit-key": "gpt-5.4",
    }
    assert parse(headers).readings == (
        Reading("requests", 2500.0, 2499.0, 0.024, window=60.0),
        Reading("tokens", 250000.0, 249993.0, 0.001, window=60.0),
    )


@pytest.mark.parametrize(
    ("remaining", "reset", "period", "seconds"),
    [("119", "500", "60", 0.5), ("119", "55", "60", 55.0), ("119", "500", None, 500.0), ("119", "500s", "60", 500.0)],
)
def test_a_bare_reset_is_seconds_unless_the_period_says_otherwise(
    remaining: str, reset: str, period: str | None, seconds: float
) -> None:
    headers = tokens("120", remaining, reset)
    if period is not None:
        headers["x-ratelimit-renewalperiod-tokens"] = period
    assert parse(headers).readings[0].reset == seconds


def test_azures_limit_that_is_not_counted_says_nothing() -> None:
    assert parse(tokens("-1", "-1", "0")) is NOTHING


def test_azures_refusal_without_retry_after() -> None:
    headers = {"x-rate-limit-reset-tokens": "55", "policy-id": "DeploymentRatelimit-Token"}
    assert parse(headers) == Observed(readings=(Reading("tokens", None, None, 55.0),), retry_after=55.0)
    headers |= {"x-rate-limit-reset-requests": "56"}
    assert parse(headers).retry_after == 56.0
    assert parse(headers | {"retry-after": "3"}).retry_after == 3.0
    assert parse(headers | tokens(reset="7s")).readings[1].reset == 7.0


def test_a_renewal_period_of_zero_or_alone_says_nothing() -> None:
    assert parse({"x-ratelimit-renewalperiod-tokens": "60"}) is NOTHING
    assert parse(tokens("5") | {"x-ratelimit-renewalperiod-tokens": "0"}).readings[0].window is None


def test_groqs_nanosecond_noise() -> None:
    headers = tokens("6000", "4260", "17.399999999s")
    assert parse(headers).readings == (Reading("tokens", 6000.0, 4260.0, 17.399999999),)
    assert parse(headers).readings[0].implied_window() == MINUTE


@pytest.mark.parametrize(
    "name",
    [
        *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit-tokens_usage_based"),
        *("anthropic-ratelimit-tokens-limit", "x-ratelimit-limit-audio-seconds", "x-ratelimit-limit-to\u212aens\u0131"),
    ],
)
def test_other_vendors_headers_are_ignored(name: str) -> None:
    assert parse({name: "5"}) is NOTHING


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "56"}, 56.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "0.25"}, 0.25),
        ({"Retry-After": "86400"}, 86400.0),
        ({"Retry-After": "3, 4"}, 3.0),
        ({"retry-after-ms": "11702"}, 11.702),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after": "12", "retry-after-ms": "11702"}, 11.702),
        ({"retry-after": "12", "retry-after-ms": "-1"}, 12.0),
        ({"retry-after": "12", "retry-after-ms": "soon"}, 12.0),
        ({"retry-after": "-12"}, None),
        ({"retry-after": "2678401"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_by_the_most_exact_header_that_can_be_read(headers: dict[str, str], seconds: float | None) -> None:
    assert parse(headers).retry_after == seconds


BEFORE, THEN = "Wed, 21 Oct 2015 07:27:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "now", "seconds"),
    [
        (THEN, BEFORE, None, 30.0),
        (THEN, BEFORE, 1445412479.5, 0.5),
        (THEN, None, 1445412479.5, 0.5),
        (THEN, None, None, None),
        (THEN, "yesterday", None, None),
        (THEN, THEN, None, 0.0),
        (BEFORE, THEN, None, None),
        (f"{THEN}, {THEN}", BEFORE, None, 30.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", BEFORE, None, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", BEFORE, None, None),
        (THEN, None, math.nan, None),
        (THEN, None, -math.inf, None),
    ],
)
def test_retry_after_as_a_date(retry_after: str, date: str | None, now: float | None, seconds: float | None) -> None:
    headers = {"Retry-After": retry_after} | ({} if date is None else {"Date": date})
    assert parse(headers, now=now).retry_after == seconds


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480.0),
        (" Wed, 21 Oct 2015 07:28:00 GMT ", 1445412480.0),
        ("Thu, 29 Feb 2024 23:59:59 GMT", 1709251199.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799.0),
        ("Wed, 21 Oct 2015 07:28:00 +0000", None),
        ("Wed, 21 Oct 2015 07:28:00", None),
        ("Wed, 21 Foo 2015 07:28:00 GMT", None),
        ("Thu, 30 Feb 2024 00:00:00 GMT", None),
        ("Wed, 21 Oct 0000 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 24:00:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT" + " " * LONGEST_TEXT, None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_an_http_date_is_read_or_not_observed(text: str, epoch: float | None) -> None:
    assert parse_http_date(text) == epoch


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("true", True), ("false", False), ("False", False), (" TRUE ", True), ("yes", None), ("", None)],
)
def test_should_retry(text: str, verdict: bool | None) -> None:
    assert parse({"X-Should-Retry": text}).should_retry is verdict


def test_of_a_header_that_came_twice_the_first_counts() -> None:
    assert parse({"X-RateLimit-Limit-Tokens": "500", "x-ratelimit-limit-tokens": "600"}).readings[0].limit == 500.0


def test_what_is_no_text_is_not_observed() -> None:
    headers: dict[object, object] = {
        b"x-ratelimit-limit-tokens": "500",
        5: "5",
        None: None,
        ("retry-after",): "5",
        "x-ratelimit-limit-tokens": b"500",
        "retry-after": 5,
        "retry-after-ms": None,
        "x-should-retry": True,
        "X-RATELIMIT-LIMIT-TOKENS": "500",
    }
    assert parse(cast("Mapping[str, str]", headers)) == Observed(readings=(Reading("tokens", 500.0, None, None),))


def test_nothing_in_nothing_out() -> None:
    assert parse({}) is NOTHING
    assert parse({"content-type": "application/json", "date": BEFORE}) is NOTHING
    assert Observed() == NOTHING == Observed((), None, None, None)


class Untouchable(str):
    """A text whose length may be asked for, and nothing else."""

    __slots__ = ()

    def _touched(self, *_: object) -> str:
        raise AssertionError(f"{len(self)} characters were gone through")

    strip = lower = partition = split = encode = __getitem__ = __iter__ = _touched  # type: ignore[assignment]


@pytest.mark.parametrize(
    "name", ["x-ratelimit-limit-tokens", "x-ratelimit-reset-tokens", "retry-after", "x-should-retry"]
)
def test_a_huge_value_is_not_gone_through(name: str) -> None:
    assert parse({name: Untouchable("5" * 10**6)}) is NOTHING
    assert parse({name: Untouchable("5" * (LONGEST_TEXT + 1))}) is NOTHING


KNOWN = [
    *(f"x-ratelimit-{verb}-{unit}" for verb in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
    *("x-ratelimit-renewalperiod-tokens", "x-ratelimit-limit-project-tokens", "x-ratelimit-reset-input-images"),
    *("x-rate-limit-reset-tokens", "Retry-After", "retry-after-ms", "x-should-retry", "Date"),
]
values = st.one_of(
    st.text(max_size=80),
    st.text("0123456789.,hmsnu- eE+_", max_size=20),
    st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")),
    st.binary(max_size=80).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from([*GARBAGE, BEFORE, THEN, "120ms", "500", "-1"]),
)


@given(
    headers=st.dictionaries(st.sampled_from(KNOWN) | st.text() | st.binary(), values, max_size=12),
    now=st.none() | st.floats(),
)
@settings(max_examples=500, deadline=None)
def test_no_headers_raise_and_what_is_observed_is_finite(headers: dict[str, str], now: float | None) -> None:
    seen = parse(headers, now=now)
    assert seen.retry_after is None or 0 <= seen.retry_after <= LONGEST
    assert seen.should_retry in {True, False, None}
    for reading in seen.readings:
        assert reading.limit is None or 0 < reading.limit < ABSURD
        assert reading.remaining is None or 0 <= reading.remaining < ABSURD
        assert reading.reset is None or 0 <= reading.reset <= LONGEST
        assert reading.window is None or 0 < reading.window <= LONGEST
        assert (reading.limit, reading.remaining, reading.reset) != (None, None, None)
        assert reading.implied_window() in {*WINDOWS, None}
        assert all(reading.is_linear(window) in {True, False, None} for window in WINDOWS)


@pytest.mark.parametrize(("text", "worked"), [("1234", 1.234), ("0", 0.0), ("", 0.0), ("-5", 0.0), ("soon", 0.0)])
def test_how_long_the_server_says_it_worked(text: str, worked: float) -> None:
    assert parse(tokens(limit="500") | {"OpenAI-Processing-Ms": text}).worked == worked
    assert parse({"openai-processing-ms": text}) == NOTHING  # by itself it says nothing of limits
