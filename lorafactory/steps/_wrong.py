"""What is wrong with what a comparison is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorafactory import families
from lorafactory.errors import BaseError, LoraError, Problem, SettingsError
from lorafactory.step import Work
from lorafactory.workspace import model_set

if TYPE_CHECKING:
    from lorafactory.steps.compare import Settings


def problems(work: Work, s: Settings) -> list[Problem]:
    """All of it at once; nothing is loaded."""
    wrong = []
    if not work.trigger and (not s.loras or any("{trigger}" in p for p in s.prompts)):
        wrong.append(("compare: there is no trigger to draw with", "--trigger WORD, or trigger in lora.toml"))
    if s.prompts and not s.loras and not any("{trigger}" in p for p in s.prompts):
        wrong.append(("compare.prompts: none holds {trigger}", 'write it as in "{trigger}, a woman on a horse"'))
    if s.loras and not s.prompts and not work.trigger:
        wrong.append(("compare: nothing is said of what to draw", '--prompts "a dog on a beach"'))
    if not distinct(s.seeds) or any(not 0 <= seed < 2**63 for seed in s.seeds):
        wrong.append((f"compare.seeds = {list(s.seeds)}: not different whole numbers from 0 up", "seeds = [1, 2, 3]"))
    if not distinct(s.strengths) or any(not 0 < x <= 2 for x in s.strengths):
        wrong.append((f"compare.strengths = {list(s.strengths)}: not different numbers up to 2", "strengths = [1.0]"))
    wrong += [(f"compare.loras: there is no file {p}", "give .safetensors files") for p in s.loras if not file(p)]
    for key in ("loras", "axis", "to"):
        if getattr(s, key) and work.recipe.origins.get(f"compare.{key}") != "command line":
            wrong.append((f"compare.{key} would hide the saves from `pick`; it is for the command line", "take it out"))
    found = [Problem(message, fix, error=SettingsError) for message, fix in wrong]
    if lacking := blind(work):
        found.append(Problem(lacking, "or train only: --to train"))
    if len(s.seeds) == 1:
        found.append(Problem("compare.seeds: one seed shows no diversity, so that gate is off", fatal=False))
    return [*found, *other_bases(work, s)]


def file(path: str) -> bool:
    return Path(path).suffix == ".safetensors" and Path(path).is_file()


def distinct(values: Sequence[float]) -> bool:
    """There are some, and none twice."""
    return 0 < len(values) == len(set(values))


def blind(work: Work) -> str | None:
    """What is missing of CLIP. That no base is named is for `train` to say."""
    from lorafactory.encoders import clip

    try:
        return clip.missing(work.models.clip)
    except BaseError:
        return None


def other_bases(work: Work, s: Settings) -> list[Problem]:
    """What is wrong with the bases of `on`, and that LoRAs from anywhere have none."""
    found = []
    try:
        own = families.detect(work.models.base) if (s.on or s.loras) and work.models.base else None
        for name in s.on:
            path = model_set(work.workspace, name).base
            if path and (other := families.detect(path)) != own:
                text = f"compare.on: {name} is of the family {other}, and the LoRA of {own}"
                found.append(Problem(text, "take another checkpoint", error=SettingsError))
            elif path:
                families.inspect(path, **model_set(work.workspace, name).told)
    except LoraError as error:
        found.append(Problem(str(error), error=type(error)))
    return found
