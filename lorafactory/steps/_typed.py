"""The line to type for the same again, with all that was typed to say how."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lorafactory.step import Work

COMMON = ("recipe", "base", "vae", "prediction", "trigger", "kind", "class")
"""Of what all commands take: what says how it comes out."""


def line(
    work: Work,
    step: str,
    subject: Sequence[str],
    settings: Mapping[str, Any],
    always: Collection[str],
    more: str,
) -> str:
    """`lora step subject ... more` with the settings that stood on the command line, and those of `always` if set.
    On a folder that is not a LoRA's it acts.

    What lora.toml says by now goes without saying: `make` writes there what it is told.
    """
    typed = {key for key, said in work.recipe.origins.items() if said == "command line"} | set(always)
    header, kept = work.recipe.header.model_dump(by_alias=True), _kept(work)
    told = {key: header[key] for key in COMMON if key in typed and header[key] != kept.get(key)}
    own = kept.get(step, {})
    told |= {k: v for k, v in settings.items() if (k in typed or f"{step}.{k}" in typed) and v != own.get(k)}
    last = [more] if work.place.owned else ["--apply", more]
    return shlex.join(["lora", step, *subject, *_words({key: value for key, value in told.items() if value}), *last])


def _kept(work: Work) -> dict[str, Any]:
    try:
        return tomllib.loads(work.place.settings.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}


def _words(told: Mapping[str, Any]) -> list[str]:
    """Options as they are typed, one that has many values once for each."""
    many = {key: value if isinstance(value, list) else [value] for key, value in told.items()}
    return [word for key, values in many.items() for value in values for word in (f"--{key}", f"{value}")]
