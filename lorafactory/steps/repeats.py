"""Set how often an epoch shows each picture: the number before the folder's name, as in 12_4nna.

A number that a person wrote there stays, also that of a set somebody else made (12_anna), unless --policy is given
on the command line; 1 says nothing, as a new set begins with it. Otherwise a policy gives the number from the n
pictures of the folder, never below 1:

\b
  400/n           400 pictures an epoch: 12 times for 32 pictures (seed 003)
  1500/n          one epoch is the whole training (seed 002)
  100/n           a hundred pictures once each, over many epochs (seed 001)
  at-least=10     as 400/n, but never below 10 (seed 000, for 10 to 20 pictures)
  by-kind         as 400/n, within 7-15 for a character or style, 20-30 for a person, 30-100 for an object (seed 002)
  per-image=100   each picture is seen 100 times in all epochs together (seed 001)
  steps=2000      training takes as nearly 2000 steps as whole repeats allow (seed 001)
  10              exactly so often
  keep            the numbers stay as they are

It says how many steps training will take, counted by the trainer itself: each bucket's last batch may be short, and
[train] max_steps cuts whole epochs off.

\b
For example:
  lora repeats anna
  lora repeats anna --policy steps=2000
  lora repeats ./set                   says what it would do; --apply does it
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import field_validator

from lorafactory import dataset, step, steps
from lorafactory.dataset import Subset
from lorafactory.errors import InputError, LoraError, Problem
from lorafactory.past import BY_HAND
from lorafactory.step import Result, StepSettings, Work
from lorafactory.training.plan import Example, Plan, plan

VERSION = 2
HEADER = ("kind",)
USUAL = 400
"""Pictures an epoch, seed 003: "a good spot to have a good interval between epochs"."""
RANGES = {"character": (7, 15), "style": (7, 15), "person": (20, 30), "object": (30, 100)}
"""Seed 002 for about 30 pictures: anime, portraits, real things. A style counts as anime, which it does not name."""
SEEDS = {
    "400/n": "003",
    "1500/n": "002",
    "100/n": "001",
    "at-least": "000",
    "by-kind": "002",
    "per-image": "001",
    "steps": "001",
}
"""Whose advice a policy is."""
COUNTED = (
    *("epochs", "max_steps", "batch", "gradient_accumulation", "holdout"),
    *("resolution", "bucket_step", "min_bucket", "max_bucket", "bucket_upscale"),
)
"""Settings of the training that change how many steps it takes."""
MOST_SHOWN = 1_000_000
"""Pictures an epoch, views of one picture or steps of a training that a policy may ask for; above are slips."""
_POLICY = re.compile(r"([1-9]\d*)(/n)?|(at-least|per-image|steps)=([1-9]\d*)|by-kind|keep")


class Settings(StepSettings):
    """Where the number comes from."""

    policy: str = "400/n"
    """400/n, 1500/n or 100/n: that many pictures an epoch. at-least=10: as 400/n, but no fewer repeats. by-kind: as
    400/n, within what the kind wants. per-image=100: how often each picture is seen in all epochs. steps=2000: how
    long training takes. A number: exactly so often. keep: leave the folders' own numbers alone."""

    @field_validator("policy", mode="before")
    @classmethod
    def known(cls, value: Any) -> str:
        text = str(value).replace(" ", "").lower()
        if not _POLICY.fullmatch(text):
            said = "400/n, 1500/n, 100/n (or another number in their place), at-least=10, by-kind, per-image=100"
            raise ValueError(f"should be {said}, steps=2000, a number, or keep")
        number = int("".join(c for c in text if c.isdecimal()) or 0)
        most = dataset.MOST_REPEATS if text.isdecimal() or text.startswith("at-least") else MOST_SHOWN
        if number > most:
            raise ValueError(f"asks for {number}, and {most} is the most")
        return text


@dataclass(frozen=True)
class Choice:
    """A folder of the set, and the number it gets."""

    subset: Subset
    number: int
    by_hand: bool = False


