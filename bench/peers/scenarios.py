"""The jobs that peers are given: limits, a server, requests, and how long an ideal client would need.

The fluid bound is what the limits alone demand: a full bucket at the start, refilled continuously, and then the usual
latency of one answer. Limits are scaled down so that each takes about three quarters of a minute.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MODEL = "gpt-4o-mini"
TIER = "tier-2"
LATENCY = "0.5-1.5"
USUAL = 1.0
SPAN = 45.0
RPM = 600
TPM = 60_000
PLENTY_RPM = 5_000
PLENTY_TPM = 2_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One job and the server it meets."""

    name: str
    what: str
    rpm: int
    tpm: int
    bodies: Sequence[dict[str, Any]]
    bound: float
    server: tuple[str, ...] = ()
    rival_rpm: float = 0.0
    deadline: float = 120.0


def body(words: int, cap: int = 16) -> dict[str, Any]:
    """One question of so many words, four bytes each."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "abc " * words}], "max_tokens": cap}


def charge(asked: dict[str, Any]) -> int:
    """The tokens the mock takes for it: a quarter of the bytes, one for the message, one for the answer."""
    return len(asked["messages"][0]["content"]) // 4 + 2


def until(total: float, mean: float) -> int:
    """How many requests of a mean size come to a total."""
    return max(round(total / mean), 1)


def mixed(seed: int) -> list[dict[str, Any]]:
    """Sizes from a few to thousands of tokens, a minute's bucket and `SPAN` seconds of refill in all."""
    rng, found, total = random.Random(seed), [], 0
    while total < TPM * (1 + SPAN / 60):
        found.append(body(min(max(round(rng.lognormvariate(4.7, 1.0)), 5), 4000)))
        total += charge(found[-1])
    return found


def fluid(bodies: Sequence[dict[str, Any]], rpm: float, tpm: float, *, bucket_rpm: float | None = None) -> float:
    """Seconds until the last request may leave, by the limit that takes longest."""
    full = rpm if bucket_rpm is None else bucket_rpm
    by_requests = (len(bodies) - full) / rpm * 60
    by_tokens = (sum(map(charge, bodies)) - tpm) / tpm * 60
    return max(by_requests, by_tokens, 0.0) + USUAL


def scenarios(seed: int = 1) -> list[Scenario]:
    """All of them, the plainest first."""
    many = [body(10)] * round(RPM * (1 + SPAN / 60))
    sizes = mixed(seed)
    slow = [body(10)] * round(RPM * SPAN / 60)
    faulty = [body(10)] * round(RPM * (1 + SPAN / 60) * 0.95)
    rival = RPM / 4
    beside = [body(10)] * round(RPM + (RPM - rival) * SPAN / 60)
    short = [body(10)] * (RPM // 2)
    over = [body(200, cap=2000)] * until(TPM * (1 + SPAN / 60), 202)
    return [
        Scenario("rpm", "limited by requests", RPM, PLENTY_TPM, many, fluid(many, RPM, PLENTY_TPM)),
        Scenario("tpm", "limited by tokens, mixed sizes", PLENTY_RPM, TPM, sizes, fluid(sizes, PLENTY_RPM, TPM)),
        Scenario(
            "quantised",
            "a server that admits a sixtieth of the minute each second",
            RPM,
            PLENTY_TPM,
            slow,
            fluid(slow, RPM, PLENTY_TPM, bucket_rpm=0),
            server=("--enforce", "quantised"),
        ),
        Scenario(
            "faulty",
            "one answer in twenty is a 500",
            RPM,
            PLENTY_TPM,
            faulty,
            fluid([body(10)] * round(len(faulty) / 0.95), RPM, PLENTY_TPM),
            server=("--fault", "500:rate=0.05"),
        ),
        Scenario(
            "rival",
            "another program takes a quarter of the limit",
            RPM,
            PLENTY_TPM,
            beside,
            fluid(beside, RPM - rival, PLENTY_TPM, bucket_rpm=RPM),
            rival_rpm=rival,
        ),
        Scenario("short", "half a minute's limit, at once", RPM, PLENTY_TPM, short, USUAL, deadline=60.0),
        Scenario(
            "over",
            "asks for 2,000 tokens of output, gets 16 to 64",
            PLENTY_RPM,
            TPM,
            over,
            fluid(over, PLENTY_RPM, TPM),
        ),
    ]
