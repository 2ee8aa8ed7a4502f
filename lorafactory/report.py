"""Collect a LoRA's report from its folder and the record, and write it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from lorafactory import images, step, steps
from lorafactory.files import write_whole
from lorafactory.scoring.report import Mark, Noticed, Report, Row, Setting, Shown, render
from lorafactory.step import Work
from lorafactory.store import Decision, Store

THUMB = 128
GRID_SIDE = 1800
"""Longest side of the grid inside the page, in pixels; the file beside it is whole."""
NOTICED = ("set aside", "flagged")


def write_report(work: Work, store: Store) -> Path:
    """Write report.html beside the chosen LoRA; return its path."""
    write_whole(work.place.report, render(collect(work, store)).encode())
    return work.place.report


def collect(work: Work, store: Store) -> Report:
    """Everything the page shows."""
    place = work.place
    verdict = json.loads((place.comparison / "verdict.json").read_text(encoding="utf-8"))
    scores = json.loads((place.comparison / "scores.json").read_text(encoding="utf-8"))
    trained = store.last(place.recorded, "train")
    losses = store.metrics(trained.id, "loss") if trained else []
    header = work.recipe.header
    preview = place.chosen.with_suffix(".png")
    return Report(
        name=place.name,
        trigger=work.trigger,
        file=place.chosen.name,
        pick=verdict["label"],
        passed=verdict["passed"],
        reason=verdict["reason"],
        kind=f"{header.kind}, {header.class_}" if header.class_ else header.kind,
        by_hand=verdict["by_hand"] is not None,
        weight=scores["strength"],
        another=f"lora pick {place.name} --{verdict.get('called_by', 'epoch')} N",
        preview=embedded(preview, 640),
        grid=embedded(place.comparison / "grid.png", GRID_SIDE),
        scores=rows(scores, verdict),
        ceiling=scores["set"]["ceiling"],
        losses=losses,
        marks=marks(scores, verdict, len(losses)),
        pictures=[Shown(p.name, images.thumbnail_data_url(p.path, THUMB), p.caption or "") for p in work.set.pictures],
        noticed=noticed(work, store),
        settings=effective(work),
        facts=facts(work, store),
    )


def embedded(path: Path, side: int) -> str:
    """A picture as a JPEG `data:` address, at most `side` pixels; empty if there is none."""
    if not path.is_file():
        return ""
    picture = images.load(path)
    picture.thumbnail((side, side))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


MEASURES = ("likeness", "error", "gain", "fit", "diversity", "copies", "artefacts", "leak")


def rows(scores: dict[str, Any], verdict: dict[str, Any]) -> list[Row]:
    """The score table: baseline and saves, with what the verdict says of each."""
    rejected: dict[str, str] = dict(verdict["verdict"]["rejected"])
    found = []
    for column in scores["columns"]:
        save, chosen = column["save"], column["save"] == verdict["pick"]
        said = rejected.get(save) or rejected.get(column["label"]) or ("passes" if save else "")
        values = {key: column.get(key) for key in MEASURES}
        found.append(Row(column["label"], said="chosen" if chosen else said, chosen=chosen, **values))
    return found


def marks(scores: dict[str, Any], verdict: dict[str, Any], steps_run: int) -> list[Mark]:
    """Where the saves lie on the loss curve."""
    saved = [c for c in scores["columns"] if c["save"] and c["strength"] == scores["strength"]]
    last = max((c["epoch"] for c in saved), default=0) or 1
    steps = [c.get("step") or round(steps_run * c["epoch"] / last) for c in saved]
    return [Mark(step, c["label"], c["save"] == verdict["pick"]) for step, c in zip(steps, saved, strict=True)]


def noticed(work: Work, store: Store) -> list[Noticed]:
    """What was set aside or flagged, the latest word on each picture and rule."""
    latest: dict[tuple[str, str], Decision] = {}
    for decision in store.decisions(lora=work.place.recorded):
        latest[decision.image, decision.rule] = decision
    there = {p.name for p in work.set.pictures}
    found = [d for d in latest.values() if d.verdict in NOTICED and (d.image in there) == (d.verdict == "flagged")]
    places = {p.name: p.path for p in work.set.pictures} | work.set.aside
    return [Noticed(d.image, thumbnail(places.get(d.image)), d.verdict, why(d)) for d in found]


def thumbnail(path: Path | None) -> str:
    try:
        return images.thumbnail_data_url(path, THUMB) if path else ""
    except images.Unreadable:
        return ""


def why(decision: Decision) -> str:
    """A decision's reason in one line."""
    parts = [decision.rule]
    if decision.note:
        parts.append(decision.note)
    if decision.score is not None and decision.threshold is not None:
        parts.append(f"{decision.score:.3g} against {decision.threshold:.3g}")
    if decision.rival:
        parts.append(f"beside {decision.rival}")
    return ", ".join(parts)


def effective(work: Work) -> list[Setting]:
    """Every effective setting, with the layer it comes from."""
    found = [
        Setting("", key, str(value), work.recipe.origins.get(key, "default"))
        for key, value in work.recipe.header.model_dump(by_alias=True).items()
    ]
    for name in steps.names():
        if name == "generate" and not work.recipe.table(name):
            continue
        for key, value in step.settings_of(steps.get(name), work.recipe).model_dump().items():
            found.append(Setting(name, key, str(value), work.recipe.origins.get(f"{name}.{key}", "default")))
    return found


def facts(work: Work, store: Store) -> list[tuple[str, str]]:
    """What was run, on what, when, and the hashes to know the files by."""
    told = [("base", work.models.base.name if work.models.base else "none")]
    told += [("sha256 of the LoRA", images.sha256(work.place.chosen))]
    for row in reversed(store.runs(work.place.recorded, limit=12)):
        told.append((row.step, f"{row.started_at[:19].replace('T', ' ')} UTC, {row.wall_s or 0:.1f} s, {row.status}"))
    return told
