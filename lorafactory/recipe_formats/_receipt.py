"""The receipt: what became of every field of a foreign file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal["mapped", "converted", "supposed", "inert", "refused"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Accept = Callable[[str, Any], Any]
SECRET = re.compile(r"(^|[^a-z])(hf|huggingface|wandb|api|access|auth)\w*(token|key)$|api_?key|secret|password", re.I)
PLACE = re.compile(r"^(~[\\/]|[A-Za-z]:[\\/]|\.{0,2}[\\/]\w)|[\\/].*\.\w{2,12}$|\w[\\/]$")
"""A value that is a file or folder."""
PLACES = re.compile(r"(^|[_.])(dir|path|file|file_name|destination|directory|folder)$")
"""A field that holds one."""
OUR_PLACES = ("vae", "from_lora", "sample_prompts", "to", "on", "loras")
"""Settings that hold one here."""
PART = "optimizer_args."
"""Before the name of a field that is one of the optimizer's arguments."""
OWN = "lorafactory."
"""Before the name of a field that is a setting of ours already, as `recipe write` puts it."""
SAME: Any = object()


def printable(text: str) -> str:
    """A foreign text for a terminal, or a comment in TOML."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def within(value: Any) -> Iterator[Any]:
    """Every value within tables and lists that is none itself."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from within(inner)
    else:
        yield value


def places(value: Any) -> bool:
    """True if there is a file or folder in it."""
    return any(isinstance(held, str) and PLACE.search(held) for held in within(value))


@dataclass(frozen=True)
class Field:
    """One field of a file: what it is called there, and what it holds."""

    name: str
    value: Any
    supposed: bool = False
    """True if the file does not say it, and that tool's own default is meant."""
    said: Any = SAME
    """What the file holds, where `value` is that in other words or units."""
    why: str = ""
    """What was converted, or why the field cannot be taken."""
    inert: str = ""
    """Why it is no setting at all."""

    @property
    def set(self) -> bool:
        """False of what is there and left empty."""
        return self.name.startswith(OWN) or self.value not in (None, "", "None", [], {})

    @property
    def word(self) -> str:
        """The value if it is a text, else nothing."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def off(self) -> bool:
        return not self.set or self.value in (0, False, "0", "0.0") or str(self.value).lower() in ("false", "off")

    @property
    def on(self) -> bool:
        return not self.off

    @property
    def written(self) -> Any:
        """The value as it stands in the file."""
        return self.value if self.said is SAME else self.said

    @property
    def is_secret(self) -> bool:
        return bool(SECRET.search(self.name))

    @property
    def is_place(self) -> bool:
        named = bool(PLACES.search(self.name)) and isinstance(self.written, str)
        return named or places(self.written)


@dataclass(frozen=True)
class Line:
    """What became of one field."""

    verdict: Verdict
    field: Field
    to: str = ""
    """The setting it became, `train.lr`; empty if none."""
    result: Any = None
    why: str = ""

    @property
    def said(self) -> str:
        """The field and its value, unless that is a secret or a place."""
        if self.field.is_secret or self.field.is_place:
            return self.field.name
        text = repr(self.field.written)
        return f"{self.field.name} = {text if len(text) <= 60 else text[:57] + '...'}"

    def __str__(self) -> str:
        became = f"{self.to} = {self.result!r}" if self.to else ""
        told = "; ".join(part for part in (became, self.why) if part)
        return printable(f"{self.verdict:10} {self.said:44} {told}".rstrip())


@dataclass
class Reading:
    """A file on its way into a recipe. Every field gets its line: what no rule takes is refused at the end."""

    source: str
    fields: dict[str, Field]
    accept: Accept
    header: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def suppose(self, defaults: Mapping[str, Any]) -> None:
        """Take that tool's own defaults for what the file does not say."""
        for name, value in defaults.items():
            given = self.fields.get(name, Field(name, None))
            if not given.set:
                self.fields[name] = Field(given.name, value, supposed=True)

    def value(self, name: str) -> Any:
        """What a field holds; None if it is not there or left empty."""
        found = self.fields.get(name)
        return found.value if found and found.set else None

    def on(self, name: str) -> bool:
        """True if a field is there and not switched off."""
        return name in self.fields and not self.fields[name].off

    def open(self, name: str) -> bool:
        """True if a field is set and no rule has taken it yet."""
        return name in self.fields and self.fields[name].set and name not in self.lines

    def take(self, name: str, key: str, value: Any = SAME, why: str = "") -> None:
        """Put a field into the setting `key`, as it is or as `value`; refused if the setting does not hold that."""
        if not self.open(name):
            return
        given = self.fields[name]
        wanted = given.value if value is SAME else value
        try:
            result = self._accepted(key, wanted)
        except ValueError as error:
            self.refuse(name, f"{key}: {error}")
            return
        table, _, setting = key.rpartition(".")
        held = self.tables.setdefault(table, {}) if table else self.header
        held[setting] = {**held.get(setting, {}), **result} if name.startswith(PART) else result
        alike = str(wanted).lower() == str(given.written).lower()
        verdict: Verdict = "supposed" if given.supposed else "mapped" if alike else "converted"
        self.lines[name] = Line(verdict, given, key, result, why or given.why)

    def refused(self, name: str) -> bool:
        return name in self.lines and self.lines[name].verdict == "refused"

    def _accepted(self, key: str, wanted: Any) -> Any:
        if key.rpartition(".")[2] in OUR_PLACES or places(wanted):
            raise ValueError("a place on another machine")
        if key == "train.optimizer" and "." in str(wanted):
            raise ValueError("a class to be imported, which no file may name; set it yourself")
        result = self.accept(key, wanted)
        for held in within(result):
            if held is None or (isinstance(held, float) and not math.isfinite(held)):
                raise ValueError(f"{held} is no value")
        return result

    def inert(self, name: str, why: str) -> None:
        self._close("inert", name, why)

    def refuse(self, name: str, why: str) -> None:
        self._close("refused", name, why)

    def _close(self, verdict: Verdict, name: str, why: str) -> None:
        if name in self.fields and name not in self.lines:
            field = self.fields[name]
            self.lines[name] = Line(verdict, field, why=why) if field.set else Line("inert", field, why="not set")

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict == verdict for line in self.lines.values())
