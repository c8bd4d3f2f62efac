"""Errors in how things were set up: settings, tables, tiers, models, options, clients."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.errors.root import JobStopped, RateLimitError, printable, toml_key


class BadSettings(RateLimitError):
    """A setting has a value that cannot be, or a name that nobody knows; nothing was started."""

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{printable(where)} {problem}: {remedy}")
        self.where = where


class NoKey(RateLimitError):
    """No API key was found, and the service will not answer without one."""

    exit_code = 2

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} wants an API key and none was found; set OPENAI_API_KEY, or --base-url to a server of yours"
        )
        self.host = host


class BadClient(RateLimitError):
    """What was given to be limited cannot be; nothing was changed."""

    exit_code = 2

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        super().__init__(f"{what} {problem}; {remedy}")
        self.what = what


class StoreUnusable(JobStopped):
    """The place where limits are to be shared cannot be used; nothing was sent."""

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"shared limits at {printable(where)}: {printable(problem)}; {remedy}")
        self.where = where


class SharedStoreAway(JobStopped):
    """The place where limits are to be shared does not answer, and nobody knows yet what our part would be."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"shared limits at {printable(where)}: {printable(why)}; start the store, or set RATELIMIT_SHARED=off "
            f"if no other program uses the key"
        )
        self.where = where


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
        self.near: tuple[str, ...] = tuple(near)


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
        self.able: tuple[str, ...] = tuple(able)


class PortTaken(RateLimitError):
    """A page was to be served on a port that cannot be had."""

    exit_code = 2

    def __init__(self, port: int, why: str) -> None:
        super().__init__(f"cannot serve on port {port} of this machine: {printable(why)}; choose another, or 0 for any")
        self.port = port
