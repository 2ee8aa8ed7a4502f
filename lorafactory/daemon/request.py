"""What a drop's lora.toml asks for. It may come from anybody who can write to the inbox, so it sets little.

Its own keys are `recipe`, `base`, `vae`, `prediction`, `trigger`, `kind`, `class`, the steps' tables, and `new = true`
for a LoRA beside the one of that name. No step's setting may name a place on this machine.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafactory import recipe, step, steps
from lorafactory.daemon.quarantine import Refused
from lorafactory.daemon.stability import SETTINGS
from lorafactory.errors import SettingsError
from lorafactory.workspace import safe_name

LARGEST = 64 << 10
"""Bytes; what people write has a few hundred."""
LONGEST = 10_000
"""Characters of one value."""
_PLACE = re.compile(r"^\s*([/\\~]|[A-Za-z]:[/\\]|file:)|(^|[/\\])\.\.([/\\]|$)")
_SHARE = re.compile(r"^\s*([/\\]{2}|\w{2,}:)|(^|[/\\])\.\.([/\\]|$)")


@dataclass(frozen=True)
class Request:
    """Settings by dotted key, as `settings.write` takes them."""

    values: dict[str, Any] = field(default_factory=dict)
    new: bool = False
    draws: bool = False
    """It has [generate], so no picture needs to come with it."""


def read(folder: Path, recipes: Collection[str]) -> Request:
    """Read the lora.toml of a drop; Refused lists all that is wrong with it."""
    path = folder / SETTINGS
    if not path.is_file():
        return Request()
    try:
        if path.stat().st_size > LARGEST:
            raise SettingsError(f"{path.stat().st_size} bytes, at most {LARGEST}")
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        new = data.pop("new", False)
        layer = recipe.split(SETTINGS, data, steps.names(), ())
        told = recipe.combine([layer])
        wrong = [*doubts(layer, recipes), *([] if isinstance(new, bool) else ["`new` is true or false"])]
        wrong += wrong_tables(told)
    except RecursionError:
        wrong = ["it is nested too deeply"]
    except ValueError as error:
        wrong = [f"it is not TOML: {error}"]
    except SettingsError as error:
        wrong = str(error).splitlines()
    if wrong:
        raise Refused("bad_settings", f"{SETTINGS} asks for what a drop may not or cannot have.", wrong)
    values = layer.header | {f"{t}.{k}": v for t, table in layer.tables.items() for k, v in table.items()}
    return Request(values, new, bool(layer.tables.get("generate")))


def wrong_tables(told: recipe.Recipe) -> list[str]:
    """What the steps say of their tables."""
    wrong = []
    for name in told.tables:
        try:
            step.settings_of(steps.get(name), told)
        except SettingsError as error:
            wrong += str(error).splitlines()
    return wrong


def doubts(layer: recipe.Layer, recipes: Collection[str]) -> list[str]:
    """Values that reach for places on this machine or on others, or would be a folder's name and cannot."""
    wrong = []
    for key, value in texts({**layer.header, **layer.tables}):
        if key in ("base", "vae"):
            if _SHARE.search(value):
                wrong.append(f"`{key}` = {value!r}: a file of this machine, or part of its name")
        elif _PLACE.search(value):
            wrong.append(
                f"`{key}` = {value!r}: no places of this machine in a drop; write it into the LoRA's lora.toml"
            )
        if len(value) > LONGEST or any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in value if c not in "\n\t"):
            wrong.append(f"`{key}`: too long, or with characters that do not show")
    named = layer.header.get("recipe")
    if isinstance(named, str) and named not in recipes:
        wrong.append(f"`recipe` = {named!r}: there are {', '.join(recipes)}")
    for key in ("trigger", "class"):
        word = layer.header.get(key)
        if isinstance(word, str) and word.strip() and ("/" in word or safe_name(word) != word):
            wrong.append(f"`{key}` = {word!r}: a word, without the characters of paths")
    return wrong


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a table, also those of lists and keys, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)
