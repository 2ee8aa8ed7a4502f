"""The line to type for the same again, with all that was typed to say how."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lorafactory.step import Work

COMMON = ("base", "trigger", "kind", "class")
"""Of what all commands take: what says how it comes out."""


def line(
    work: Work, step: str, subject: Sequence[str], settings: Mapping[str, Any], always: Collection[str], more: str
) -> str:
    """`lora step subject ... more` with the settings that stood on the command line, and those of `always` if set."""
    typed = {key for key, said in work.recipe.origins.items() if said == "command line"} | set(always)
    header = work.recipe.header.model_dump(by_alias=True)
    told = {key: header[key] for key in COMMON if key in typed}
    told |= {key: value for key, value in settings.items() if key in typed or f"{step}.{key}" in typed}
    return shlex.join(["lora", step, *subject, *_words({key: value for key, value in told.items() if value}), more])


def _words(told: Mapping[str, Any]) -> list[str]:
    """Options as they are typed, one that has many values once for each."""
    many = {key: value if isinstance(value, list) else [value] for key, value in told.items()}
    return [word for key, values in many.items() for value in values for word in (f"--{key}", f"{value}")]
