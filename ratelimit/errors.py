"""Every error a user can meet.

One base, so that a program can catch the project's errors in one line; one class for each thing a program may want to
tell apart. A message names the thing, the value, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence


class RateLimitError(Exception):
    """Anything this project raises on purpose; `exit_code` is what the command line ends with because of it."""

    exit_code = 1


class NeverFits(RateLimitError):
    """The request is larger than a whole limit; waiting cannot help."""

    exit_code = 2

    def __init__(self, limit: str, amount: float, most: float) -> None:
        super().__init__(
            f"this request needs {amount:,.10g} of {limit}, which allows at most {most:,.10g} at once; "
            f"lower max_tokens, split the prompt, or choose a higher tier"
        )
        self.limit = limit
        self.amount = amount
        self.most = most


class AlreadySettled(RateLimitError):
    """A turn or hold was ended twice; the second would corrupt what the first has settled."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} has already ended as {how!r}; end each one exactly once")


class WaitedTooLong(RateLimitError):
    """A request has waited for its turn as long as its caller allowed; it was not sent, and nothing was taken."""

    def __init__(self, lane: str, seconds: float, others: int, waiting_for: str | None) -> None:
        super().__init__(
            f"no turn in lane {lane} within {seconds:.10g} s: it waits for {waiting_for or 'its turn'}, "
            f"{others:,} others with it; raise wait_at_most, lower its priority number, or send less at once"
        )
        self.lane = lane
        self.seconds = seconds
        self.others = others
        self.waiting_for = waiting_for


class Deadlock(RateLimitError):
    """A virtual clock found that none of its tasks can ever run again."""

    def __init__(self, now: float, why: str, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: {why}; waiting: {_some(tasks)}; give what they wait for a timeout, "
            f"or use the ordinary loop if it comes from another process"
        )
        self.now = now
        self.tasks = tuple(tasks)


class Livelock(RateLimitError):
    """A virtual clock cannot move because its tasks never stop being ready."""

    def __init__(self, now: float, tasks: Sequence[str]) -> None:
        super().__init__(
            f"virtual time stands at {now:.10g} s: tasks keep running without I/O and never wait; alive: "
            f"{_some(tasks)}; let the one that polls await an event or asyncio.sleep of more than 0 s"
        )
        self.now = now
        self.tasks = tuple(tasks)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "no task") + more


class BadRequest(RateLimitError):
    """The request cannot succeed as it stands; it was not sent, and nothing was charged."""

    exit_code = 2


class InputTooLong(BadRequest):
    """The input, or the input and the output asked for, is longer than the model's context window."""

    def __init__(self, model: str, tokens: int, window: int, cap: int = 0) -> None:
        asked = f"and up to {cap:,} of output are {tokens + cap:,}" if cap else "are"
        super().__init__(
            f"the {tokens:,} tokens of input {asked} more than the context window of {model}, {window:,}; "
            f"{'lower the cap on output, ' if cap else ''}shorten or split the input, "
            f"or choose a model with a larger window"
        )
        self.model = model
        self.tokens = tokens
        self.window = window
        self.cap = cap


class OutputTooLong(BadRequest):
    """The output asked for is longer than the model ever writes."""

    def __init__(self, model: str, cap: int, most: int) -> None:
        super().__init__(
            f"the request asks for up to {cap:,} tokens of output, but {model} writes at most {most:,}; "
            f"lower max_completion_tokens (max_output_tokens, max_tokens) to {most:,} or leave it out"
        )
        self.model = model
        self.cap = cap
        self.most = most


class BadMockOption(RateLimitError):
    """The mock server was asked for something it cannot do; nothing was started."""

    exit_code = 2

    def __init__(self, option: str, value: object, remedy: str) -> None:
        super().__init__(f"{option} cannot be {value!r}: {remedy}")
        self.option = option
        self.value = value


