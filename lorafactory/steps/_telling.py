"""What a comparison says of the cells that were drawn and of those that were not, and the files that say it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lorafactory import crops, images
from lorafactory.files import write_whole
from lorafactory.scoring import sheet
from lorafactory.scoring.prompts import without
from lorafactory.step import Work
from lorafactory.steps._cells import Board, Column, Spot
from lorafactory.steps._stages import Plan

if TYPE_CHECKING:
    from lorafactory.scoring.eyes import Eyes
    from lorafactory.scoring.table import TrainingSet

GRID, SCORES, SHEET = "grid.png", "scores.json", "scores.csv"
Row = dict[str, Any]
Drawn = Mapping[Column, Sequence[Spot]]
"""The spots of each column that are there; the baseline comes first, and has every spot that another has."""


def eyes(work: Work) -> Eyes:
    """The models that judge."""
    from lorafactory.scoring.eyes import Eyes

    return Eyes.load(work.models.clip, closer(work))


def closer(work: Work) -> str:
    """The DINOv2 that sees more of a picture than CLIP: the model set's, or one that is on this machine; or none."""
    from lorafactory.encoders import dino

    return work.models.dino or dino.found() or ""


def known_set(work: Work) -> TrainingSet | None:
    """The pictures that likeness is measured against."""
    from lorafactory.scoring.table import TrainingSet

    shown, cut = work.set.pictures, work.set.crops
    captions = [without(picture.caption or "", work.trigger) for picture in shown]
    seen = [crops.cut(images.load(p.path), cut.get(p.name)) for p in shown]
    return TrainingSet([p.name for p in shown], seen, captions) if shown else None


@dataclass
class Judge:
    """Looks at cells, at each once, and says how the columns fare."""

    work: Work
    board: Board
    folder: Path
    """Files are told relative to it."""
    command: str
    """Draws what was not drawn."""
    judged: float
    """The strength that the verdict reads."""
    eyes: Eyes
    known: TrainingSet | None
    """None: there is no set, so nothing is said of likeness and copies."""
    _pictures: dict[Path, Image.Image] = field(default_factory=dict)

    def picture(self, column: Column, spot: Spot) -> Image.Image:
        path = self.board.cell(column, spot).path
        if path not in self._pictures:
            self._pictures[path] = images.load(path)
        return self._pictures[path]

    def tell(self, drawn: Drawn, dropped: Mapping[str, str]) -> Row:
        """The content of scores.json, but for what it was all drawn with."""
        from lorafactory.scoring import table

        facts: Row = {}
        scored: dict[Column, Row] = {}
        for base in dict.fromkeys(column.base for column in drawn):
            here = [column for column in drawn if column.base == base and drawn[column]]
            seen = [[table.Drawn(*spot, self.picture(c, spot)) for spot in drawn[c]] for c in here]
            # without a set the baseline stands in for it, and what is relative to a set is taken out again
            known = self.known or table.TrainingSet([""] * len(seen[0]), [d.picture for d in seen[0]])
            said, rows = table.measure(seen, self.eyes, self.board.prompts, known, self.work.track)
            if self.known is None:
                said, rows = _no_set(said), [_no_set({**r, "cells": list(map(_no_set, r["cells"]))}) for r in rows]
            facts = facts or said
            scored |= zip(here, rows, strict=True)
        empty = dict.fromkeys(next(iter(scored.values())))
        whole = len(drawn[next(iter(drawn))])  # a save that has as much did not drop out, whatever was thought once
        columns = [
            self._row(c, spots, scored.get(c, empty), dropped if len(spots) < whole else {})
            for c, spots in drawn.items()
        ]
        asked = [asdict(prompt) for prompt in self.board.prompts]
        return {"version": 2, "strength": self.judged, "set": facts, "prompts": asked, "columns": columns}

    def _row(self, column: Column, spots: Sequence[Spot], scores: Row, dropped: Mapping[str, str]) -> Row:
        save = column.save
        row = {
            "save": save.path.name if save else None,
            "label": (f"without {column.off}" if column.off else save.label) if save else "baseline",
            "epoch": save.epoch if save else 0,
            "step": save.step if save else 0,
            "strength": column.strength,
            "base": column.base.name,
            "tensors": column.tensors or None,
            "sha256": images.sha256(save.path) if save else None,
            "dropped": dropped.get(column.tensors) if column.strength == self.judged else None,
        }
        told = dict(zip(spots, scores["cells"] or (), strict=True))
        blank = dict.fromkeys(next(iter(told.values()), {}))
        cells = [self._cell(column, spot, told.get(spot), blank) for spot in self.board.spots]
        return {**scores, **row, "cells": cells}

    def _cell(self, column: Column, spot: Spot, scores: Row | None, blank: Row) -> Row:
        where = {"prompt": spot[0], "seed": spot[1]}
        if scores is None:
            return {**blank, **where, "file": None, "command": self.command}
        # as cells are shared with comparisons beside this one, a file may be outside of the folder
        path = os.path.relpath(self.board.cell(column, spot).path, self.folder)
        return {**scores, **where, "file": Path(path).as_posix()}


