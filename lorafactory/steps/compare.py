"""Draw the same prompts and seeds with every save and without the LoRA, and score what comes out.

\b
For example:
  lora compare anna
  lora compare anna --full             draw all, however long it takes
  lora compare anna --on otherModel    the best save on another checkpoint too
  lora compare anna --prompts "{trigger}" --prompts "{trigger}, a woman on a horse" --seeds 1 --seeds 2
  lora compare a.safetensors b.safetensors --base pony --prompts "a dog on a beach"
  lora compare anna --axis rank        the last saves of its trainings, that differ in rank
  lora compare anna --axis blocks      the newest save with groups of its blocks left out
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console

from lorafactory import encoders, images
from lorafactory.errors import InputError, Problem
from lorafactory.scoring import sheet
from lorafactory.scoring.prompts import Prompt, asked_of_all, prompts_for
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps import _axis, _saves, _stages, _typed, _wrong
from lorafactory.steps._cells import Board, Cell, Checkpoint, Column, How
from lorafactory.steps._drawing import Drawing, limits
from lorafactory.steps._saves import Save
from lorafactory.steps._studio import Studio
from lorafactory.steps._telling import (
    GRID,
    SCORES,
    SHEET,
    Judge,
    Row,
    budget,
    carried,
    closer,
    eyes,
    known_set,
    publish,
)
from lorafactory.workspace import base_identity, model_set

VERSION = 5
MODELS = ("base", "clip")
HEADER = ("trigger", "kind", "class")


class Settings(StepSettings):
    prompts: tuple[str, ...] = ()
    """What is drawn; `{trigger}` stands for the trigger, and `{class}` for the class word. Take some
    unlike the captions, and one without the trigger, which shows whether the LoRA leaks. None: made from kind, class
    and a caption."""
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    """Noise of the pictures of each prompt, the same for every save. Diversity needs at least two; more cost time in
    proportion and make the verdict surer."""
    strengths: tuple[float, ...] = (0.6, 0.8, 1.0)
    """How strongly saves are applied, usually 0.6 to 1.2. The verdict reads the one nearest to 1; the others are drawn
    of the best save only, or of all with `full`."""
    budget: float = Field(0.25, ge=0, le=100)
    """Time that a comparison may take, as a share of the training's, 0 to 100. What does not fit is left out, at first
    of saves that fall behind; one seed of two prompts is always drawn of every save."""
    full: bool = False
    """Draw every prompt and seed of every save at every strength, however long it takes."""
    steps: int = Field(20, ge=1, le=200)
    """Sampling steps of a picture, 1 to 200; 20 is enough for a comparison."""
    cfg: float = Field(7.0, ge=1, le=30)
    """Guidance, 1 (none) to 30: how strictly the prompt is followed. 7 suits SD 1.5, 5 SDXL."""
    resolution: int = Field(0, ge=0, le=2048)
    """Width and height of a picture in pixels, rounded down to a multiple of 8; 0 takes the training's."""
    on: tuple[str, ...] = ()
    """Other checkpoints of the base's family that the best save is drawn on too, beside their own baseline."""
    loras: tuple[str, ...] = Field((), json_schema_extra={"once": True})
    """LoRA files from anywhere that are compared instead of the saves: with the pictures of NAME, or with none if only
    files are named, and then nothing is said of likeness."""
    axis: str = Field("", json_schema_extra={"once": True})
    """Lay LoRAs side by side by a setting they were trained with, such as `rank` or `lr`: the last save of each
    training, or `loras`. `blocks`: one LoRA with groups of its blocks left out in turn."""
    to: str = Field("", json_schema_extra={"once": True})
    """Folder for pictures and scores. None: txt2img-images/ of the LoRA, for `axis` or `loras` a folder in there, such
    as by-rank/; where files alone are named, compared/FILE/ of the workspace."""
    thumb: int = Field(192, ge=64, le=1024)
    """Width of a cell in the grid, in pixels, 64 to 1024; smaller pictures are enlarged. The cells keep their size."""
    batch: int = Field(4, ge=1, le=64, json_schema_extra={"neutral": True})
    """Pictures drawn at once, 1 to 64; more is faster on a GPU and takes more memory."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the base while drawing; `auto` is fp16 on a GPU and fp32 without one."""

    @property
    def aside(self) -> bool:
        """It is not about which of this training's saves is best."""
        return bool(self.loras or self.axis)

    @property
    def judged(self) -> float:
        """The strength that the verdict reads."""
        return min(self.strengths, key=lambda x: (abs(x - 1), x))


# ---------------------------------------------------------------- what is asked


def check(work: Work, s: Settings) -> list[Problem]:
    return _wrong.problems(work, s)


def about(told: Mapping[str, Any]) -> str:
    """What is compared beside the saves, or put elsewhere, by its folder; empty for the saves themselves."""
    kind = told.get("axis") or ("file" if told.get("loras") else "")
    return told.get("to") or (kind and f"by-{kind}")


def folder_of(work: Work, s: Settings) -> Path:
    """Where grid and scores go."""
    return Path(s.to).expanduser() if s.to else work.place.comparison / about(s.model_dump())


