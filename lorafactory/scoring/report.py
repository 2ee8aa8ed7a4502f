"""The report: one HTML file that needs nothing else, and lets nothing in that a file name or a caption might bring.

All is escaped by the template; each picture is in the page once, and the script only shows and hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorafactory import pages
from lorafactory.pages import number
from lorafactory.scoring.charts import Mark, loss_curve, score_curves

ACROSS = {"save": "saves", "strength": "strengths", "base": "bases"}
DOWN = {"prompt": "prompts", "seed": "seeds"}
GROUPS = {
    "like": "like the captions",
    "unlike": "unlike the captions",
    "without": "without the trigger",
    "words": "a caption’s words",
}


@dataclass(frozen=True)
class Shown:
    """A picture of the set."""

    name: str
    picture: str
    """A `data:` address; empty if it cannot be shown."""
    caption: str = ""


@dataclass(frozen=True)
class Noticed:
    """A picture that was set aside or flagged."""

    name: str
    picture: str
    """A `data:` address; empty if it cannot be shown."""
    what: str
    """`set aside`, `flagged`, ..."""
    why: str


@dataclass(frozen=True)
class Setting:
    """One effective value, and which layer it comes from."""

    table: str
    key: str
    value: str
    origin: str = "default"


@dataclass(frozen=True)
class Report:
    """All that the page shows, as plain data."""

    name: str
    trigger: str
    scores: Mapping[str, Any]
    """scores.json."""
    verdict: Mapping[str, Any] = field(default_factory=dict)
    """verdict.json; empty as long as nothing was picked."""
    kind: str = ""
    """What was learned, in words: `person, woman`."""
    preview: str = ""
    """Baseline and pick from the same noise, a `data:` address."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """A cell's `file` to its `data:` address."""
    losses: Sequence[tuple[int, float]] = ()
    """(step, loss)."""
    pictures: Sequence[Shown] = ()
    noticed: Sequence[Noticed] = ()
    settings: Sequence[Setting] = ()
    facts: Sequence[tuple[str, str]] = ()
    """(name, value)."""
    timings: Sequence[tuple[str, str, float]] = ()
    """(step, when, seconds)."""
    shared: bool = False
    """True: it is for others, and says nothing of the training pictures."""


@dataclass(frozen=True)
class Axis:
    """Something that columns or rows differ in."""

    key: str
    title: str
    values: Sequence[tuple[str, str]]
    """(value, how people read it)."""
    held: str
    """The value that is shown while the axis is not laid out."""


def render(report: Report) -> str:
    """Return the page."""
    told, chosen = report.scores, report.verdict.get("pick")
    columns = [
        {
            **c,
            "at": {(cell["prompt"], cell["seed"]): cell for cell in c["cells"]},
            "drawn": sum(bool(cell["file"]) for cell in c["cells"]),
        }
        for c in told["columns"]
    ]
    judged = [c for c in columns if is_judged(c, told)]
    across, down = axes(told, chosen)
    return pages.render(
        "scoring/report.html",
        scripts=("pages.js", "scoring/report.js"),
        r=report,
        v=report.verdict,
        columns=columns,
        uneven=len({c["drawn"] for c in columns if c["drawn"]}) > 1,
        chosen=next((c for c in judged if c["save"] == chosen), None),
        across=across,
        down=down,
        data=for_script(report, columns),
        groups=GROUPS,
        curves=score_curves(judged, chosen, levels(judged, told, report.verdict)),
        loss=loss_curve(report.losses, marks(judged, chosen, len(report.losses))),
    )


