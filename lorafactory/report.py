"""Collect a LoRA's report from its folder and the record, and write it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from lorafactory import images, step, steps
from lorafactory.errors import InputError
from lorafactory.files import read_json, write_whole
from lorafactory.scoring.figures import apart
from lorafactory.scoring.report import Noticed, Report, Setting, Shown, of_these, render
from lorafactory.step import Work
from lorafactory.store import Decision, Store
from lorafactory.workspace import LoraDir

VERSION = 2
"""Of scores.json."""
CELLS, SET = 12_000_000, 4_000_000
"""Bytes of the page that all cells may take, and all pictures of the set; with more of them each is smaller."""
LARGEST, THUMB = 640, 320
"""Longest side of a cell and of a picture of the set, in pixels."""
PER_PIXEL = 0.16
"""Bytes of the page that a pixel of a photograph takes: where to begin to look for a size that fits."""
NOTICED = ("set aside", "flagged")
HIDDEN = "(the words of a caption)"
FOLDERS = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[\\/](?:[^\\/'\",;]*[\\/])*")
"""What goes before a file's name in an absolute path of any system, somewhere in a text."""
SHARED_TABLES = ("", "train", "compare", "pick")
"""Tables of settings that say nothing of the training pictures; "" is the recipe's own keys."""


def write_report(work: Work, store: Store, *, shared: bool = False) -> Path:
    """Write report.html beside the chosen LoRA, or report-shared.html for others; return its path."""
    path = work.place.report.with_name("report-shared.html") if shared else work.place.report
    write_whole(path, render(collect(work, store, shared=shared)).encode())
    return path


def is_current(place: LoraDir) -> bool:
    """There is a report, and neither comparison nor choice is newer; captions and settings are for the caller."""
    told = (place.comparison / name for name in ("scores.json", "verdict.json"))
    return place.report.is_file() and all(
        path.stat().st_mtime_ns <= place.report.stat().st_mtime_ns for path in told if path.is_file()
    )


def refresh(work: Work, *, anew: bool = False) -> None:
    """Write the report if there is a comparison or a choice that it does not show, or `anew` in any case."""
    scores = read_json(work.place.comparison / "scores.json")
    if scores.get("version") == VERSION and (anew or not is_current(work.place)):
        with Store(work.workspace.record, readonly=True) as store:
            write_report(work, store)


def collect(work: Work, store: Store, *, shared: bool = False) -> Report:
    """Everything the page shows; `shared` leaves out training pictures, captions and paths."""
    place = work.place
    scores = read_json(place.comparison / "scores.json")
    if scores.get("version") != VERSION:
        again = f"`lora compare {place.name} --force`"
        raise InputError(f"{place.comparison / 'scores.json'} is not there, or of another version: {again}")
    scores = shareable(scores) if shared else scores
    trained = store.last(place.recorded, "train")
    header = work.recipe.header
    preview = place.chosen.with_suffix(".png")
    files = [cell["file"] for column in scores["columns"] for cell in column["cells"] if cell.get("file")]
    return Report(
        name=place.name,
        trigger=work.trigger,
        scores=scores,
        verdict=of_these(read_json(place.comparison / "verdict.json"), scores),
        kind=f"{header.kind}, {header.class_}" if header.class_ else header.kind,
        preview=thumbnail(preview, LARGEST, 200_000) if preview.is_file() else "",
        cells=dict(zip(files, thumbnails([place.comparison / file for file in files], LARGEST, CELLS), strict=True)),
        losses=store.metrics(trained.id, "loss") if trained else [],
        pictures=[] if shared else pictures(work),
        noticed=[] if shared else noticed(work, store),
        settings=shareable_settings(work) if shared else effective(work),
        facts=facts(work, scores),
        timings=timings(work, store),
        shared=shared,
    )


# ---------------------------------------------------------------- pictures


def thumbnails(paths: Sequence[Path], largest: int, room: int) -> list[str]:
    """The pictures as `data:` addresses that take at most `room` bytes together, those that are there twice too."""
    most = room // max(1, len(paths))
    side = max(48, min(largest, round(math.sqrt(most / PER_PIXEL))))
    made = {path: thumbnail(path, side, most) for path in dict.fromkeys(paths)}
    return [made[path] for path in paths]


def thumbnail(path: Path, side: int, most: int) -> str:
    """The picture as a `data:` address; empty if it is gone or cannot be read."""
    try:
        return images.thumbnail_data_url(path, side, most)
    except (images.Unreadable, OSError):
        return ""


def pictures(work: Work) -> list[Shown]:
    found = work.set.pictures
    shown = thumbnails([p.path for p in found], THUMB, SET)
    return [Shown(p.name, address, p.caption or "") for p, address in zip(found, shown, strict=True)]