def sees(work: Work, s: Settings) -> dict[str, str]:
    saves = [save.path for save in lineup(work, s)]
    # of several trainings they may be called the same
    named = {p.name if p.parent == work.place.result else f"{p.name} ({i})": p for i, p in enumerate(saves, 1)}
    found = {name: images.sha256(path) for name, path in named.items()} | judges_by(work, s)
    return found | {f"on {name}": checkpoint(work, name).identity for name in s.on}


def judges_by(work: Work, s: Settings) -> dict[str, str]:
    """What decides how saves fare, and so which drop out: the set, its captions, the eyes, the gates."""
    found = work.set.hashes()
    found |= {f"{name} crop": hashlib.sha256(str(box).encode()).hexdigest() for name, box in work.set.crops.items()}
    said = {"captions": json.dumps(sorted(work.set.captions().items()))}
    if model := closer(work):
        said["dino"] = encoders.get("dino").identity(model)
    if not (s.full or s.aside):
        said["gates"] = json.dumps(asdict(limits(work)))  # what fails them by far drops out
    return found | {what: hashlib.sha256(text.encode()).hexdigest() for what, text in said.items()}


def outputs(work: Work, s: Settings) -> list[Path]:
    return [folder_of(work, s) / name for name in (GRID, SCORES, SHEET)]


# ---------------------------------------------------------------- what to draw


def lineup(work: Work, s: Settings) -> list[Save]:
    """The LoRAs that are compared, in the order of their columns."""
    if s.loras:
        found = [replace(save, label=save.path.stem) for save in map(_saves.told, map(Path, s.loras))]
    elif s.axis not in ("", _axis.BLOCKS):
        trainings = [*sorted(work.place.earlier_results.glob("*/")), work.place.result]
        found = [saves[-1] for folder in trainings if (saves := _saves.saves_in(folder))]
    else:
        found = _saves.find_saves(work)
    if s.axis == _axis.BLOCKS:
        return found[-1:]
    return _axis.by_setting(found, s.axis) if s.axis and found else found


def checkpoint(work: Work, name: str | None = None) -> Checkpoint:
    """The base, or another one."""
    models = model_set(work.workspace, name) if name else work.models
    return Checkpoint(models, base_identity(work.workspace, models))


def others(work: Work, s: Settings, home: Checkpoint) -> list[Checkpoint]:
    """The bases of `on`; columns are told apart by name, so one that is called as another is gets a number."""
    found = [home]
    for name in s.on:
        one = checkpoint(work, name)
        taken = one.name in {base.name for base in found}
        found.append(replace(one, called=f"{one.name} ({len(found) + 1})") if taken else one)
    return found[1:]


def columns_of(saves: Sequence[Save], s: Settings, base: Checkpoint) -> list[Column]:
    """The baseline, and every save at every strength."""
    from lorafactory.training.lora_header import tensor_hash

    known = [(save, tensor_hash(save.path)) for save in saves]
    if s.axis == _axis.BLOCKS:
        save, tensors = known[0]
        return [Column(base), *(Column(base, save, s.judged, tensors, off) for off in ("", *_axis.groups(save)))]
    strengths = (s.judged,) if s.axis else s.strengths
    return [Column(base), *(Column(base, save, x, tensors) for save, tensors in known for x in strengths)]