def is_judged(column: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """The verdict reads this column: a save at the judged strength, on the base of the training."""
    first = told["columns"][0].get("base")
    return bool(column["save"]) and column["strength"] == told["strength"] and column.get("base") == first


def of_these(verdict: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict, if it chose one of these very saves: those of another training may be called the same."""
    pick = verdict.get("pick"), verdict.get("sha256")
    return dict(verdict) if any((c["save"], c.get("sha256")) == pick for c in told["columns"]) else {}


def axes(told: Mapping[str, Any], chosen: str | None) -> tuple[list[Axis], list[Axis]]:
    """What the columns differ in, and what the rows do; the saves and the prompts are always among them."""
    saves = [c for c in told["columns"] if c["save"]]
    named = {"save": "label", "strength": "strength", "base": "base"}
    pick = next((c["label"] for c in saves if c["save"] == chosen), saves[-1]["label"] if saves else "")
    held = {"save": pick, "strength": told["strength"], "base": told["columns"][0].get("base")}
    across = [Axis(k, ACROSS[k], values(c.get(named[k]) for c in saves), text(held[k])) for k in ACROSS]
    asked = [(str(i), prompt["text"]) for i, prompt in enumerate(told["prompts"])]
    seeds = values(told["seeds"])
    down = [Axis("prompt", DOWN["prompt"], asked, "0"), Axis("seed", DOWN["seed"], seeds, seeds[0][0] if seeds else "")]
    return tuple([a for i, a in enumerate(found) if i == 0 or len(a.values) > 1] for found in (across, down))  # type: ignore[return-value]


def values(found: Iterable[object]) -> list[tuple[str, str]]:
    return [(text(value), text(value)) for value in dict.fromkeys(found)]


def text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def for_script(report: Report, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the script knows of columns and cells; it puts all of it on the page as text."""
    known = {shown.name: i for i, shown in enumerate(report.pictures)}
    cells = {}
    for i, column in enumerate(columns):
        for cell in column["cells"]:
            near = cell.get("nearest")
            cells[f"{i}.{cell['prompt']}.{cell['seed']}"] = {
                "title": title(column),
                "facts": about(report.scores, column, cell),
                "near": known.get(near),
                "said": nearness(cell) if near else "",
                "file": "" if report.shared else cell.get("file") or "",
                "command": cell.get("command") or "",
            }
    kinds = [
        {"save": c["label"] if c["save"] else None, "strength": text(c["strength"]), "base": text(c.get("base"))}
        for c in columns
    ]
    return {"columns": kinds, "cells": cells}


def title(column: Mapping[str, Any]) -> str:
    if not column["save"]:
        return "without the LoRA"
    return str(column["label"]) + (f" at strength {column['strength']:g}" if column["strength"] != 1 else "")


def about(told: Mapping[str, Any], column: Mapping[str, Any], cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A cell's metadata and scores, in words."""
    found = [("prompt", told["prompts"][cell["prompt"]]["text"]), ("seed", str(cell["seed"]))]
    if column["save"]:
        found += [("save", column["save"]), ("strength", f"{column['strength']:g}")]
    found += [("base", column["base"])] if column.get("base") else []
    scores = {"likeness": "likeness", "fit": "prompt fit", "artefacts": "artefacts"}
    return found + [(scores[key], number(cell[key])) for key in scores if cell.get(key) is not None]


def nearness(cell: Mapping[str, Any]) -> str:
    """The nearest training picture, in words."""
    said = str(cell["nearest"]) + (", mirrored" if cell.get("mirrored") else "")
    said += f": {number(cell.get('nearest_clip'), 2)} alike to CLIP, {number(cell.get('nearest_pixels'), 2)} in pixels"
    return said + (". Too near: counted as a copy" if cell.get("copy") else "")


def levels(
    saves: Sequence[Mapping[str, Any]], told: Mapping[str, Any], verdict: Mapping[str, Any]
) -> dict[str, dict[str, list[float | None]]]:
    """Per score the lines of its chart, at each save: the baseline over the same cells, and the limit of its gate."""
    known, gates = told["set"], verdict.get("thresholds", {})
    lines: dict[str, dict[str, list[float | None]]] = {
        "likeness": {"baseline": [s["floor"] for s in saves], "training pictures": [known["ceiling"]] * len(saves)}
    }
    against: dict[str, list[list[float | None]]] = {
        "fit": [[s["fit_floor"], known.get("fit")] for s in saves],
        "diversity": [[s["diversity_floor"], known["diversity"]] for s in saves],
        "copies": [[1.0]] * len(saves),
        "artefacts": [[1.0]] * len(saves),
    }
    for key in against.keys() & gates.keys():
        floors = [[f for f in these if f is not None] for these in against[key]]
        lines[key] = {"limit": [gates[key] * min(these) if these else None for these in floors]}
    return lines


def marks(saves: Sequence[Mapping[str, Any]], chosen: str | None, steps_run: int) -> list[Mark]:
    """Where the saves lie on the loss curve."""
    last = max((c["epoch"] or 0 for c in saves), default=0) or 1
    steps = [c.get("step") or round(steps_run * (c["epoch"] or 0) / last) for c in saves]
    return [Mark(step, c["label"], c["save"] == chosen) for step, c in zip(steps, saves, strict=True)]
