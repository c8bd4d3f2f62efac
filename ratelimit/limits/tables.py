"""The files that say what each model may be asked for, read into plain values.

What a file must look like stands here as pydantic models, which go no further than this module: they forbid unknown
keys and say which keys a file gave, so that a later file changes single figures of an earlier one. Every message is
ours and names the file, the table, the key, and what to write; what a file holds is shown escaped.
"""

from __future__ import annotations

import difflib
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PlainValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError

from ratelimit.errors import BadTable, printable, toml_key
from ratelimit.limits.merging import State, over, place, table
from ratelimit.limits.tiers import Grade, Table
from ratelimit.limits.toml import parse_toml

_MOST = 10**12
"""No amount is as large; the largest published is 15e9."""


def read(shipped: Path, *files: Path) -> Table:
    """The models of a file that ships, and of others over it in turn; BadTable says what is wrong with one."""
    state = _shipped(shipped)
    for file in files:
        state = over(state, parse(file), file)
    return state.table()


@cache
def _shipped(file: Path) -> State:
    return over(State(), parse(file), file)


def _wrong(problem: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("ours", "ours", {"problem": problem, "remedy": remedy})


def _shown(value: object) -> str:
    """A value of TOML as a message shows it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{printable(value, 60)}"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() if value.bit_length() > 200:
            return "a number of more than 60 digits"
        case _:
            return printable(str(value), 60)


def _whole(value: object) -> int | None:
    if value == "none":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST:
        return value
    raise _wrong(
        f"{_shown(value)} is no whole number from 1 to {_MOST - 1:,}",
        'write one without quotes, such as 500, or "none" where there is no such limit',
    )


def _usd(value: object) -> float | None:
    if value == "none":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST:
        return float(value)
    raise _wrong(
        f"{_shown(value)} is no price in USD per million tokens",
        'write a number of at least 0 without quotes, such as 0.15, or "none" where it is not known',
    )


def _part(value: object) -> float | None:
    if value == "none":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise _wrong(
        f"{_shown(value)} is no part of a price",
        'write a number from 0 to 1 without quotes, such as 0.5 for half the price, or "none"',
    )


def _yes_or_no(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(f"{_shown(value)} is neither true nor false", "write true or false, without quotes")


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise _wrong(f"{_shown(value)} is not text of one line", "write it in quotes, without control characters")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_text(each) for each in value)
    raise _wrong(f"{_shown(value)} is not a list", 'write a list of texts in quotes, such as ["one", "two"]')


def _names(value: object) -> tuple[str, ...]:
    names = _texts(value)
    for at, name in enumerate(names):
        if " " in name or name in names[:at]:
            fault = "has a space in it" if " " in name else "stands there twice"
            raise _wrong(f"{_shown(name)} {fault}", "write the names of models as requests use them, each once")
    return names


def _day(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise _wrong(f"{_shown(value)} is not a day", "write it without quotes, such as 2026-11-21")


def _grade(value: object) -> Grade:
    match value:
        case "documented" | "observed" | "inferred" | "yours":
            return value
        case _:
            raise _wrong(f"{_shown(value)} is not a grade", 'write "documented", "observed", "inferred" or "yours"')


def _url(value: object) -> str:
    """A base URL; a wrong one is not shown, for it may hold a key."""
    try:
        parts = urlsplit(value) if isinstance(value, str) and value.isprintable() and " " not in value else None
        usable = parts and parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        parts, usable = None, False
    if not parts or not usable or parts.username is not None or parts.query or parts.fragment:
        raise _wrong(
            "this is not a base URL",
            'write one with http:// or https:// and no key, such as "https://api.groq.com/openai/v1"',
        )
    return str(value).rstrip("/")


_Whole: TypeAlias = Annotated[int | None, PlainValidator(_whole)]
_Usd: TypeAlias = Annotated[float | None, PlainValidator(_usd)]
_Text: TypeAlias = Annotated[str, PlainValidator(_text)]
_Names: TypeAlias = Annotated[tuple[str, ...], PlainValidator(_names)]
_Texts: TypeAlias = Annotated[tuple[str, ...], PlainValidator(_texts)]


class _Table(BaseModel, extra="forbid"):
    """A table of the file, which knows what it was given."""

    @classmethod
    def keys(cls) -> list[str]:
        """The keys it may have."""
        return [field.alias or key for key, field in cls.model_fields.items()]

    def given(self) -> dict[str, Any]:
        """What the file said, as plain values."""
        fields = type(self).model_fields.items()
        return {
            (field.alias or key): _plain(getattr(self, key)) for key, field in fields if key in self.model_fields_set
        }


def _plain(value: object) -> object:
    if isinstance(value, _Table):
        return value.given()
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


class _Limits(_Table):
    rpm: _Whole = None
    rpd: _Whole = None
    tpm: _Whole = None
    batch_queue: _Whole = None


def _tier(value: object, handler: ValidatorFunctionWrapHandler) -> _Limits | None:
    if value == "not supported":
        return None
    if isinstance(value, dict):
        limits: _Limits = handler(value)
        return limits
    raise _wrong(
        f'{_shown(value)} is neither a table nor "not supported"',
        'write { rpm = 500, tpm = 200_000 }, or "not supported" where the tier cannot use the model',
    )


_Tier: TypeAlias = Annotated[_Limits | None, WrapValidator(_tier)]


class _Tiers(_Table):
    free: _Tier = None
    tier_1: _Tier = Field(None, alias="tier-1")
    tier_2: _Tier = Field(None, alias="tier-2")
    tier_3: _Tier = Field(None, alias="tier-3")
    tier_4: _Tier = Field(None, alias="tier-4")
    tier_5: _Tier = Field(None, alias="tier-5")


class _Prices(_Table):
    input: _Usd = None
    cached_input: _Usd = None
    output: _Usd = None
    batch_discount: Annotated[float | None, PlainValidator(_part)] = None
    fine_tuned_input: _Usd = None
    fine_tuned_output: _Usd = None
    training: _Usd = None


class _Sources(_Table):
    limits: _Text = ""
    sizes: _Text = ""
    prices: _Text = ""


class _Model(_Table):
    snapshots: _Names = ()
    aliases: _Names = ()
    context_window: _Whole = None
    max_output: _Whole = None
    endpoints: _Texts = ()
    reasoning: Annotated[bool, PlainValidator(_yes_or_no)] = False
    prices: _Prices | None = None
    limits: _Limits | None = None
    tiers: _Tiers | None = None
    sources: _Sources | None = None
    notes: _Texts = ()
    provider: _Text = ""
    long_context_of: _Text = ""
    long_context_over: _Whole = None


class _Provider(_Table):
    base_url: Annotated[str, PlainValidator(_url)]


class _Source(_Table):
    text: _Text
    as_of: Annotated[date | None, PlainValidator(_day)] = None
    grade: Annotated[Grade, PlainValidator(_grade)] = "yours"


class _File(_Table):
    models: dict[str, _Model] = {}
    providers: dict[str, _Provider] = {}
    sources: dict[str, _Source] = {}
    settings: Any = None  # another module's business


def parse(file: Path) -> dict[str, Any]:
    """What a file says, as plain values in the shape of the file; what it leaves out is left out."""
    try:
        return _File.model_validate(_toml(file)).given()
    except ValidationError as error:
        raise _bad(file, error.errors(include_url=False)[0]) from None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_bytes())
    except FileNotFoundError:
        raise BadTable(file, "", "there is no such file", "check the path, or leave the setting out") from None
    except IsADirectoryError:
        raise BadTable(file, "", "this is a directory", "name the TOML file in it") from None
    except OSError as error:
        raise BadTable(file, "", f"it cannot be read ({error.strerror})", "see that this user may read it") from None
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1:,} is not UTF-8"
        raise BadTable(file, "", problem, "save the file with the encoding UTF-8") from None
    except ValueError as error:  # not TOML, or a number with more digits than Python reads
        raise BadTable(file, "", f"this is not TOML ({printable(str(error), 200)})", "mend that place") from None
    except RecursionError:
        raise BadTable(file, "", "its values are nested too deeply", "write no more than tables in tables") from None


def _bad(file: Path, error: ErrorDetails) -> BadTable:
    """What pydantic found, in our words."""
    path = [str(each) for each in error["loc"]]
    match error["type"]:
        case "ours":
            return BadTable(file, place(*path), error["ctx"]["problem"], error["ctx"]["remedy"])
        case "extra_forbidden":
            *path, key = path
            known = _kind(path).keys()
            near = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.6)
            remedy = f"did you mean {near[0]}?" if near else "take it out;"
            problem = f"{toml_key(key)} is not a key of {'this table' if path else 'such a file'}"
            return BadTable(file, table(*path), problem, f"{remedy} The keys are {', '.join(known)}")
        case "missing":
            *path, key = path
            return BadTable(file, table(*path), f"{key} is missing", f'write {key} = "..." under it')
        case _:
            remedy = f"write {table(*path)} on a line of its own, and its keys below"
            return BadTable(file, place(*path), f"{_shown(error['input'])} is not a table", remedy)


def _kind(path: list[str]) -> type[_Table]:
    """What kind of table stands at a path."""
    match path:
        case []:
            return _File
        case ["providers", _]:
            return _Provider
        case ["sources", _]:
            return _Source
        case [_, _]:
            return _Model
        case [_, _, "prices"]:
            return _Prices
        case [_, _, "sources"]:
            return _Sources
        case [_, _, "tiers"]:
            return _Tiers
        case _:
            return _Limits