def board_of(work: Work, s: Settings, saves: Sequence[Save]) -> Board:
    """The prompts, and how it is drawn: at the training's resolution and clip skip, as the newest save says them."""
    told = _saves.papers(saves[-1].path)
    resolution, skip = (re.search(r"\d+", told.get(key, "")) for key in ("ss_resolution", "ss_clip_skip"))
    trained = resolution[0] if resolution else work.recipe.table("train").get("resolution", 512)
    side = max(8, (s.resolution or int(trained)) // 8 * 8)
    how = How(side, int(skip[0]) if skip else 1, s.steps, s.cfg, *drawn_with(s.dtype))
    cells = folder_of(work, s) if s.to else work.place.comparison
    return Board(cells / "cells", prompts_of(work, s), s.seeds, how)


def drawn_with(dtype: str) -> tuple[str, str]:
    """The precision of the base and the device, as they are on this machine."""
    import torch

    gpu = torch.cuda.is_available()
    return dtype if dtype != "auto" else "fp16" if gpu else "fp32", "cuda" if gpu else "cpu"


def prompts_of(work: Work, s: Settings) -> list[Prompt]:
    if s.loras and s.prompts and not any("{trigger}" in text for text in s.prompts):
        return asked_of_all(s.prompts)
    header, captions = work.recipe.header, list(work.set.captions().values())
    return prompts_for(s.prompts, header.kind, header.class_, work.trigger, captions)


# ---------------------------------------------------------------- the work


def ready(work: Work, s: Settings) -> None:
    """There are saves, pictures to compare them with, and what is to tell them apart."""
    if not lineup(work, s):
        raise InputError(f"no save to compare in {work.place.result}: first `lora train {work.place.name}`")
    if not s.loras and not work.set.pictures:
        raise InputError(f"no pictures in {work.place.images} to compare the saves with")


def run(work: Work, s: Settings) -> Result:
    began = time.monotonic()
    ready(work, s)
    saves = lineup(work, s)
    columns, board, folder = columns_of(saves, s, checkpoint(work)), board_of(work, s, saves), folder_of(work, s)
    if not work.apply:
        cells = len(columns) * len(board.spots)
        return Result(f"compare: at most {cells} cells, to be drawn into {folder} with --apply")
    folder.mkdir(parents=True, exist_ok=True)
    studio = Studio(board.how, s.batch)
    plan = planned(work, s, columns, board, studio, began)
    drawing = Drawing(work, board, studio, plan, {column: [] for column in columns})
    judge = Judge(work, board, folder, full_command(work, s), s.judged, eyes(work), known_set(work))
    drawing.draw(judge, others(work, s, columns[0].base), full=s.full, aside=s.aside)
    studio.put_back()
    _stages.write_plan(folder, plan)
    told = judge.tell(drawing.there(), plan.dropped)
    lines = [*carried(told), *([f"grid {folder / GRID}"] if s.aside or s.to else [])]
    told |= {"seeds": list(s.seeds), "steps": s.steps, "cfg": s.cfg, "resolution": board.how.side}
    told |= {"trigger": work.trigger, "kind": work.recipe.header.kind, "class": work.recipe.header.class_}
    told["budget"] = budget(told, plan, share=s.budget, full=s.full, command=judge.command)
    publish(work, told, judge, drawing.there(), thumb=s.thumb)
    if studio.drawn and work.workspace.root.exists():
        _stages.write_pace(work.workspace.cache, pace_key(board, columns[0].base, s), studio.seconds / studio.drawn)
    return result(told, studio.drawn, len(saves), folder / GRID, lines)


def planned(
    work: Work, s: Settings, columns: Sequence[Column], board: Board, studio: Studio, began: float
) -> _stages.Plan:
    """What may be drawn; said before it is, with the time that it will take."""
    base = columns[0].base
    by = judges_by(work, s)
    first = [spot for each in _stages.stages(board.prompts, board.seeds)[0].rounds for spot in each]
    cells = board.cells(columns, dict.fromkeys([*first, *board.spots]))
    missing = len({cell.path for cell in cells if not cell.path.exists()})

    def pace(some: Sequence[Cell]) -> float:
        known = _stages.read_pace(work.workspace.cache, pace_key(board, base, s))
        return known or studio.measure(some, work.track)

    plan = _stages.settle(
        folder_of(work, s),
        cells,
        pace,
        of=(
            [base.identity, [p.text for p in board.prompts], s.seeds, s.strengths, astuple(board.how), by],
            [[column.tensors for column in columns], s.on, s.budget, s.full],
        ),
        training=_saves.trained_for(dict.fromkeys(c.save.path for c in columns if c.save)),
        share=None if s.full else s.budget,
        began=began,
    )
    judged = [column for column in columns if column.strength in (0, s.judged)]
    least = min(missing, len(judged) * len(_stages.lead(board.prompts)))  # is drawn in any case
    line = _stages.said(plan, missing, least, s.budget, full_command(work, s))
    if elsewhere := len(s.on) * (len(judged) if s.aside else 2) * len(board.spots if s.full else first):
        line = f"{line or 'compare: nothing to draw on its own base'}; on other bases at most {elsewhere} more"
    if line:
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    return plan


def pace_key(board: Board, base: Checkpoint, s: Settings) -> str:
    """What the time for a picture depends on."""
    import torch

    how = board.how
    device = torch.cuda.get_device_name() if how.device == "cuda" else how.device
    return json.dumps([base.identity, how.side, how.steps, how.cfg > 1, how.dtype, s.batch, device])


def full_command(work: Work, s: Settings) -> str:
    """The line that draws every cell."""
    files = bool(s.loras and s.to) and work.place.root == Path(s.to).expanduser().resolve()
    subject = s.loras if files else [work.place.name if work.place.owned else str(work.place.root)]
    always = {"on", "axis", "to", *(("base", "prompts") if files else ("loras",))}
    told = s.model_dump(mode="json", exclude={"full", "budget", *(("loras",) if files else ())})
    return _typed.line(work, "compare", subject, told, always, "--full")


def result(told: Row, drawn: int, saves: int, grid: Path, lines: Sequence[str]) -> Result:
    spent = told["budget"]
    kept, left = spent["drawn"] - drawn, spent["planned"] - spent["drawn"]
    summary = f"compare: {saves} saves x {len(told['prompts'])} prompts x {len(told['seeds'])} seeds"
    summary += f", {drawn} drawn, {kept} kept" + (f", {left} left out: {spent['full_command']}" if left else "")
    data = {"drawn": drawn, "kept": kept, "left_out": left, "saves": saves, "grid": str(grid)}
    return Result(summary, data, (*map(sheet.line, sheet.drawn(told)), *lines))