def repeats(policy: str, pictures: int, kind: str = "person", epochs: int = 1) -> int:
    """Repeats of a folder of so many pictures, by a policy that looks at nothing else; ValueError for the others.

    Halves go to the even number: 400/32 = 12.5 gives 12, as in seed 003.
    """
    name, _, number = policy.partition("=")
    usual = max(1, round(USUAL / pictures))
    if name == "at-least":
        return max(usual, int(number))
    if name == "by-kind":
        low, high = RANGES[kind]
        return min(max(usual, low), high)
    if name == "per-image":
        return max(1, round(int(number) / epochs))
    total, per_picture, _ = policy.partition("/n")
    return max(1, round(int(total) / pictures)) if per_picture else int(total)


def said(policy: str) -> str:
    """The policy, and whose advice it is."""
    seed = SEEDS.get(policy.partition("=")[0])
    return f"{policy}, seed {seed}" if seed else policy


# ---------------------------------------------------------------- the hooks of a step


def check(work: Work, settings: Settings) -> list[Problem]:
    """A folder that is itself called N_word cannot be renamed by a command that was told to work in it."""
    root = work.place.root
    named = dataset.subset_of(root)
    if work.place.owned or not work.apply or named is None or not any(s.folder == root for s in work.set.subsets):
        return []
    if settings.policy == "keep" or (named.repeats > 1 and not asked(work)):
        return []
    return [Problem(f"{root} is one folder of a set, and would be renamed", f"lora repeats {root.parent} --apply")]


def sees(work: Work, settings: Settings) -> dict[str, str]:
    """The pictures by folder and name, and what training counts with: the steps that are announced hang on both."""
    seen = {f"{s.folder.name}/{p.name}": p.sha256 for s in work.set.subsets for p in s.pictures}
    told = training(work)[1].model_dump(mode="json", include=set(COUNTED))
    return seen | {"[train]": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}


def outputs(work: Work, settings: Settings) -> list[Path]:
    """A policy named on the command line replaces a person's number, so then the folders must bear what it gives."""
    if not asked(work):
        return []
    return [c.subset.folder.with_name(f"{c.number}_{c.subset.word}") for c in choose(work, settings)]


def run(work: Work, settings: Settings) -> Result:
    """Rename each subset's folder; pictures that lie loose in a foreign folder move into one."""
    chosen = choose(work, settings)
    if not chosen:
        raise InputError(
            f"{work.place.images}: no pictures to repeat.\n"
            f"    put some back from {work.place.root / dataset.ASIDE}, or bring more: "
            f"lora make {work.place.name} --from FOLDER"
        )
    steps_line, data = announced(work, chosen)
    lines = [told(work, choice, settings.policy) for choice in chosen]
    numbers = ", ".join(f"{c.number} x {c.subset.word}" + (" (by hand)" if c.by_hand else "") for c in chosen)
    from_policy = "" if all(c.by_hand for c in chosen) else f" ({said(settings.policy)})"
    would = "" if work.apply else "would be "
    data |= {"repeats": {c.subset.word: c.number for c in chosen}}
    data |= {"by_hand": [c.subset.word for c in chosen if c.by_hand]}
    return Result(f"repeats: {would}{numbers}{from_policy}; {steps_line}", data, lines)


# ---------------------------------------------------------------- choosing


def asked(work: Work) -> bool:
    """True if this very command names a policy: what a person says now goes before what one wrote earlier."""
    return work.recipe.origins.get("repeats.policy") == "command line"


def choose(work: Work, settings: Settings) -> list[Choice]:
    """A number for each folder that has pictures, regularisation left out.

    A number that is what the policy gives is nobody's: it is ours too if the run that wrote it was killed.
    """
    subsets = [s for s in work.set.subsets if s.pictures and not s.reg]
    wanted = by_policy(work, settings.policy, subsets)
    meant = [] if asked(work) else written(subsets, work.past.repeats)
    by_hand = [s.folder for s in meant if s.repeats != wanted[s.folder]]
    free = [s for s in subsets if s.folder not in by_hand]
    if by_hand and free:
        wanted |= by_policy(work, settings.policy, free)
    return [Choice(s, s.repeats if (own := s.folder in by_hand) else wanted[s.folder], own) for s in subsets]


