"""One file of limits laid over others: single figures change, and what does not fit together is refused.

A file comes here as plain values in its own shape, each value already of the right kind. What is left to check is what
takes more than one value to see: names that two models claim, prices with one half missing, a source nobody described.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ratelimit.errors import BadTable, printable, toml_key
from ratelimit.limits.tiers import TIERS, Group, Model, Prices, Source, Table, TierLimits

_SIZES = ("context_window", "max_output")
_SAME = ("snapshots", "aliases", *_SIZES, "endpoints", "reasoning", "notes", "long_context_over")
_LEAST_PRICES = ("input", "output")


@dataclass(frozen=True, slots=True)
class State:
    """What the files so far have said; models still lack what they have from others."""

    models: Mapping[str, Model] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)

    def table(self) -> Table:
        """The models, each with what it has from its provider and from the model it is the long-context part of."""
        return Table({name: self._whole(model) for name, model in self.models.items()})

    def _whole(self, model: Model) -> Model:
        base = self.models[model.long_context_of] if model.long_context_of else model
        provider = model.provider or base.provider
        return replace(
            model,
            context_window=model.context_window or base.context_window,
            max_output=model.max_output or base.max_output,
            prices=model.prices or base.prices,
            endpoints=model.endpoints or base.endpoints,
            reasoning=model.reasoning or base.reasoning,
            sources={**base.sources, **model.sources},
            provider=provider,
            base_url=self.providers[provider] if provider else None,
        )


def place(*path: str) -> str:
    """A key as a message names it: its table as TOML writes it, then the key."""
    return f"{table(*path[:-1])} {toml_key(path[-1])}".lstrip()


def table(*path: str) -> str:
    """A table as TOML writes it."""
    return f"[{'.'.join(toml_key(each) for each in path)}]" if path else ""


def over(state: State, said: Mapping[str, Any], file: Path) -> State:
    """What a file says over what the files before it have said."""
    providers = {**state.providers, **{name: each["base_url"] for name, each in said.get("providers", {}).items()}}
    sources = {**state.sources, **{name: Source(**each) for name, each in said.get("sources", {}).items()}}
    models = dict(state.models)
    parts = said.get("models", {})
    for name, part in parts.items():
        models[name] = _Merge(file, name, part, models.get(name), providers, sources).model()
    _refuse_claims(file, parts, models)
    for name in parts:
        _refuse_loose_ends(file, models[name], models)
    return State(models, providers, sources)


@dataclass(frozen=True, slots=True)
class _Merge:
    """One model of one file, over what was known of it."""

    file: Path
    name: str
    part: Mapping[str, Any]
    old: Model | None
    providers: Mapping[str, str]
    sources: Mapping[str, Source]

    def model(self) -> Model:
        if not self.name or " " in self.name or not self.name.isprintable():
            raise self.bad((), "this is not the name of a model", "write the name as requests use it, in quotes")
        first = table("models", self.name, "tiers", "tier-1")
        if not self.part:
            raise self.bad((), "it says nothing", f"write limits under {first}, such as rpm = 500")
        tiers = self._tiers()
        if not tiers:
            raise self.bad((), "it is a new model without limits", f"write some under {first}, such as rpm = 500")
        changed: dict[str, Any] = {key: self.part[key] for key in _SAME if key in self.part}
        changed |= {key: self.part[key] for key in ("provider", "long_context_of") if key in self.part}
        if changed.get("provider", "") not in {"", *self.providers}:
            provider = changed["provider"]
            remedy = f"write its base_url under {table('providers', provider)}{_or_one_of(self.providers)}"
            raise self.bad(("provider",), f"there is no provider {toml_key(provider)}", remedy)
        return replace(
            self.old or Model(self.name), tiers=tiers, prices=self._prices(), sources=self._sources(), **changed
        )

    def bad(self, path: tuple[str, ...], problem: str, remedy: str) -> BadTable:
        where = place("models", self.name, *path) if path else table("models", self.name)
        return BadTable(self.file, where, problem, remedy)

    def _tiers(self) -> dict[str, TierLimits | None]:
        tiers = dict(self.old.tiers) if self.old else {}
        if "limits" in self.part:
            usable = [tier for tier in TIERS if not self.old or self.old.tiers.get(tier) is not None]
            for tier in usable:
                tiers[tier] = self._figures(tiers.get(tier), self.part["limits"], ("limits",))
        for tier, figures in self.part.get("tiers", {}).items():
            tiers[tier] = None if figures is None else self._figures(tiers.get(tier), figures, ("tiers", tier))
        return {tier: tiers[tier] for tier in TIERS if tier in tiers}

    def _figures(self, old: TierLimits | None, figures: Mapping[str, int | None], path: tuple[str, ...]) -> TierLimits:
        if not figures:
            remedy = 'write rpm, rpd, tpm or batch_queue, as a number or "none"'
            raise BadTable(self.file, table("models", self.name, *path), "it says nothing", remedy)
        return replace(old or TierLimits(), **figures)

    def _prices(self) -> Prices | None:
        old = self.old.prices if self.old else None
        if "prices" not in self.part:
            return old
        given = self.part["prices"]
        if old:
            given = {key: getattr(old, key) for key in Prices.__slots__} | given
        for key in _LEAST_PRICES:
            if given.get(key) is None:
                remedy = f"write {key} in USD per million tokens, 0 where it costs nothing"
                raise BadTable(self.file, table("models", self.name, "prices"), f"{key} is missing", remedy)
        return Prices(**{"cached_input": None, **given})

    def _sources(self) -> dict[Group, Source]:
        known = dict(self.old.sources) if self.old else {}
        named = self.part.get("sources", {})
        touched: dict[Group, bool] = {
            "limits": not self.part.keys().isdisjoint({"limits", "tiers"}),
            "sizes": not self.part.keys().isdisjoint(_SIZES),
            "prices": "prices" in self.part,
        }
        for group, is_touched in touched.items():
            if group in named:
                known[group] = self._source(group, named[group])
            elif is_touched:
                file = printable(self.file.name, 60)
                before = known.get(group)
                known[group] = replace(before, text=f"{before.text}; changed in {file}") if before else Source(file)
        return known

    def _source(self, group: Group, name: str) -> Source:
        if name in self.sources:
            return self.sources[name]
        remedy = f"write its text under {table('sources', name)}{_or_one_of(self.sources)}"
        raise self.bad(("sources", group), f"there is no source {toml_key(name)}", remedy)


def _or_one_of(names: Mapping[str, object]) -> str:
    return f", or one of {', '.join(toml_key(name) for name in names)}" if names else ""


def _refuse_claims(file: Path, parts: Mapping[str, Any], models: Mapping[str, Model]) -> None:
    """Names belong to one model each: two would keep two counts of one limit."""
    owners = {name: model.name for model in models.values() if model.name not in parts for name in model.names}
    for model in (models[name] for name in parts):
        at, name = table("models", model.name), toml_key(model.name)
        if owner := owners.get(model.name):
            remedy = f"change the limits of both under {table('models', owner)}: all its names share them"
            raise BadTable(file, at, f"{name} is a name of {toml_key(owner)} already", remedy)
        for kind in ("aliases", "snapshots"):
            for each in getattr(model, kind):
                owner = model.name if each == model.name else owners.get(each)
                if owner:
                    remedy = "leave it out" if owner == model.name else "leave it with one of the two"
                    problem = f"{toml_key(each)} is a name of {toml_key(owner)} already"
                    raise BadTable(file, place("models", model.name, kind), problem, remedy)
                owners[each] = model.name
        owners[model.name] = model.name


def _refuse_loose_ends(file: Path, model: Model, models: Mapping[str, Model]) -> None:
    at = table("models", model.name)
    if model.long_context_of:
        base = models.get(model.long_context_of)
        if base is None or base.long_context_of:
            problem = f"there is no model {toml_key(model.long_context_of)} that could have a long-context part"
            raise BadTable(file, place("models", model.name, "long_context_of"), problem, "name one of the table")
        if model.long_context_over is None:
            raise BadTable(file, at, "long_context_over is missing", "write it in input tokens, such as 128_000")
        for other in models.values():
            if other.long_context_of == base.name and other is not model:
                problem = f"{toml_key(base.name)} has {toml_key(other.name)} for its long requests already"
                raise BadTable(file, place("models", model.name, "long_context_of"), problem, "change that one")
    elif model.long_context_over is not None:
        remedy = "write the model that shorter requests count against"
        raise BadTable(file, at, "long_context_over has no long_context_of", remedy)
