"""Draw the same prompts and seeds with every save and without the LoRA, and score what comes out.

\b
For example:
  lora compare anna
  lora compare anna --strengths 0.7 --strengths 1.0
  lora compare anna --prompts "{trigger}" --prompts "{trigger}, a woman on a horse" --seeds 1 --seeds 2
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from lorafactory import families, images
from lorafactory.errors import BaseError, InputError, Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.scoring import sheet
from lorafactory.scoring.prompts import Prompt, prompts_for
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._saves import Save, find_saves, papers
from lorafactory.workspace import base_identity

VERSION = 1
MODELS = ("base", "clip")
HEADER = ("trigger", "kind", "class")
DRAWING = 1
"""Raised when the sampler draws another picture from the same numbers: no cached cell is used then."""
GRID, SCORES, SHEET = "grid.png", "scores.json", "scores.csv"


class Settings(StepSettings):
    prompts: tuple[str, ...] = ()
    """What is drawn; `{trigger}` stands for the trigger, and `{class}` for the class word. Take some
    unlike the captions, and one without the trigger, which shows whether the LoRA leaks. None: four made from kind
    and class."""
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    """Noise of the pictures of each prompt, the same for every save. Diversity needs at least two; more cost time in
    proportion and make the verdict surer."""
    strengths: tuple[float, ...] = (1.0,)
    """How strongly each save is applied, usually 0.6 to 1.2; each adds a column per save. The verdict reads the one
    nearest to 1."""
    steps: int = Field(20, ge=1, le=200)
    """Sampling steps of a picture, 1 to 200; 20 is enough for a comparison."""
    cfg: float = Field(7.0, ge=1, le=30)
    """Guidance, 1 (none) to 30: how strictly the prompt is followed. 7 suits SD 1.5, 5 SDXL."""
    resolution: int = Field(0, ge=0, le=2048)
    """Width and height of a picture in pixels, rounded down to a multiple of 8; 0 takes the training's."""
    thumb: int = Field(192, ge=64, le=1024)
    """Width of a cell in the grid, in pixels, 64 to 1024; smaller pictures are enlarged. The cells keep their size."""
    batch: int = Field(4, ge=1, le=64, json_schema_extra={"neutral": True})
    """Pictures drawn at once, 1 to 64; more is faster on a GPU and takes more memory."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the base while drawing; `auto` is fp16 on a GPU and fp32 without one."""


@dataclass(frozen=True)
class Column:
    """A save at a strength, or the baseline (no save, strength 0)."""

    save: Save | None
    strength: float
    tensors: str


@dataclass(frozen=True)
class Canvas:
    """What a picture is drawn with, beside the settings."""

    side: int
    """Width and height in pixels."""
    clip_skip: int


@dataclass(frozen=True)
class Cell:
    """One picture to be drawn, and where it is kept."""

    column: Column
    prompt: str
    seed: int
    path: Path


def check(work: Work, s: Settings) -> list[Problem]:
    wrong = []
    if not work.trigger:
        wrong.append(("compare: there is no trigger to draw with", "--trigger WORD, or trigger in lora.toml"))
    if s.prompts and not any("{trigger}" in p for p in s.prompts):
        wrong.append(("compare.prompts: none holds {trigger}", 'write it as in "{trigger}, a woman on a horse"'))
    if not distinct(s.seeds) or any(not 0 <= seed < 2**63 for seed in s.seeds):
        wrong.append((f"compare.seeds = {list(s.seeds)}: not different whole numbers from 0 up", "seeds = [1, 2, 3]"))
    if not distinct(s.strengths) or any(not 0 < x <= 2 for x in s.strengths):
        wrong.append((f"compare.strengths = {list(s.strengths)}: not different numbers up to 2", "strengths = [1.0]"))
    problems = [Problem(message, fix, error=SettingsError) for message, fix in wrong]
    if lacking := blind(work):
        problems.append(Problem(lacking, "or train only: --to train"))
    if len(s.seeds) == 1:
        problems.append(Problem("compare.seeds: one seed shows no diversity, so that gate is off", fatal=False))
    return problems


def blind(work: Work) -> str | None:
    """What is missing of CLIP. That no base is named is for `train` to say."""
    from lorafactory.encoders import clip

    try:
        return clip.missing(work.models.clip)
    except BaseError:
        return None


def distinct(values: Sequence[float]) -> bool:
    """There are some, and none twice."""
    return 0 < len(values) == len(set(values))