def by_policy(work: Work, policy: str, free: Sequence[Subset]) -> dict[Path, int]:
    """What the policy gives these folders, the set's others being as they are."""
    if policy == "keep":
        return {s.folder: s.repeats for s in free}
    if policy.startswith("steps="):
        return dict.fromkeys((s.folder for s in free), number_for_steps(work, int(policy.partition("=")[2]), free))
    kind, epochs = work.recipe.header.kind, training(work)[1].epochs
    return {s.folder: repeats(policy, len(s.pictures), kind, epochs) for s in free}


def written(subsets: Sequence[Subset], ours: Mapping[str, int]) -> list[Subset]:
    """The folders whose number a person wrote: it is not what we gave the folder, or we never gave one and it is not 1.

    Beside a stranger with a number of its own, a stranger's 1 is meant too.
    """
    strangers = [s for s in subsets if s.word not in ours]
    meant = strangers if any(s.repeats > 1 for s in strangers) else []
    return [s for s in subsets if (s in meant if s.word not in ours else s.repeats != ours[s.word])]


def number_for_steps(work: Work, target: int, free: Sequence[Subset]) -> int:
    """The repeats, one number for all free folders, that bring training nearest to `target` steps; of two the fewer."""
    if not free:
        return 1
    train, s = training(work)
    s = s.model_copy(update={"max_steps": 0})
    shown = train.split(work, s)[0]

    def steps_with(number: int) -> int:
        return counted(shown, {folder.folder: number for folder in free}, s).steps

    most = target * s.batch * s.gradient_accumulation
    above = bisect_left(range(1, most), target, key=steps_with) + 1
    below = max(1, above - 1)
    return below if target - steps_with(below) <= steps_with(above) - target else above


# ---------------------------------------------------------------- counting, as the trainer does


def training(work: Work) -> tuple[Any, Any]:
    """The step that trains, by its name, and its settings: what is announced is counted by what will run."""
    module = steps.get("train")
    return module, step.settings_of(module, work.recipe)


def counted(shown: Sequence[Example], numbers: Mapping[Path, int], s: Any) -> Plan:
    """The training's plan if the folders bore these numbers."""
    return plan([replace(e, repeats=numbers.get(e.path.parent, e.repeats)) for e in shown], s)


def announced(work: Work, chosen: Sequence[Choice]) -> tuple[str, dict[str, Any]]:
    """What training will come to, in words and as data; if it cannot be counted, why."""
    train, s = training(work)
    try:
        whole = counted(train.split(work, s)[0], {c.subset.folder: c.number for c in chosen}, s)
    except LoraError as error:
        return f"the steps cannot be counted: {str(error).splitlines()[0]}", {"steps": None}
    cut = f" ({whole.epochs} of {s.epochs} epochs: max_steps = {s.max_steps})" if whole.epochs < s.epochs else ""
    return f"{whole}{cut}", {"steps": whole.steps, "epochs": whole.epochs}


# ---------------------------------------------------------------- doing


def told(work: Work, choice: Choice, policy: str) -> str:
    """Rename one folder and record it, picture by picture; return it in words."""
    before, subset, number = choice.subset.folder.name, choice.subset, choice.number
    keeps = choice.by_hand or policy == "keep"
    if work.apply and not keeps:
        subset = renamed(subset, number, loose=subset.folder in (work.place.root, work.place.images))
    after = f"{number}_{subset.word}"
    for picture in subset.pictures:
        if keeps:
            work.note(picture, "kept", BY_HAND if choice.by_hand else policy, score=number)
        else:
            verdict = "repeated" if work.apply else "would be repeated"
            work.note(picture, verdict, policy, score=number, before=before, after=after)
    count = len(subset.pictures)
    why = "written by hand, kept; --policy 400/n replaces it" if choice.by_hand else said(policy)
    return f"{subset.folder.name}: {number} x {count} = {number * count} pictures an epoch ({why})"


def renamed(subset: Subset, number: int, *, loose: bool) -> Subset:
    """Give a subset's folder its number; the folder a command was given stays, and gets one inside."""
    if not loose:
        return dataset.with_repeats(subset, number)
    folder: Path = subset.folder / f"{number}_{subset.word}"
    folder.mkdir(exist_ok=True)
    for picture in subset.pictures:
        dataset.move(picture, folder)
    return Subset(folder, number, subset.word, subset.reg)
