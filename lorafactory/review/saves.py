"""The comparison on the page: what each save drew from the same noise, its scores, the verdict, what a person chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorafactory import images, journal, step, steps
from lorafactory.errors import InputError
from lorafactory.files import read_json
from lorafactory.scoring.report import is_judged, nearness, of_these
from lorafactory.step import Work

Json = dict[str, Any]
SCORES = ("likeness", "likeness_error", "gain", "fit", "diversity", "copies", "artefacts")


def told(work: Work) -> Json:
    """All that the page shows of the saves; without a comparison, what to type."""
    scores = comparison(work)
    blind = read_json(work.place.root / journal.BLIND)
    if not scores:
        has_saves = any(work.place.result.glob("*.safetensors"))
        return {"columns": [], "next": f"lora {'compare' if has_saves else 'make'} {work.place.name}", "blind": {}}
    verdict = of_these(read_json(work.place.comparison / "verdict.json"), scores)
    rows = judged(scores)
    baseline = scores["columns"][0]
    return {
        "prompts": scores["prompts"],
        "seeds": scores["seeds"],
        "columns": [column(c, verdict) for c in (baseline, *rows)],
        "verdict": verdict,
        "blind": blind if is_of(blind, rows) else {},
        "report": work.place.report.is_file(),
    }


def comparison(work: Work) -> Json:
    """scores.json, if there is one of this version."""
    scores = read_json(work.place.comparison / "scores.json")
    return scores if scores.get("version") == 2 and scores.get("columns") else {}


def judged(scores: Json) -> list[Json]:
    """The columns among which a person chooses: those that the verdict reads."""
    return [c for c in scores.get("columns", ()) if is_judged(c, scores)]


def column(c: Json, verdict: Json) -> Json:
    said = verdict.get("verdict", {}).get("rejected", {}).get(c["save"], "") if c["save"] else ""
    cells = [
        {
            "prompt": cell["prompt"],
            "seed": cell["seed"],
            "file": cell["file"],
            "near": nearness(cell) if cell.get("nearest") else "",
            "copy": bool(cell.get("copy")),
        }
        for cell in c["cells"]
    ]
    return {
        "save": c["save"],
        "sha256": c["sha256"],
        "label": c["label"],
        "chosen": bool(c["save"]) and c["save"] == verdict.get("pick"),
        "rejected": said,
        "scores": {key: c.get(key) for key in SCORES},
        "cells": cells,
    }


def is_of(blind: Json, rows: list[Json]) -> bool:
    """True if a ranking is of the saves that are compared now, by their content."""
    return bool(blind) and {r["sha256"] for r in blind.get("ranking", ())} == {c["sha256"] for c in rows}


def cell_path(work: Work, file: str) -> Path:
    """The picture of a cell that the comparison names."""
    for c in comparison(work).get("columns", ()):
        if any(cell["file"] == file for cell in c["cells"]):
            return inside(work.place.comparison, file)
    raise InputError(f"{file} is no picture of this comparison")


def sample_path(work: Work, file: str) -> Path:
    """The picture of a sample that the training names."""
    folder = work.place.result / "sample"
    if all(entry.get("file") != file for entry in samples(work)):
        raise InputError(f"{file} is no sample of this training")
    return inside(folder, file)


def inside(folder: Path, file: str) -> Path:
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() not in images.SUFFIXES or not path.is_file():
        raise InputError(f"{file} is not there any more")
    return path


def samples(work: Work) -> list[Json]:
    """What the training drew so far, the newest last."""
    try:
        found = json.loads((work.place.result / "sample" / "samples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def settings_for(work: Work, save: str, sha256: str) -> Any:
    """The settings of `pick` that choose this save; InputError if it is another by now."""
    if (save, sha256) not in {(row["save"], row["sha256"]) for row in judged(comparison(work))}:
        raise InputError(f"{save} is not what was shown: look at the comparison again")
    return step.settings_of(steps.get("pick"), work.recipe).model_copy(update={"saves": (save,)})
