"""What a job with a deadline comes to through both routes, for several guesses at what nobody knows: a batch's time."""

from __future__ import annotations

from dataclasses import dataclass

from ratelimit.jobs.batches.routes import foretold

GUESSES = (3600.0, 4 * 3600.0, 24 * 3600.0)  # seconds for what the queue holds; the service promises no more than a day


@dataclass(frozen=True, slots=True)
class Mixture:
    """Both routes, if batches take so long."""

    batch_seconds: float
    batched: int  # requests
    live: int
    seconds: float  # until all is done
    cost: float | None
    saved: float | None


def mixtures(
    deadline: float, *, requests: int, live: float, queue: float, cost: float | None, discount: float | None
) -> tuple[Mixture, ...]:
    """Return the mixture for each guess; `queue` is the part of the job that the batch queue holds at a time."""
    found = []
    for guess in GUESSES:
        part, seconds = foretold(deadline, live=live, queue=queue, batch=guess)
        saved = None if cost is None or discount is None else cost * discount * part
        batched = min(round(part * requests), requests)
        found.append(
            Mixture(guess, batched, requests - batched, seconds, None if cost is None else cost - (saved or 0.0), saved)
        )
    return tuple(found)
