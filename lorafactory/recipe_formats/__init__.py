"""Other tools' settings: one file = one format; a new file in this folder is a new format.

A format says which files are its own, and lays their fields out under the names that sd-scripts gives its arguments,
which all of these tools train with or stem from. `_vocabulary.py` turns those names into settings, and writes a line
of the receipt for every field. Nothing here runs, opens or fetches what a file names.
"""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from lorafactory.errors import InputError
from lorafactory.recipe_formats._receipt import VERDICTS, Accept, Field, Line, Reading, printable
from lorafactory.recipe_formats._vocabulary import translate

__all__ = ["VERDICTS", "Accept", "Format", "Line", "Reading", "get", "names", "parse", "printable", "read"]
PROSE = re.compile(r'\s-->[^"\n]*$', re.M)
"""What a person wrote behind a value, as in articles."""
LARGEST = 10_000_000
"""Bytes; settings have some thousand."""


class Format(Protocol):
    """What a file of this folder brings."""

    NAME: str
    """As a person calls it."""
    GENERAL: bool
    """True if its names are used by others too: it has a file that no other format claims."""

    def claims(self, data: Mapping[str, Any]) -> bool:
        """True if this looks like a file of this format."""

    def fields(self, data: Mapping[str, Any]) -> dict[str, Field]:
        """The file's fields by sd-scripts' names; those that it has no word for keep their own."""

    def defaults(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """What holds in that tool where this file says nothing, by sd-scripts' names."""


def names() -> list[str]:
    """Every format there is: the Python files of this folder. Those with a leading underscore are helpers."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> Format:
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))


def read(data: Mapping[str, Any], accept: Accept) -> Reading:
    """Turn a file's contents into settings and a receipt; InputError if no format knows it.

    `accept(key, value)` returns the value as the setting `key` holds it, or raises ValueError with what is wrong.
    """
    found = [form for form in map(get, names()) if form.claims(data)]
    if not found:
        told = ", ".join(get(name).NAME for name in names())
        raise InputError(f"these are no settings of a trainer that is known here: {told}")
    form = min(found, key=lambda form: form.GENERAL)
    reading = Reading(form.NAME, form.fields(data), accept)
    reading.suppose(form.defaults(data))
    translate(reading)
    return reading


def parse(path: Path) -> dict[str, Any]:
    """Read JSON (with prose around or behind its values), TOML, or a LoRA file's header; InputError if it cannot."""
    kind = {".toml": "TOML", ".safetensors": "a LoRA file"}.get(path.suffix.lower(), "JSON")
    try:
        data = _header(path) if kind == "a LoRA file" else _settings(path.read_bytes()[: LARGEST + 1], kind)
        json.dumps(data, ensure_ascii=False, default=str).encode()  # so that all of it can be shown and written
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as {kind}: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no table of settings")
    return data


def _settings(data: bytes, kind: str) -> Any:
    """TOML, or the first object in a text."""
    if len(data) > LARGEST:
        raise ValueError(f"larger than {LARGEST / 1e6:.0f} MB, more than any settings have")
    text = data.decode("utf-8-sig")
    if kind == "TOML":
        return tomllib.loads(text)
    return json.JSONDecoder().raw_decode(PROSE.sub("", text[max(text.find("{"), 0) :]))[0]


def _header(path: Path) -> Any:
    """What stands before the tensors: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST:
            raise ValueError(f"its header would have {length / 1e6:.0f} MB")
        return json.loads(file.read(length))
