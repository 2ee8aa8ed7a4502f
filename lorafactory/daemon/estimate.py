"""How long LoRAs take here: from those that were made, as the record has it."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lorafactory import images, settings, step, steps
from lorafactory.chain import CHAIN
from lorafactory.daemon.queue import Job
from lorafactory.errors import LoraError
from lorafactory.pages import minutes
from lorafactory.store import Store
from lorafactory.workspace import Workspace

LATEST = 20
"""LoRAs of one kind that count, the latest; older ones may be of another card."""
LEAST = 0.1
"""Share of a whole LoRA's time that one which was begun takes at least."""
Kind = tuple[str, int]
"""Base and resolution."""


@dataclass(frozen=True)
class Length:
    """A job, and how long it may take."""

    job: Job
    seconds: float | None
    """None where nothing was measured yet."""
    epochs: int
    pictures: int


def what_it_is(space: Workspace, lora: str) -> tuple[Kind, int] | None:
    """A LoRA's kind, and the epochs of its training; None where its settings cannot be read."""
    try:
        recipe = settings.effective(space, space.lora(lora))
        s = step.settings_of(steps.get("train"), recipe)
    except LoraError:
        return None
    return (recipe.header.base or "", s.resolution), s.epochs


def whole(store: Store, lora: str) -> float | None:
    """Seconds that all steps of a finished LoRA took, a training that was stopped and resumed as one; else None."""
    runs = [r for r in store.runs(lora, limit=1000) if r.step in CHAIN]
    done = {r.step: r for r in reversed(runs) if r.status == "done"}
    if not {"train", "pick"} <= done.keys() or done["pick"].id < done["train"].id:
        return None
    same = {r.id: r for r in runs if r.step == "train" and r.key == done["train"].key}
    return sum(r.wall_s or 0.0 for r in (same | {r.id: r for r in done.values()}).values())


def measured(space: Workspace, store: Store) -> dict[Kind | None, float]:
    """Median seconds per epoch of the latest LoRAs of each kind, and under None of all kinds."""
    found: dict[Kind | None, list[float]] = {}
    sql = "SELECT lora FROM run WHERE step = 'pick' AND status = 'done' GROUP BY lora ORDER BY max(id) DESC"
    for (lora,) in store.select(sql):
        there = (space.loras / lora).is_dir()  # a folder elsewhere is recorded by its place
        if there and (seconds := whole(store, lora)) and (what := what_it_is(space, lora)):
            for kind in (what[0], None):
                found.setdefault(kind, []).append(seconds / what[1])
    return {kind: statistics.median(each[:LATEST]) for kind, each in found.items()}


def lengths(space: Workspace, store: Store, jobs: Sequence[Job]) -> list[Length]:
    """How long each job may take, the shortest first; those of which nothing is known by epochs and pictures."""
    per_epoch = measured(space, store)
    found = []
    for job in jobs:
        kind, epochs = what_it_is(space, job.lora) or (None, 1)
        seconds = per_epoch.get(kind, per_epoch.get(None, 0.0)) * epochs
        left = max(seconds - (job.wall_s or 0.0), LEAST * seconds)
        found.append(Length(job, left or None, epochs, len(images.find_sources(space.lora(job.lora).source))))
    return sorted(found, key=lambda x: (x.seconds or 0.0, x.epochs, x.pictures))


def forecast(found: Sequence[Length], cards: int, now: datetime, until: datetime | None) -> str:
    """What will be done by when, in a sentence; `found` in the order in which it is done, on so many cards."""
    known = [x.seconds for x in found if x.seconds]
    if not found:
        return "nothing is queued"
    if len(known) < len(found):
        return f"{len(found)} to make; how long that takes is not known yet, for none was made here so far"
    ends, free = [], [0.0] * cards
    for seconds in known:
        ends.append(free[0] + seconds)
        heapq.heapreplace(free, ends[-1])
    each = f"{minutes(statistics.median(known))} each as measured on this machine"
    if until is None:
        return f"{len(found)} to make, about {minutes(max(ends))} in all, {each}"
    by = sum(end <= (until - now).total_seconds() for end in ends)
    return f"about {by} of {len(found)} will be done by {until:%H:%M}, {each}"
