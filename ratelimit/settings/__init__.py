"""Settings: flags, environment, .env and TOML files in, one frozen plain value out.

pydantic-settings reads, merges and checks what they say, here and nowhere else. It is imported when settings load,
for it takes longer than a whole `ratelimit --help`. What leaves is a plain value that knows nothing of it.

An API key is wrapped as it is read, before anything can fail: it is in no message, no repr, and no local variable that
a traceback could show. The value of a name that is not known is wrapped too, for it may be a key under a misspelt name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ratelimit.secret import Secret
from ratelimit.settings.declared import AZURE_KEY, FIELDS, NAMES, PREFIX, TYPES, VENDOR, Settings, option
from ratelimit.settings.places import dotenv, environment, files, named, spelt, wrapped
from ratelimit.settings.rules import check, refused

__all__ = ["AZURE_KEY", "NAMES", "PREFIX", "VENDOR", "Secret", "Settings", "load_settings"]


def load_settings(**flags: object) -> Settings:
    """Return the settings as flags (None: not given), environment, working directory and defaults say, in that order.

    Raises `BadSettings` for a value that cannot be and a name that is not known.
    """
    flags = {name: wrapped(name, value) for name, value in flags.items() if value is not None}
    variables, in_dotenv, in_files = environment(), dotenv(), files()
    given = named("{}", flags, option)
    azure = any("azure_api_version" in place.values for place in (given, *in_files)) or any(
        f"{PREFIX}AZURE_API_VERSION" in each for each in (variables, in_dotenv)
    )
    places = [
        given,
        spelt("{} in the environment", variables, azure=azure),
        spelt("{} in .env", in_dotenv, azure=azure),
        *in_files,
    ]
    origins = {name: place.where[name] for place in reversed(places) for name in place.values}
    values, wrong = _validated([place.values for place in places])
    if wrong is not None:
        raise refused(wrong, origins[wrong], next(p.values[wrong] for p in places if wrong in p.values))
    settings = Settings(**values, origins=origins)
    check(settings)
    return replace(settings, base_url=settings.base_url.rstrip("/"))


def _validated(sources: Iterable[Mapping[str, object]]) -> tuple[dict[str, Any], str | None]:
    """Return the merged and checked values, or the name of the first setting whose value cannot be.

    An error of pydantic's holds the value it complains about, so none leaves this function.
    """
    from pydantic import Field, ValidationError, create_model  # noqa: PLC0415 - slow, so not for those who only import
    from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource  # noqa: PLC0415 - as above

    class Sourced(BaseSettings, strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, dict(values)) for values in sources)

    declared: dict[str, Any] = {
        name: (TYPES[name], Field(each.default, **each.metadata["bounds"])) for name, each in FIELDS.items()
    }
    try:
        model = create_model("Model", __base__=Sourced, **declared)()
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors(include_input=False)}
        return {}, next(name for name in NAMES if name in wrong)
    return {name: getattr(model, name) for name in NAMES}, None