def sees(work: Work, s: Settings) -> dict[str, str]:
    saves = {save.path.name: images.sha256(save.path) for save in find_saves(work)}
    return saves | {path.name: images.sha256(path) for path in training_pictures(work)}


def outputs(work: Work, s: Settings) -> list[Path]:
    return [work.place.comparison / name for name in (GRID, SCORES, SHEET)]


def run(work: Work, s: Settings) -> Result:
    saves = find_saves(work)
    if not saves:
        raise InputError(f"no save to compare in {work.place.result}: first `lora train {work.place.name}`")
    if not work.set.pictures:
        raise InputError(f"no pictures in {work.place.images} to compare the saves with")
    header = work.recipe.header
    prompts = prompts_for(s.prompts, header.kind, header.class_, work.trigger)
    columns = columns_of(saves, s)
    canvas = canvas_of(saves, work, s)
    cells = cells_of(work, s, columns, prompts, canvas)
    if not work.apply:
        return Result(f"compare: {sum(map(len, cells))} cells, to be drawn into {work.place.comparison} with --apply")
    drawn, kept = draw(work, s, cells, canvas)
    pictures = [[images.load(cell.path) for cell in column] for column in cells]
    told = score(work, s, pictures, prompts)
    told |= {"seeds": list(s.seeds), "steps": s.steps, "cfg": s.cfg, "resolution": canvas.side, "trigger": work.trigger}
    for column, row, own in zip(columns, told["columns"], cells, strict=True):
        row.update(described(column))
        for i, (cell, scores) in enumerate(zip(own, row["cells"], strict=True)):
            place = cell.path.relative_to(work.place.comparison).as_posix()
            scores.update({"prompt": i // len(s.seeds), "seed": cell.seed, "file": place})
    publish(work, s, told, pictures)
    for row in told["columns"]:
        if row["save"] and row["strength"] == judged(s.strengths):
            for name in ("likeness", "fit", "diversity", "copies", "artefacts"):
                if row[name] is not None:
                    work.note.metric(row["step"] or row["epoch"], name, row[name])
    summary = f"compare: {len(saves)} saves x {len(prompts)} prompts x {len(s.seeds)} seeds, {drawn} drawn, {kept} kept"
    data = {"drawn": drawn, "kept": kept, "saves": len(saves), "grid": str(work.place.comparison / GRID)}
    return Result(summary, data, tuple(map(sheet.line, told["columns"])))


# ---------------------------------------------------------------- what to draw


def training_pictures(work: Work) -> list[Path]:
    return [p.path for subset in work.set.subsets if not subset.reg for p in subset.pictures]


def columns_of(saves: Sequence[Save], s: Settings) -> list[Column]:
    from lorafactory.training.lora_file import tensor_hash

    known = [(save, tensor_hash(save.path)) for save in saves]
    return [Column(None, 0.0, ""), *(Column(save, x, tensors) for save, tensors in known for x in s.strengths)]


def canvas_of(saves: Sequence[Save], work: Work, s: Settings) -> Canvas:
    """The training's resolution and clip skip, as the newest save says them."""
    told = papers(saves[-1].path)
    resolution, skip = (re.search(r"\d+", told.get(key, "")) for key in ("ss_resolution", "ss_clip_skip"))
    trained = resolution[0] if resolution else work.recipe.table("train").get("resolution", 512)
    return Canvas(max(8, (s.resolution or int(trained)) // 8 * 8), int(skip[0]) if skip else 1)


def cells_of(
    work: Work, s: Settings, columns: Sequence[Column], prompts: Sequence[Prompt], canvas: Canvas
) -> list[list[Cell]]:
    """Per column, prompt by prompt, seed by seed."""
    base = base_identity(work.workspace, work.models)
    folder = work.place.comparison / "cells"

    def cell(column: Column, prompt: str, seed: int) -> Cell:
        told = [DRAWING, column.tensors, column.strength, base, prompt, seed, s.steps, s.cfg, *astuple(canvas), s.dtype]
        key = hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()
        return Cell(column, prompt, seed, folder / f"{key[:32]}.png")

    return [[cell(c, p.text, seed) for p in prompts for seed in s.seeds] for c in columns]


def judged(strengths: Sequence[float]) -> float:
    """The strength that the verdict reads."""
    return min(strengths, key=lambda x: (abs(x - 1), x))


# ---------------------------------------------------------------- drawing


class Studio:
    """The base, with at most one LoRA in it."""

    def __init__(self, work: Work, s: Settings) -> None:
        import torch

        from lorafactory.training.precision import DTYPES

        gpu = torch.cuda.is_available()
        dtype = s.dtype if s.dtype != "auto" else "fp16" if gpu else "fp32"
        path = work.models.base
        assert path is not None
        self.settings = s
        device = "cuda" if gpu else "cpu"
        family = families.get(families.detect(path))
        self.base = family.load(path, dtype=DTYPES[dtype], device=device, **work.models.told)
        self.now: Column | None = None
        self.applied: Any = None

    def draw(self, column: Column, prompts: list[str], seeds: list[int], canvas: Canvas) -> list[Image.Image]:
        from lorafactory.training import lora_file, sample

        if column != self.now:
            if self.applied:
                lora_file.remove(self.applied)
            self.applied = lora_file.apply(self.base, column.save.path, column.strength) if column.save else None
            self.now = column
        s, size = self.settings, (canvas.side, canvas.side)
        return sample.sample(
            self.base, prompts, seeds, steps=s.steps, cfg=s.cfg, size=size, clip_skip=canvas.clip_skip, batch=s.batch
        )


def draw(work: Work, s: Settings, cells: Sequence[Sequence[Cell]], canvas: Canvas) -> tuple[int, int]:
    """Draw every cell whose file is not there; return how many were drawn and how many kept."""
    everything = {cell.path: cell for column in cells for cell in column}
    missing = [cell for cell in everything.values() if not cell.path.exists()]
    if missing:
        missing[0].path.parent.mkdir(parents=True, exist_ok=True)
        studio = Studio(work, s)
        for chunk in work.track(chunks(missing, s.batch), "comparing"):
            pictures = studio.draw(chunk[0].column, [c.prompt for c in chunk], [c.seed for c in chunk], canvas)
            for cell, picture in zip(chunk, pictures, strict=True):
                images.save_png(picture, cell.path)
    return len(missing), len(everything) - len(missing)


def chunks(cells: Sequence[Cell], batch: int) -> list[list[Cell]]:
    """Runs of at most `batch` cells of one column."""
    found: list[list[Cell]] = []
    for cell in cells:
        if found and len(found[-1]) < batch and found[-1][0].column == cell.column:
            found[-1].append(cell)
        else:
            found.append([cell])
    return found


# ---------------------------------------------------------------- scores and what is written


def eyes(work: Work) -> Any:
    """The CLIP model that judges."""
    from lorafactory.encoders.clip import Clip

    return Clip.load(work.models.clip)


def score(work: Work, s: Settings, pictures: list[list[Image.Image]], prompts: Sequence[Prompt]) -> dict[str, Any]:
    from lorafactory.scoring import table

    clip = eyes(work)
    paths = training_pictures(work)
    known = table.training_set([p.name for p in paths], [images.load(p) for p in paths], clip.encode_images)
    seen = [clip.encode_images(column) for column in work.track(pictures, "scoring")]
    words = [p.plain for p in prompts if p.plain]
    read = dict(zip(words, clip.encode_texts(words), strict=True)) if words else {}
    facts, columns = table.measure(pictures, seen, read, prompts, known)
    asked = [{"text": p.text, "trigger": p.trigger, "plain": p.plain} for p in prompts]
    return {"version": 1, "strength": judged(s.strengths), "set": facts, "prompts": asked, "columns": columns}


def described(column: Column) -> dict[str, Any]:
    save = column.save
    label = save.label if save else "baseline"
    return {
        "save": save.path.name if save else None,
        "label": label,
        "epoch": save.epoch if save else 0,
        "step": save.step if save else 0,
        "strength": column.strength,
        "tensors": column.tensors or None,
        "sha256": images.sha256(save.path) if save else None,
    }


def publish(work: Work, s: Settings, told: dict[str, Any], pictures: list[list[Image.Image]]) -> None:
    from lorafactory.scoring.grid import grid

    by_row = [list(cells) for cells in zip(*pictures, strict=True)]
    training = [images.load(path) for path in training_pictures(work)]
    folder = work.place.comparison
    folder.mkdir(parents=True, exist_ok=True)
    heads = sheet.column_heads(told), sheet.row_heads(told)
    images.save_png(grid(by_row, *heads, training, side=s.thumb), folder / GRID)
    write_whole(folder / SHEET, sheet.as_csv(told).encode())
    write_whole(folder / SCORES, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    for name in (GRID, SCORES, SHEET):
        work.note.made("comparison", folder / name)
