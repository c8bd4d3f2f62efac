"""What happens to requests and in lanes, told to observers as it happens.

An observer is called synchronously and may not answer. An event that nobody is to hear of is not even made; so an
observer with an attribute `hears`, a set of kinds of events, costs nothing where it would not have listened. One that
has a method `sending` gives a context that each request is sent in, if it hears `Finished`.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ratelimit.limits.drift import Change


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a lane, at a time of the loop's clock."""

    lane: str
    at: float


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """A request has come in and waits its turn."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """The head of the lane waits for a limit until a moment that is known."""

    limit: str
    until: float


@dataclass(frozen=True, slots=True)
class Granted(Event):
    """A request may leave; it has waited so many seconds, last of all for this."""

    waited: float
    tokens: float
    waited_for: str | None = None


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """A turn has ended: used, unsent, refused, failed or unknown."""

    how: str
    tokens: float


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The server has refused a request because of a limit."""

    limit: str | None
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """A limit is not as it was: retuned, drifted, cooled down, its burst shrunk, its share or reserve adapted."""

    change: Change


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The lane waits long: for a day's limit, or as long as the service told it to."""

    limit: str
    until: float


@dataclass(frozen=True, slots=True)
class ServiceDown(Event):
    """Most attempts fail: from now on only single requests go out, to see; `error` is how the last one failed."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class ServiceBack(Event):
    """The service answers again."""


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """What no retry can cure: no credits, a rejected key."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a request."""

    began: float
    ended: float
    status: int | None  # None: there was no answer
    error: str | None


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """A request is done with, all its attempts included: answered, or given up for an error."""

    model: str
    path: str
    service_tier: str | None
    began: float
    attempts: tuple[Attempt, ...]
    error: str | None
    input_tokens: int
    output_tokens: int
    cost: float | None  # dollars; None where the tables have no price
    reply_model: str | None
    reply_id: str | None


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something about how limits are shared that a person may want to know, said once."""

    text: str


Observer = Callable[[Event], None]
Observers = Observer | Iterable[Observer] | None
"""What a front door takes: one, several or none."""


class Audience:
    """Who is told of what."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        observers = tuple(observers)
        self._observers = tuple((observer, getattr(observer, "hears", None)) for observer in observers)
        self._around = tuple(
            around
            for observer, kinds in self._observers
            if Finished in (kinds or ()) and callable(around := getattr(observer, "sending", None))
        )
        self._heard = {kind for _, kinds in self._observers for kind in kinds or ()}
        self._hears_all = any(kinds is None for _, kinds in self._observers)

    def __contains__(self, kind: type[Event]) -> bool:
        return self._hears_all or kind in self._heard

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Be in the contexts that observers want a request to be sent in."""
        with ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around())
            yield

    def tell(self, event: Event, loop: AbstractEventLoop) -> None:
        """Tell everybody who hears such events; whatever an onlooker stumbles over, the lane goes on."""
        for observer, kinds in self._observers:
            if kinds is None or type(event) in kinds:
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - an onlooker may be anybody's
                    loop.call_exception_handler({"message": f"observer of lane {event.lane}", "exception": error})
