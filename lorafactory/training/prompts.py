"""Prompts of samples, in kohya's syntax (sd-scripts `library/train_util.py: line_to_prompt_dict`, restated).

    a woman in a red coat --n blurry --w 512 --h 768 --d 42 --s 30 --l 7.5     # one prompt per line

A prompt file is data: no option in it opens a file or names code, and all that it asks for is within bounds.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorafactory.errors import InputError

SAMPLERS = ("ddim", "k_ddim")
KEYS = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "ss": "sample_sampler",
    "g": "guidance_scale",
    "cn": "controlnet_image",
}
"""Kohya's letters, and the same in its .toml and .json lists."""
BOUNDS: dict[str, tuple[int, int]] = {
    "width": (64, 2048),
    "height": (64, 2048),
    "seed": (0, 2**63 - 1),
    "sample_steps": (1, 1000),
    "scale": (1, 100),
}
FIELDS: dict[str, Any] = {"seed": "seed", "sample_steps": "steps", "scale": "cfg"}
"""Of Prompt."""
UNUSED = {
    "guidance_scale": "is for bases that take guidance as an input, and changes nothing here",
    "sample_sampler": "is not used: samples are drawn with ddim",
}


@dataclass(frozen=True)
class Prompt:
    """One picture to be drawn again and again."""

    text: str
    negative: str = ""
    size: tuple[int, int] = (512, 512)
    """Width, height in pixels; multiples of 8."""
    seed: int = 1
    steps: int = 30
    cfg: float = 7.5


@dataclass(frozen=True)
class Prompts:
    """What a prompt file holds."""

    prompts: tuple[Prompt, ...]
    remarks: tuple[str, ...] = ()
    """What of the file is passed over, in words."""


def read(path: Path, *, side: int = 512, words: Mapping[str, str] | None = None) -> Prompts:
    """Read a .txt, .toml or .json file; pictures are `side` x `side` pixels where it does not say.

    `{trigger}` in a prompt becomes `words["trigger"]`, and so on. Raises InputError with all that is wrong, by line or
    number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = {".toml": _toml, ".json": _json}.get(path.suffix.lower(), _lines)(text)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a prompt file ({error})") from error
    prompts: list[Prompt] = []
    wrong: list[str] = []
    remarks: list[str] = []
    for where, entry in entries:
        said = _options(entry) if isinstance(entry, str) else entry
        prompt, problems, unused = _prompt(said, side)
        prompts.append(replace(prompt, text=_filled(prompt.text, words or {})))
        wrong += [f"{path}, {where}: {problem}" for problem in problems]
        remarks += [f"{path}, {where}: {remark}" for remark in unused]
    if not prompts:
        wrong.append(f"{path}: no prompt in it; write one per line")
    if wrong:
        raise InputError("\n".join(wrong))
    return Prompts(tuple(prompts), tuple(remarks))


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


def _lines(text: str) -> list[tuple[str, Any]]:
    """One prompt per line; blank lines and those that begin with # are no prompts."""
    lines = enumerate(text.splitlines(), 1)
    return [(f"line {n}", line.strip()) for n, line in lines if line.strip() and not line.startswith("#")]


def _toml(text: str) -> list[tuple[str, Any]]:
    """`[prompt]` holds what `[[prompt.subset]]` entries share."""
    shared = dict(tomllib.loads(text)["prompt"])
    return [(f"subset {n}", {**shared, **own, "subset": None}) for n, own in enumerate(shared["subset"], 1)]


def _json(text: str) -> list[tuple[str, Any]]:
    """A list of texts in the syntax of a line, or of objects."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(entry, str | dict) for entry in found):
        raise ValueError("not a list of texts or objects")
    return [(f"prompt {n}", entry) for n, entry in enumerate(found, 1)]


def _options(line: str) -> dict[str, Any]:
    """Take a line apart: the text, then ` --x value` as often as one likes; unknown letters keep their own name."""
    text, *options = re.split(r"\s+--(?=[A-Za-z])", f" {line}")
    told: dict[str, Any] = {"prompt": text.strip()}
    for option in options:
        letter, _, value = option.partition(" ")
        told[KEYS.get(letter.lower(), f"--{letter}")] = value.strip()
    return told


def _prompt(told: Mapping[str, Any], side: int) -> tuple[Prompt, list[str], list[str]]:
    """The prompt that was told, what is wrong with it, and what of it is passed over."""
    numbers = {key: _number(key, told[key]) for key in BOUNDS if told.get(key) is not None}
    wrong = [
        f"{_shown(k)} {told[k]}: not a number from {BOUNDS[k][0]} to {BOUNDS[k][1]}"
        for k, value in numbers.items()
        if value is None
    ]
    wrong += [] if told.get("prompt") else ["there is no prompt"]
    if "controlnet_image" in told:
        wrong.append("--cn names a file, and a prompt file opens none: take it out")
    known = [f"--{letter}" for letter in KEYS if letter != "cn"]
    strange = [key for key in told if key not in {"prompt", "subset", "enum", *KEYS.values()}]
    wrong += [f"{key} is no option; there are {', '.join(known)}" for key in strange]
    unused = [f"{_shown(key)} {UNUSED[key]}" for key in UNUSED if key in told and told[key] not in SAMPLERS]
    if wrong:
        return Prompt(""), wrong, unused
    width, height = (int(numbers.get(key) or side) // 8 * 8 for key in ("width", "height"))
    more: dict[str, Any] = {name: numbers[key] for key, name in FIELDS.items() if key in numbers}
    text, negative = str(told["prompt"]), str(told.get("negative_prompt") or "")
    return replace(Prompt(text, negative, (width, height)), **more), wrong, unused


def _number(key: str, value: object) -> int | float | None:
    """The value as a number within its bounds; None if it is none."""
    try:
        number = float(str(value)) if key == "scale" else int(str(value))
    except ValueError:
        return None
    low, high = BOUNDS[key]
    return number if low <= number <= high else None


def _shown(key: str) -> str:
    return next(f"--{letter}" for letter, name in KEYS.items() if name == key)
