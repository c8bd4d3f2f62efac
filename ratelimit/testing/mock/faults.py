"""Which requests go wrong, and how: faults by rate, by request number, by time, or the next one on demand.

A fault is written `KIND` or `KIND:option=value,option=value`. Selectors say which requests it strikes, and all that are
given must agree; the other options belong to its kind. Times count from the start of the server, numbers from 1.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import refusals
from ratelimit.testing.mock.headers import lines
from ratelimit.testing.mock.refusals import Problem

PROBLEMS: dict[str, Problem] = {
    "500": refusals.SERVER_ERROR,
    "502": refusals.BAD_GATEWAY,
    "503": refusals.ENGINE_OVERLOADED,
    "overloaded": refusals.OVERLOADED,
    "slow_down": refusals.SLOW_DOWN,
    "flex": refusals.FLEX_UNAVAILABLE,
    "storm": Problem(429, "", "requests", "rate_limit_exceeded"),
    "invalid_key": refusals.bad_key("sk-revoked-by-a-fault"),
    "insufficient_quota": refusals.out_of_quota("insufficient_quota"),
    "credit_balance_exhausted": refusals.out_of_quota("credit_balance_exhausted"),
    "organization_spend_limit_exceeded": refusals.out_of_quota("organization_spend_limit_exceeded"),
    "project_spend_limit_exceeded": refusals.out_of_quota("project_spend_limit_exceeded"),
    "organization_usage_limit_exceeded": refusals.out_of_quota("organization_usage_limit_exceeded"),
}
"""Faults that are an answer of the service; those of 500 and above come after the request was admitted and charged."""

_WIRE: dict[str, tuple[str, ...]] = {
    "refuse": ("seconds",),
    "reset": (),
    "cut": ("bytes",),
    "stall": ("seconds",),
    "hang": ("seconds",),
    "duplicate": ("seconds",),
    "drip": ("bytes", "seconds"),
    "truncated": ("bytes",),
    "html": (),
    "length": ("bytes",),
    "headers": ("headers", "variant"),
    "no_headers": (),
    "stream_break": ("bytes",),
    "response_failed": (),
    "bomb": ("bytes",),
    "redirect": ("headers",),
    "limits": ("rpm", "rpd", "tpm", "tpd", "images"),
}
SELECTORS = ("rate", "at", "every", "from", "to", "between", "times", "path")
KINDS = (*PROBLEMS, *_WIRE)
_EARLY = {"refuse", *(kind for kind, problem in PROBLEMS.items() if problem.status < 500)}


@dataclass(slots=True, eq=False)
class Fault:
    """One way to go wrong, and which requests it strikes; `times` counts down, None is for ever."""

    kind: str
    rate: float = 1.0
    at: frozenset[int] | None = None
    every: int | None = None
    first: int = 1
    last: float = math.inf
    begin: float = -math.inf
    end: float = math.inf
    times: int | None = None
    path: str | None = None
    retry_after: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    variant: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    spec: str = ""

    def strikes(self, number: int, elapsed: float, path: str, draw: random.Random) -> bool:
        """Whether this request is struck; uses up one of `times` if so."""
        if (
            (self.path is not None and not path.endswith(self.path))
            or not self.first <= number <= self.last
            or not self.begin <= elapsed < self.end
            or (self.at is not None and number not in self.at)
            or (self.every is not None and number % self.every)
            or self.times == 0
            or (self.rate < 1 and draw.random() >= self.rate)
        ):
            return False
        if self.times is not None:
            self.times -= 1
        return True

    @property
    def problem(self) -> Problem | None:
        """The refusal this fault is, with its Retry-After; None where it is something else."""
        found = PROBLEMS.get(self.kind)
        if found is None:
            return None
        return replace(found, lines="" if self.retry_after is None else lines([("retry-after", self.retry_after)]))


def _bad(spec: str, remedy: str) -> BadMockOption:
    return BadMockOption("--fault", spec, remedy)


def parse(spec: str) -> Fault:
    """Reads one fault as it is written on the command line."""
    kind, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, given, value = part.partition("=")
        if not given:
            raise _bad(spec, f"{part!r} is not option=value")
        if name == "header":
            header, _, content = value.partition("=")
            options.setdefault("headers", {})[header] = content
        else:
            options[name] = value
    return build(kind, options, spec)


def build(kind: str, options: Mapping[str, Any], spec: str | None = None) -> Fault:
    """Makes a fault from its kind and options, whoever read them."""
    spec = spec if spec is not None else kind + "".join(f" {name}={value}" for name, value in options.items())
    if kind not in KINDS:
        raise _bad(spec, f"its kind is one of {', '.join(KINDS)}")
    own = ("retry_after",) if kind in PROBLEMS else _WIRE[kind]
    fault = Fault(kind, spec=spec)
    for name, value in options.items():
        if name not in SELECTORS and name not in own:
            raise _bad(spec, f"{kind} has no option {name!r}; it has {', '.join((*SELECTORS, *own))}")
        try:
            _set(fault, name, value)
        except (ValueError, TypeError, AttributeError):
            raise _bad(spec, f"{name}={value} cannot be read; {_WRITTEN.get(name, 'write a whole number')}") from None
    if kind == "limits" and not fault.limits:
        raise _bad(spec, "say which limits change and to what, as in limits:between=30s-60s,rpm=100")
    return fault


_WRITTEN = {
    "rate": "write a share from 0 to 1",
    "at": "write request numbers joined by +",
    "between": "write two times in seconds, as in 10s-20s",
    "seconds": "write seconds",
    "headers": "write a mapping of names to values",
}


def _set(fault: Fault, name: str, value: Any) -> None:
    if name == "between":
        begin, end = str(value).split("-")
        fault.begin, fault.end = (_within(float(each.removesuffix("s")), 0, math.inf) for each in (begin, end))
    elif name in _READERS:
        attribute, read = _READERS[name]
        setattr(fault, attribute, read(value))
    else:
        fault.limits[name] = _whole(value)


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(value)
    return value


def _whole(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(value)
    return number


_READERS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "rate": ("rate", lambda value: _within(float(value), 0, 1)),
    "at": ("at", lambda value: frozenset(_whole(each) for each in str(value).split("+"))),
    "from": ("first", _whole),
    "to": ("last", _whole),
    "every": ("every", _whole),
    "times": ("times", _whole),
    "seconds": ("seconds", lambda value: _within(float(value), 0, 1e9)),
    "bytes": ("bytes", lambda value: int(_within(int(value), 0, 1e12))),
    "path": ("path", str),
    "retry_after": ("retry_after", str),
    "variant": ("variant", str),
    "headers": ("headers", lambda value: {str(key): str(each) for key, each in value.items()}),
}


class Faults:
    """The faults of a server: those asked for next come first, then the standing ones in their order."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.standing: list[Fault] = []
        self.next: deque[Fault] = deque()
        self.tuning: list[Fault] = []

    @property
    def any(self) -> bool:
        """Whether there is anything to ask about."""
        return bool(self.standing or self.next or self.tuning)

    def add(self, fault: Fault) -> None:
        """Adds a standing fault."""
        (self.tuning if fault.kind == "limits" else self.standing).append(fault)

    def limits(self, number: int, elapsed: float) -> dict[str, int]:
        """The limits that are not the usual ones now."""
        found: dict[str, int] = {}
        for fault in self.tuning:
            if fault.strikes(number, elapsed, fault.path or "", self._draw):
                found.update(fault.limits)
        return found

    def strike(self, number: int, elapsed: float, path: str, *, early: bool) -> Fault | None:
        """The fault that strikes this request before its limits are asked (`early`), or after it was admitted."""
        for fault in (*self.next, *self.standing):
            if (fault.kind in _EARLY) is early and fault.strikes(number, elapsed, path, self._draw):
                if fault.times == 0 and fault in self.next:
                    self.next.remove(fault)
                return fault
        return None

    def clear(self) -> None:
        """Ends all faults."""
        self.standing.clear()
        self.next.clear()
        self.tuning.clear()