class BadTable(RateLimitError):
    """A file of limits says something that cannot be meant; nothing of it was used."""

    exit_code = 2

    def __init__(self, file: object, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{printable(f'{file}, {where}' if where else str(file))}: {problem}; {remedy}")
        self.file = file
        self.where = where


class UnknownModel(RateLimitError):
    """No table has limits for this model, so none can be kept."""

    exit_code = 2

    def __init__(self, model: str, near: Sequence[str]) -> None:
        meant = f"did you mean {' or '.join(printable(each) for each in near)}? If not, " if near else ""
        super().__init__(
            f'no table has limits for the model "{printable(model, 100)}"; {meant}give its limits in ratelimit.toml '
            f"under [models.{toml_key(model)}.tiers.tier-1], such as rpm = 500"
        )
        self.model = model
        self.near = tuple(near)


class UnknownTier(RateLimitError):
    """There is no usage tier of this name."""

    exit_code = 2

    def __init__(self, tier: str, known: Sequence[str]) -> None:
        super().__init__(f'there is no usage tier "{printable(tier, 100)}"; choose one of {", ".join(known)}')
        self.tier = tier


class ModelNotInTier(RateLimitError):
    """This tier cannot use the model, or nobody knows what it allows."""

    exit_code = 2

    def __init__(self, model: str, tier: str, able: Sequence[str], *, known: bool) -> None:
        """`able` are the tiers with figures, the lowest first; `known` says that this tier is known to have none."""
        problem = f"{model} cannot be used on {tier}" if known else f"nobody has said what {tier} allows for {model}"
        lowest = (
            f"the lowest tier {'that can' if known else 'with figures'} is {able[0]}: choose it, or" if able else ""
        )
        super().__init__(
            f"{printable(problem)}; {lowest or 'no tier can:'} give this tier's limits in ratelimit.toml under "
            f"[models.{toml_key(model)}.tiers.{tier}]"
        )
        self.model = model
        self.tier = tier
        self.able = tuple(able)


class BadSettings(RateLimitError):
    """A setting has a value that cannot be, or a name that nobody knows; nothing was started."""

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{printable(where)} {problem}: {remedy}")
        self.where = where


class BadClient(RateLimitError):
    """What was given to be limited cannot be; nothing was changed."""

    exit_code = 2

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        super().__init__(f"{what} {problem}; {remedy}")
        self.what = what


class RequestInvalid(BadRequest):
    """The body is not something that can be sent: not JSON, no model, or not of the kind asked for."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")


class NotAnswered(RateLimitError):
    """A request got no usable answer from the service: no connection, no reply, a broken reply."""

    def __init__(self, what: str, *, sent: bool) -> None:
        billed = "it may have been billed" if sent else "it was not sent"
        super().__init__(f"{what}; {billed}. If this persists, look at the network, the base URL and the time-outs")
        self.sent = sent


class RequestFailed(RateLimitError):
    """The service has answered, and the answer is no."""

    def __init__(self, status: int, code: str | None, message: str, *, request_id: str | None = None) -> None:
        named = f"{status} {code}" if code else str(status)
        super().__init__(f"the service answered {named}: {printable(message)}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class JobStopped(RateLimitError):
    """Nothing that is left can succeed until somebody acts; what is left is untouched."""

    exit_code = 3


class QuotaExhausted(JobStopped):
    """The account has no credits left, or has reached a spending limit."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(
            f"the account's quota is used up ({code}): {printable(message)} "
            f"Add credits or raise the spending limit, then run again"
        )
        self.code = code


class KeyRejected(JobStopped):
    """The service does not accept the key, or not for this."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(
            f"the service rejected the API key ({status}): {printable(message)} "
            f"Set OPENAI_API_KEY (and OPENAI_ORG_ID, OPENAI_PROJECT_ID) to ones that may use this model, then run again"
        )
        self.status = status


class HostNotTrusted(JobStopped):
    """The connection to the service cannot be trusted, so the key was not sent."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(
            f"{host} is not to be trusted with the key: {printable(why)}; check the base URL and the proxy"
        )
        self.host = host


class DeadlinePassed(RateLimitError):
    """A request was not answered by its deadline."""

    exit_code = 3

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(f"no answer within the deadline of {seconds:g} s: {why}; allow more time or send less at once")


def printable(text: str, most: int = 500) -> str:
    """Return text from elsewhere so that a terminal shows it and does nothing else."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text[:most]
    )
    return f"{shown}..." if len(text) > most else shown


class InputUnreadable(RateLimitError):
    """The file of requests cannot be read."""

    exit_code = 2

    def __init__(self, path: str, why: str) -> None:
        shown = "standard input" if path == "-" else printable(path)
        super().__init__(f"cannot read {shown}: {printable(why)}; name a file of requests, one JSON object a line")
        self.path = path


class OutputUnusable(RateLimitError):
    """The output, or a file beside it, is not one a job can be continued in."""

    exit_code = 2

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(f"cannot use {printable(path)}: {printable(why)}; {remedy}")
        self.path = path


class OutputFailed(JobStopped):
    """A result could not be written; the run ends, and continues from the last whole line."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"writing {printable(path)} failed: {printable(why)}; make room or choose another place, then run again: "
            f"every line that was written is whole"
        )
        self.path = path


class AlreadyRunning(RateLimitError):
    """Another run is at work on the same files."""

    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(f"another run is writing {printable(path)}; wait for it to end, or choose another output")
        self.path = path


class RequestsChanged(RateLimitError):
    """The file holds other requests under ids that have been answered."""

    exit_code = 2

    def __init__(self, count: int, first: str, line: int) -> None:
        super().__init__(
            f"{count:,} requests have changed since they were sent, the first on line {line} ({printable(first)}); "
            f"use --force to keep the answers there are, or choose another output"
        )
        self.count = count


def toml_key(name: str) -> str:
    """A name as a key of TOML, in quotes where it needs them, as a terminal may show it."""
    if name and len(name) <= 100 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        return name
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(quoted, 100)}"'


class NoKey(RateLimitError):
    """No API key was found, and the service will not answer without one."""

    exit_code = 2

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} wants an API key and none was found; set OPENAI_API_KEY, or --base-url to a server of yours"
        )
        self.host = host
