"""Values as the tools write them: `k=v` in texts and lists, quotes, commas within values."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lorafactory.recipe_formats._receipt import Field

_BETWEEN = re.compile(r"""["']?[,\s]+["']?(?=[\w.]+\s*=)""")
"""Between two arguments: commas or blanks before the next name; `betas=0.9,0.99` holds a comma itself."""


def arguments(value: Any) -> dict[str, Any]:
    """`weight_decay=0.1 betas=0.9,0.99`, a list of such, or a table, as names and values; ValueError says what is not.

    A value is a number, a truth value, a word or a list of these; nothing of it is run.
    """
    if isinstance(value, Mapping):
        return {str(key): literal(held) for key, held in value.items()}
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    found = {}
    for part in _BETWEEN.split(text.strip().strip("\"'")):
        name, equals, held = part.partition("=")
        if part in ("", "(empty)"):
            continue
        if not equals:
            raise ValueError(f"{part!r} is not name=value")
        found[name.strip()] = literal(held)
    return found


def number(value: Any) -> float | None:
    """A number, also out of a text; None if it is none, or not finite."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def literal(value: Any) -> Any:
    """A text as the number, truth value or list that it spells; any other as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip(" \"'")
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    parts = list(found) if isinstance(found, list | tuple) else [found]
    if not all(isinstance(part, bool | int | float | str) for part in parts):
        return text
    return parts if isinstance(found, list | tuple) else found


def add(fields: dict[str, Field], name: str, shown: str, value: Any) -> None:
    """Enter a field; where the name is taken, as one that comes too late. One that is left empty gives way."""
    own, one, later = SYNONYMS.get(name, name), Field(shown, value), 2
    if own in fields and not fields[own].set:
        fields[own], one = one, fields[own]
    slot = own
    while slot in fields:
        slot, later = f"{own}#{later}", later + 1
    fields[slot] = one


def convert(fields: dict[str, Field], name: str, value: Any, why: str = "") -> None:
    """Say a field's value in other words or units."""
    if name in fields:
        fields[name] = replace(fields[name], value=value, said=fields[name].written, why=why)


SYNONYMS = {"batch_size": "train_batch_size"}
"""Of a dataset's table, and of the command line."""
WHOLE = ("optimizer_args", "network_args", "lr_scheduler_args")
"""Tables that are one field; LoRA_Easy_Training_Scripts has sections of these names too, with `args` in them."""


def leaves(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(name, dotted path, value) of everything in nested tables that is no table itself, empty ones included."""
    for key, value in data.items():
        here = f"{path}.{key}" if path else str(key)
        whole = key in WHOLE and isinstance(value, Mapping) and not {"args", "dataset_args"} & value.keys()
        if isinstance(value, Mapping) and value and not whole:
            yield from leaves(value, here)
        else:
            yield str(key), here, value


def renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Field]:
    """All leaves of nested tables, those in `names` (by path or by name) under sd-scripts' name."""
    fields: dict[str, Field] = {}
    for key, path, value in leaves(data):
        add(fields, names.get(path, names.get(key, key)), path, value)
    return fields


def listed(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The tables of a list of tables; none where it is something else."""
    held = data.get(key)
    return held if isinstance(held, list) and all(isinstance(one, Mapping) for one in held) else []


def without(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """All but lists of tables of these names."""
    return {key: value for key, value in data.items() if not (key in keys and listed(data, key))}
