"""A comparison's budget: in which order cells are drawn, and how many.

    every save         one prompt like the captions and one unlike, two seeds
    those still in     every prompt, two seeds at a time, after each of which more may drop out, or come back
    strengths          for the best

Prompts come before further seeds: pictures of one prompt are much alike, and tell less of a save than another prompt.

What comes of measured time is decided once and kept in plan.json, so that a comparison that was killed goes on to draw
the cells that it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lorafactory.files import write_whole
from lorafactory.scoring.prompts import Prompt
from lorafactory.steps._cells import Cell, Spot

PLAN, PACE = "plan.json", "pace.json"
FIRST = 2 / 3
"""Share of the budget that the second seed of every save may be within; one seed is always drawn."""
SHORT = 240.0
"""Seconds that a training counts as at least: a quarter of less would draw too little to tell anything."""
OWN = 0.85
"""Share of the budget that is for drawing; the rest is for loading, looking and writing."""
Round = list[Spot]
"""Spots that are drawn in every column of a stage, or in none."""


@dataclass(frozen=True)
class Stage:
    name: str
    rounds: list[Round]
    first: bool = False


def lead(prompts: Sequence[Prompt]) -> list[int]:
    """The two prompts that every save is drawn with: like the captions and unlike them, else the first that call it."""
    called = [i for i, prompt in enumerate(prompts) if prompt.trigger] or list(range(len(prompts)))
    first = [next((i for i in called if prompts[i].group == group), None) for group in ("like", "unlike")]
    found = [i for i in first if i is not None]
    return sorted([*found, *(i for i in called if i not in found)][:2])


def stages(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Stage]:
    """What is drawn of every save, then of those that are still in."""
    first = lead(prompts)
    begin: list[Round] = [[(i, seed) for i in first] for seed in seeds[:2]]
    found = [Stage("every save", begin, first=True)]
    for n in range(0, len(seeds), 2):
        spots = [(i, seed) for seed in seeds[n : n + 2] for i in range(len(prompts)) if n or i not in first]
        found.append(Stage("those still in", [[spot] for spot in spots]))
    return found


@dataclass
class Purse:
    """Cells that may be drawn, and those that are spoken for. None is no limit."""

    room: int | None
    spent: int = 0
    empty: bool = False
    """A round did not fit: what comes later in the order is not drawn either."""

    def pays(self, stage: Stage, cost: Callable[[Spot], int], drawn: Sequence[Spot] = ()) -> list[Round]:
        """The rounds of a stage, in order, that are not drawn yet and fit; the very first one is always paid.

        `cost` is how many cells a spot has to be drawn in. The first stage takes FIRST of the room at most.
        """
        room = math.inf if self.room is None else self.room * (FIRST if stage.first else 1)
        paid: list[Round] = []
        for each in stage.rounds:
            if self.empty or set(each) <= set(drawn):
                continue
            price = sum(map(cost, each))
            if self.spent + price > room and not (stage.first and not paid):
                self.empty = not stage.first
                break
            self.spent += price
            paid.append(each)
        return paid


# ---------------------------------------------------------------- what was decided


@dataclass
class Plan:
    """What a comparison of these saves and settings may cost."""

    of: str
    """What it is a plan of: saves, base, prompts, settings."""
    like: str
    """The same without the saves and the budget."""
    seconds_training: float | None
    seconds_allowed: float | None
    seconds_per_picture: float | None
    room: int | None
    """Cells that may be drawn, beside those that were there; None is no limit."""
    there: list[str]
    """Files of the cells that were there when it was made: they cost nothing."""
    carried: dict[str, str]
    """Hash of a save's tensors to why no more of it is drawn, as the comparison before it, of fewer saves, found."""
    dropped: dict[str, str] = field(default_factory=dict)
    """The same when it was done."""


def settle(
    folder: Path,
    cells: Sequence[Cell],
    pace: Callable[[Sequence[Cell]], float],
    *,
    of: tuple[Any, Any],
    training: float | None,
    share: float | None,
    began: float,
) -> Plan:
    """The plan in a folder, or a new one; it is written before anything is drawn but what `pace` draws to measure.

    `of` is what else the plan is of, and the saves with the budget. `training` is in seconds, `share` None for no
    limit, `began` what the monotonic clock said. `pace` gives the seconds a picture takes, from cells to be drawn.
    """
    like, own = (hashlib.sha256(json.dumps(told).encode()).hexdigest() for told in (of[0], of))
    old = _read_plan(folder)
    if old and old.of == own:
        return replace(old, dropped={})  # found anew, from the same cells
    there = list(dict.fromkeys(cell.path.name for cell in cells if cell.path.exists()))
    missing = [cell for cell in cells if not cell.path.exists()]
    lead_in = time.monotonic() - began
    seconds = pace(missing) if missing else None
    allowed = None if share is None or training is None else share * max(training, SHORT)
    room = None
    if allowed is not None and seconds:
        room = max(0, int((OWN * allowed - lead_in) / seconds))
    carried = old.dropped if old and old.like == like else {}
    plan = Plan(own, like, training, allowed, seconds, room, there, carried)
    write_plan(folder, plan)
    return plan


def _read_plan(folder: Path) -> Plan | None:
    """The plan in a folder; None if there is none that can be read."""
    try:
        return Plan(**json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_plan(folder: Path, plan: Plan) -> None:
    write_whole(folder / PLAN, _json(asdict(plan)))


def said(plan: Plan, missing: int, least: int, share: float, full: str) -> str:
    """The plan in one line; empty if there is nothing to draw.

    `missing` is how many cells are not there, `least` how many of them are drawn whatever it takes.
    """
    if not missing or plan.seconds_per_picture is None:
        return ""
    count = missing if plan.room is None else max(least, min(missing, plan.room))
    line = f"compare: at most {count} cells to draw, {_time(count * plan.seconds_per_picture)}"
    if plan.seconds_training is None:
        return f"{line}; how long the training took is not known, so there is no limit"
    if plan.seconds_allowed is None or count == missing:
        return line
    why = f"{share:.0%} of the training's {_time(plan.seconds_training)}"
    why += f", which counts as {_time(SHORT)}" if plan.seconds_training < SHORT else ""
    return f"{line}, {why}; all {missing}, {_time(missing * plan.seconds_per_picture)}: {full}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def read_pace(cache: Path, key: str) -> float | None:
    """Seconds a picture took in an earlier comparison with the same base, size and steps."""
    found = _paces(cache).get(key)
    return float(found) if isinstance(found, int | float) and found > 0 else None


def write_pace(cache: Path, key: str, seconds: float) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    write_whole(cache / PACE, _json({**_paces(cache), key: seconds}))


def _paces(cache: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((cache / PACE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(told: Mapping[str, Any]) -> bytes:
    return (json.dumps(told, indent=1) + "\n").encode()
