"""Every row of the check-up, in the order of the table: pictures, variety, captions, machine."""

from __future__ import annotations

from typing import Any

from lorafactory import step, steps
from lorafactory.setcheck import Finding, machine, orientation, pictures, texts, variety
from lorafactory.setcheck.looks import Seen
from lorafactory.step import Work

PROMPTS = 7
"""At most so many does `compare` draw where the recipe names none."""


def findings(work: Work, seen: Seen, *, no_clip: bool) -> list[Finding]:
    """Every row of the table."""
    header, train, compare = work.recipe.header, trained(work), step.settings_of(steps.get("compare"), work.recipe)
    cells = (len(compare.prompts) or PROMPTS) * len(compare.seeds) * len(compare.strengths)
    fits = pictures.fit_all(seen.looks, train)
    sides = orientation.sides([look.strip for look in seen.looks])
    rows = pictures.findings(seen, fits, train)
    if seen.looks:
        rows += variety.findings(work, seen.looks, no_clip=no_clip)
        rows.append(orientation.finding(seen.looks, header.kind, sides))
        captioned = [look.picture for look in seen.looks]
        rows += texts.findings(captioned, work.trigger, header.class_, machine.base_of(work), train)
    return [*rows, *machine.findings(work, fits, train, save_dtype=train.save_dtype, cells=cells)]


def trained(work: Work) -> Any:
    """The settings of the training."""
    return step.settings_of(steps.get("train"), work.recipe)
