"""What a run came to, in words, in JSON, and as an exit code."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from ratelimit.admission.scheduler import LaneStatus
from ratelimit.errors import RateLimitError, printable
from ratelimit.jobs.figures import SHORTEST, counted, duration, money, per_minute
from ratelimit.jobs.lines import as_line
from ratelimit.jobs.tally import Tally
from ratelimit.wire.sender import Count

INTERRUPTED = 130
STOPPED = 3
SOME_FAILED = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything worth knowing once a run has ended."""

    total: int | None
    done_before: int
    answered: int
    failed: int
    failed_before: int
    left: int | None
    failures: dict[str, int]
    first_failure: str | None
    attempts: int
    retried: int
    refused: int
    input_tokens: int
    output_tokens: int
    cost: float
    unpriced: int
    batched: int
    saved: float
    seconds: float
    in_doubt: int
    spare: float | None
    stopped: str | None
    exit_code: int
    lanes: tuple[LaneStatus, ...]

    def json(self) -> str:
        """Return it as one line of JSON."""
        return as_line(msgspec.json.encode(asdict(self))).decode().rstrip("\n")

    def lines(self) -> list[str]:
        """Return it as a person wants to read it."""
        long_enough = self.answered and self.seconds >= SHORTEST
        speed = f" ({per_minute(self.answered / self.seconds)} a minute)" if long_enough else ""
        before = f", {self.done_before:,} were done before" if self.done_before else ""
        lines = [
            f"answered {self.answered:,} in {duration(self.seconds)}{speed}{before}",
            f"tokens   {self.input_tokens:,} in, {self.output_tokens:,} out, {money(self.cost)}"
            + (f" ({counted(self.unpriced, 'answer')} of models without a price)" if self.unpriced else ""),
            (
                f"sent     {counted(self.attempts, 'request')}: {self.retried:,} again, "
                f"{self.refused:,} refused by a limit"
            ),
        ]
        if self.batched:
            live = f", {self.answered - self.batched:,} live" if self.answered > self.batched else ""
            lines.append(
                f"routes   {counted(self.batched, 'answer')} by the Batch API{live}; {money(self.saved)} saved"
            )
        if self.spare is not None:
            lines.append(f"deadline {'kept' if self.spare >= 0 else 'missed'} by {duration(abs(self.spare))}")
        if self.failed:
            causes = ", ".join(f"{count:,} {code}" for code, count in sorted(self.failures.items()))
            lines.append(f"failed   {self.failed:,}: {causes}")
            if self.first_failure:
                lines.append(f"         first {printable(self.first_failure, 300)}")
        if self.failed_before:
            lines.append(f"failed   {self.failed_before:,} in earlier runs; --retry-failed sends them again")
        if self.left:
            lines.append(f"left     {self.left:,}")
        if self.stopped:
            lines.append(f"stopped  {self.stopped}")
        return lines


def summarise(
    tally: Tally,
    count: Count,
    lanes: tuple[LaneStatus, ...],
    stopped: RateLimitError | None,
    *,
    in_doubt: int,
    failed_before: int,
    interrupted: bool,
    spare: float | None = None,
) -> Summary:
    """Return what a run came to; `spare` is the time that was left of a deadline by which it was to be done."""
    code = STOPPED if stopped else SOME_FAILED if tally.failed or failed_before else 0
    return Summary(
        total=tally.total,
        done_before=tally.done_before,
        answered=tally.answers,
        failed=tally.failed,
        failed_before=failed_before,
        left=tally.left,
        failures=dict(tally.failures),
        first_failure=tally.first_failure,
        attempts=tally.attempts,
        retried=count.retried,
        refused=count.refused,
        input_tokens=tally.input_tokens,
        output_tokens=tally.output_tokens,
        cost=tally.cost,
        unpriced=tally.unpriced,
        batched=tally.batched,
        saved=tally.saved,
        seconds=(tally.ended_at or tally.started_at) - tally.started_at,
        in_doubt=in_doubt,
        spare=spare,
        stopped=str(stopped) if stopped else None,
        exit_code=INTERRUPTED if interrupted else code,
        lanes=lanes,
    )