OF_A_SET = (
    *("likeness", "likeness_error", "clip_i", "floor", "gain", "copies", "leak", "ceiling", "copy_limit_clip"),
    *("nearest", "mirrored", "nearest_clip", "nearest_pixels", "copy", "copy_limit_pixels"),
)
"""What says nothing where there is no set; of columns, cells and the set itself."""


def _no_set(row: Row) -> Row:
    blank = {key: None for key in row if key in OF_A_SET}
    return {**row, **blank, **({"pictures": [], "diversity": None} if "ceiling" in row else {})}


def carried(told: Row) -> list[str]:
    """Per save that was also drawn on another base, a line of how much of its likeness is left there.

    Likeness there over likeness here, over the cells that both have; also put into the column as `portability`.
    """
    home, asked = told["columns"][0]["base"], [prompt["trigger"] for prompt in told["prompts"]]
    lines = []
    for column in told["columns"]:
        own = next((c for c in told["columns"] if c["base"] == home and _same(c, column)), None)
        if column["save"] is None or column["base"] == home or own is None:
            continue
        pairs = [
            (there["likeness"], here["likeness"])
            for there, here in zip(column["cells"], own["cells"], strict=True)
            if asked[here["prompt"]] and there["likeness"] is not None and here["likeness"] is not None
        ]
        if pairs:
            column["portability"] = share = sum(there for there, _ in pairs) / sum(here for _, here in pairs)
            lines.append(f"on {column['base']}: {share:.0%} of the likeness that {column['label']} has here")
    return lines


def _same(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in ("tensors", "label", "strength"))


def budget(told: Row, plan: Plan, *, share: float, full: bool, command: str) -> Row:
    """What the comparison was to take, and how many of its cells are there."""
    files = [Path(cell["file"]).name if cell["file"] else None for c in told["columns"] for cell in c["cells"]]
    return {
        "seconds_training": plan.seconds_training,
        "share": share,
        "seconds_allowed": plan.seconds_allowed,
        "seconds_per_picture": plan.seconds_per_picture,
        "planned": len(files),
        "drawn": sum(file is not None for file in files),
        "kept": sum(file in plan.there for file in files),
        "full": full,
        "full_command": command,
    }


def publish(work: Work, told: Row, judge: Judge, there: Drawn, *, thumb: int) -> None:
    """Write grid, table and scores, and record the scores of the judged saves."""
    from lorafactory.scoring.grid import grid

    shown = [column for column, spots in there.items() if spots]
    rows = [spot for spot in judge.board.spots if any(spot in there[column] for column in shown)]
    cells = [[judge.picture(c, spot) if spot in there[c] else None for c in shown] for spot in rows]
    training = list(judge.known.images) if judge.known else []
    heads = sheet.column_heads(told), sheet.row_heads(told)
    images.save_png(grid(cells, *heads, training, side=thumb, foot=sheet.foot(told)), judge.folder / GRID)
    write_whole(judge.folder / SHEET, sheet.as_csv(told).encode())
    write_whole(judge.folder / SCORES, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    for name in (GRID, SCORES, SHEET):
        work.note.made("comparison", judge.folder / name)
    for row in told["columns"]:
        if row["save"] and row["strength"] == told["strength"] and row["base"] == told["columns"][0]["base"]:
            for name in ("likeness", "fit", "diversity", "copies", "artefacts"):
                if row[name] is not None:
                    work.note.metric(row["step"] or row["epoch"], name, row[name])
