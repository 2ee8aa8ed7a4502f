"""Set how often an epoch shows each picture: the number before the folder's name, as in 12_4nna.

The number comes from a policy and the number of pictures, for each folder of the set by itself, and is never
below 1: 400/n (seed 003: people and characters, 21 to 50 pictures), 1500/n (seed 002: one epoch is already the
whole training), 100/n (seed 001: a hundred pictures once each, over many epochs), a number such as 10 (seed 000:
at least 10 for 10 to 20 pictures), or keep.

\b
For example:
  lora repeats anna
  lora repeats anna --policy 1500/n
  lora repeats ./set                   says what it would do; --apply does it
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import field_validator

from lorafactory import dataset
from lorafactory.dataset import Subset
from lorafactory.errors import InputError, Problem
from lorafactory.step import Result, StepSettings, Work

VERSION = 1
KEEP = "keep"
_POLICY = re.compile(r"([1-9]\d*)(/n)?")


class Settings(StepSettings):
    """Where the number comes from."""

    policy: str = "400/n"
    """400/n, 1500/n or 100/n: that many pictures an epoch, divided by the n there are, rounded, at least 1 each.
    A number: exactly so often. keep: leave the folders' own numbers alone."""

    @field_validator("policy", mode="before")
    @classmethod
    def known(cls, value: Any) -> str:
        text = str(value).replace(" ", "").lower()
        if text != KEEP and not _POLICY.fullmatch(text):
            raise ValueError("should be 400/n, 1500/n, 100/n (or another number in their place), a number, or keep")
        return text


def repeats(policy: str, pictures: int) -> int | None:
    """Repeats for so many pictures; None where the folder's own number stays. 400/32 = 12.5 gives 12, as in 003."""
    match = _POLICY.fullmatch(policy)
    if match is None:
        return None
    return max(1, round(int(match[1]) / pictures)) if match[2] else int(match[1])


def check(work: Work, settings: Settings) -> list[Problem]:
    """A folder that is itself called N_word cannot be renamed by a command that was told to work in it."""
    root = work.place.root
    if work.place.owned or not work.apply or not any(s.folder == root for s in work.set.subsets):
        return []
    if dataset.subset_of(root) is None:
        return []
    return [Problem(f"{root} is one folder of a set, and would be renamed", f"lora repeats {root.parent} --apply")]


def sees(work: Work, settings: Settings) -> dict[str, str]:
    """The pictures by folder and name: what is in them does not matter, but how many there are and where."""
    return {f"{s.folder.name}/{p.name}": p.sha256 for s in work.set.subsets for p in s.pictures}


def run(work: Work, settings: Settings) -> Result:
    """Rename each subset's folder; pictures that lie loose in a foreign folder move into one."""
    subsets = [s for s in work.set.subsets if s.pictures and not s.reg]
    if not subsets:
        raise InputError(
            f"{work.place.images}: no pictures to repeat.\n"
            f"    put some back from {work.place.root / dataset.ASIDE}, or bring more: "
            f"lora make {work.place.name} --from FOLDER"
        )
    lines, numbers = [], {}
    for subset in subsets:
        count = len(subset.pictures)
        number = repeats(settings.policy, count)
        if number is None:
            number = subset.repeats
        elif work.apply:
            subset = renamed(work, subset, number)  # noqa: PLW2901
        numbers[subset.word] = number
        lines.append(f"{subset.folder.name}: {number} x {count} = {number * count} pictures an epoch")
    said = ", ".join(f"{number} x {word}" for word, number in numbers.items())
    would = "" if work.apply else "would be "
    return Result(f"repeats: {would}{said} ({settings.policy})", {"repeats": numbers}, lines)


def renamed(work: Work, subset: Subset, number: int) -> Subset:
    """Give a subset's folder its number; the folder a command was given stays, and gets one inside."""
    if subset.folder not in (work.place.root, work.place.images):
        return dataset.with_repeats(subset, number)
    folder: Path = subset.folder / f"{number}_{subset.word}"
    folder.mkdir(exist_ok=True)
    for picture in subset.pictures:
        dataset.move(picture, folder)
    return Subset(folder, number, subset.word, subset.reg)