def noticed(work: Work, store: Store) -> list[Noticed]:
    """What was set aside or flagged, the latest word on each picture and rule."""
    latest: dict[tuple[str, str], Decision] = {}
    for decision in store.decisions(lora=work.place.recorded):
        latest[decision.image, decision.rule] = decision
    there = {p.name for p in work.set.pictures}
    found = [d for d in latest.values() if d.verdict in NOTICED and (d.image in there) == (d.verdict == "flagged")]
    places = {p.name: p.path for p in work.set.pictures} | work.set.aside
    shown = thumbnails([Path() if d.rule == "revoked" else places.get(d.image, Path()) for d in found], 144, 1_000_000)
    return [Noticed(d.image, address, d.verdict, why(d)) for d, address in zip(found, shown, strict=True)]


def why(decision: Decision) -> str:
    """A decision's reason in one line."""
    parts = [decision.rule]
    if decision.note:
        parts.append(decision.note)
    if decision.score is not None and decision.threshold is not None:
        parts.append(" against ".join(apart(decision.score, decision.threshold, "g")))
    if decision.rival:
        parts.append(f"beside {decision.rival}")
    return ", ".join(parts)


# ---------------------------------------------------------------- what was run


def effective(work: Work, said: Callable[[object], str] = str) -> list[Setting]:
    """Every effective setting, its value as `said` tells it, with the file that says so."""
    tables = {"": work.recipe.header.model_dump(by_alias=True)}
    for name in steps.names():
        if name != "generate" or work.recipe.table(name):
            tables[name] = step.settings_of(steps.get(name), work.recipe).model_dump()
    origin = {key: name_of(said) for key, said in work.recipe.origins.items()}
    return [
        Setting(table, key, said(value), origin.get(f"{table}.{key}" if table else key, "default"))
        for table, values in tables.items()
        for key, value in values.items()
    ]


def facts(work: Work, scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """On what it was trained and how the cells were drawn, and the hash to know the file by."""
    told = [("base", name_of(work.recipe.header.base or "none"))]
    told += [("sha256", images.sha256(work.place.chosen))] if work.place.chosen.is_file() else []
    told += [("cells", f"{scores['resolution']} pixels, {scores['steps']} steps, guidance {scores['cfg']:g}")]
    if budget := scores.get("budget"):
        drawn = f"{budget['drawn']} drawn, {budget['kept']} kept of earlier ones"
        told += [("budget", drawn + ("" if budget["full"] else f"; all of them: {budget['full_command']}"))]
    return told


def timings(work: Work, store: Store) -> list[tuple[str, str, float]]:
    """Of each step its last run that ended well: name, when, seconds."""
    rows: dict[str, tuple[str, str, float]] = {}
    for row in reversed(store.runs(work.place.recorded, limit=200)):
        if row.status == "done" and row.wall_s is not None:
            rows.pop(row.step, None)
            rows[row.step] = (row.step, f"{row.started_at[:16].replace('T', ' ')} UTC", row.wall_s)
    return list(rows.values())


# ---------------------------------------------------------------- for others


def shareable(scores: Mapping[str, Any]) -> dict[str, Any]:
    """scores.json without the names of training pictures, the words of captions, and commands with paths in them."""

    def asked(prompt: Mapping[str, Any]) -> dict[str, Any]:
        near = bool(prompt["plain"]) and prompt["group"] in ("like", "words")  # what did not yet say whose words it has
        return {**prompt, "text": HIDDEN, "plain": HIDDEN} if prompt.get("caption", near) else dict(prompt)

    columns = [
        {
            **{key: value for key, value in column.items() if key != "base"},
            "base": name_of(column.get("base") or ""),
            "cells": [{**cell, "nearest": None, "command": None} for cell in column["cells"]],
        }
        for column in scores["columns"]
    ]
    budget = {**scores["budget"], "full": True} if scores.get("budget") else None
    return {**scores, "prompts": [asked(p) for p in scores["prompts"]], "columns": columns, "budget": budget}


def shareable_settings(work: Work) -> list[Setting]:
    # prompts may be captions
    return [s for s in effective(work, bare) if s.table in SHARED_TABLES and s.key != "prompts"]


def bare(value: object) -> str:
    """A setting's value, of paths only what they end with."""
    if isinstance(value, tuple | list):
        return str([name_of(v) if isinstance(v, str) else v for v in value])
    return name_of(str(value))


def name_of(said: str) -> str:
    """A path's last part, or a text without the folders of the paths in it."""
    path = PureWindowsPath(said)  # which takes both slashes
    return path.name if said.startswith("~") or path.root else FOLDERS.sub("", said)
