"""Recipes: TOML in, layered, with the origin of every value. Unknown keys are errors.

A recipe has a few keys of its own (`Header`) and one table per step, whose keys are that step's `Settings`. Tables
named after a family (`[sd15.train]`) hold what differs there. Layers, later ones win:
defaults < lorafactory.toml < recipe < lora.toml < command line.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafactory.errors import Problem, SettingsError

Kind = Literal["person", "character", "style", "object"]
Prediction = Literal["epsilon", "v_prediction"]
Tables = dict[str, dict[str, Any]]


class Header(BaseModel):
    """The keys of a recipe or `lora.toml` that belong to no step."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, populate_by_name=True, frozen=True)

    recipe: str = "portrait"
    """The recipe below this file: a name from `lora recipe list`, or a path."""
    base: str | None = None
    """The model trained on: part of a file name under `models`, a folder, a `.safetensors` file or `pocket`."""
    vae: str | None = None
    """A VAE instead of the base's own, for bases without one: a `.safetensors` file or a folder."""
    prediction: Prediction | None = None
    """What the base was taught to answer, where it does not say so itself: `epsilon` or `v_prediction`."""
    kind: Kind = "person"
    """What is learned; it chooses repeats, flipping and prompts."""
    class_: str = Field("", alias="class")
    """The plain word for it, such as `woman`, `dog` or `watercolour`."""
    trigger: str = ""
    """The token that calls it; made from the name when `lora.toml` is first written."""
    wait_before: str = ""
    """A step before which a job of the queue waits until somebody has looked and typed `lora make NAME`."""


@dataclass(frozen=True)
class Layer:
    """One source of values: where it came from, and what it says."""

    origin: str
    header: dict[str, Any] = field(default_factory=dict)
    tables: Tables = field(default_factory=dict)
    families: dict[str, Tables] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """The effective settings: the header, and per step the values that differ from its defaults."""

    header: Header
    tables: Tables
    origins: dict[str, str]
    """`table.key` (or `key`) to the layer that set it."""

    def table(self, step: str) -> dict[str, Any]:
        return self.tables.get(step, {})


def read(path: Path, steps: Collection[str], families: Collection[str], extra: Collection[str] = ()) -> Layer:
    """Read one TOML file; raise SettingsError with every key that nothing knows.

    `extra` are top-level keys that are the caller's own (`models` and `publish_to` in lorafactory.toml).
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    data = {k: v for k, v in data.items() if k not in extra}
    return split(str(path), data, steps, families)


def split(origin: str, data: Mapping[str, Any], steps: Collection[str], families: Collection[str]) -> Layer:
    """Sort top-level keys into header, step tables and family tables."""
    layer = Layer(origin)
    keys = {f.alias or name for name, f in Header.model_fields.items()}
    unknown = []
    for key, value in data.items():
        if key in keys:
            layer.header[key] = value
        elif key in steps and isinstance(value, dict):
            layer.tables[key] = value
        elif key in families and isinstance(value, dict):
            layer.families[key] = value
            unknown += [f"{key}.{k}" for k in value if k not in steps]
        else:
            unknown.append(key)
    if unknown:
        known = [*keys, *steps, *families]
        raise SettingsError("\n".join(unknown_key(origin, key, known) for key in unknown))
    return layer


def unknown_key(origin: str, key: str, known: Iterable[str]) -> str:
    """Say that `key` is unknown, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(key.rpartition(".")[2], known, 1)
    hint = f"did you mean `{near[0]}`?" if near else "known are: " + ", ".join(known)
    return f"{origin}: unknown key `{key}`: {hint}"


def combine(layers: Iterable[Layer], families: Collection[str] = ()) -> Recipe:
    """Lay the layers over each other, each one's family tables over its own plain tables."""
    header: dict[str, Any] = {}
    tables: Tables = {}
    origins: dict[str, str] = {}
    for layer in layers:
        header |= layer.header
        origins |= dict.fromkeys(layer.header, layer.origin)
        for source in (layer.tables, *(layer.families.get(f, {}) for f in families)):
            for step, values in source.items():
                tables.setdefault(step, {}).update(values)
                origins |= {f"{step}.{key}": layer.origin for key in values}
    try:
        return Recipe(Header.model_validate(header), tables, origins)
    except ValidationError as error:
        problems = say_invalid(error, {k: origins.get(k, "") for k in header})
        raise SettingsError("\n".join(p.message for p in problems)) from error


def say_invalid(error: ValidationError, origins: Mapping[str, str], table: str = "") -> list[Problem]:
    """Turn pydantic's findings into one sentence each: file, key, value, what is allowed."""
    problems = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        full = f"{table}.{key}" if table else key
        origin = origins.get(full) or origins.get(key) or "settings"
        value = "" if finding["type"] == "extra_forbidden" else f" = {finding['input']!r}"
        said = (
            "is not a setting"
            if finding["type"] == "extra_forbidden"
            else finding["msg"].removeprefix("Value error, ").lower()
        )
        problems.append(Problem(f"{origin}: `{full}`{value}: {said}", error=SettingsError))
    return problems
