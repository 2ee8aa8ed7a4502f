"""Train the LoRA, saving as it goes.

\b
For example:
  lora train anna
  lora train anna --epochs 8 --rank 32
  lora train ./12_anna --base pocket --apply
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lorafactory import families, images
from lorafactory.dataset import Picture, Subset
from lorafactory.errors import LoraError, Problem, SettingsError
from lorafactory.files import whole, write_whole
from lorafactory.step import Result, StepSettings, Work, model_identity
from lorafactory.training.plan import Example, Plan, plan, saved_epochs
from lorafactory.training.plan import check as plan_check
from lorafactory.training.settings import TrainSettings

if TYPE_CHECKING:
    from lorafactory.families import Base
    from lorafactory.training.loop import Outcome, Save

VERSION = 1
MODELS = ("base",)
HEADER = ("trigger",)
NEVER_MIRRORED = ("person", "character")


class Settings(TrainSettings, StepSettings):
    """The trainer's settings, as they are, and how a save is written."""

    save_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Precision of the LoRA file; fp16 is what interfaces expect and half the size of fp32."""


def check(work: Work, s: Settings) -> list[Problem]:
    problems: list[Problem] = []
    try:
        if work.models.base is not None:
            families.inspect(work.models.base)
        problems = [Problem(f"train: {text}", error=SettingsError) for text in plan_check(s)]
        if work.set.pictures and not problems:
            plan(split(work, s)[0], s)
    except LoraError as error:
        problems.append(Problem(str(error), error=type(error)))
    kind = work.recipe.header.kind
    if s.flip and kind in NEVER_MIRRORED and not s.force_flip:
        text = f"train.flip would mirror a {kind}, and its left and right sides differ"
        problems.append(Problem(text, "turn flip off, or --force-flip if it may be so", error=SettingsError))
    if s.holdout and work.set.pictures and s.holdout >= len(work.set.pictures):
        problems.append(Problem(f"train.holdout = {s.holdout} leaves no picture to train on", "make it smaller"))
    return problems


def sees(work: Work, s: Settings) -> dict[str, str]:
    """Images, captions, masks, and how often each is repeated."""
    seen = {}
    for subset in work.set.subsets:
        for picture in subset.pictures:
            told = f"{picture.sha256} {subset.repeats} {picture.caption}"
            if (mask := mask_of(work, picture, s)) is not None:
                told += f" {images.sha256(mask)}"
            seen[picture.name] = hashlib.sha256(told.encode()).hexdigest()
    return seen


def outputs(work: Work, s: Settings) -> list[Path]:
    if not s.max_steps:
        saves = saved_epochs(s.epochs, s.save_every_epochs)
    else:
        saves = plan(split(work, s)[0], s).saves if work.set.pictures else ()
    return [work.place.result / file_name(work, epoch) for epoch in saves]


def file_name(work: Work, epoch: int) -> str:
    return f"{work.place.name}-{epoch:06}.safetensors"


def plan_line(work: Work, s: Settings) -> str:
    """The plan in one line, exact: what is printed is what is run."""
    counted = plan(split(work, s)[0], s)
    return f"train: {say_plan(counted, s)}"


def say_plan(counted: Plan, s: Settings) -> str:
    mean = f"{counted.repeats:.1f}".removesuffix(".0")
    more = f" and {counted.reg_samples} of regularisation" if counted.reg_samples else ""
    return (
        f"{counted.images} images x {mean} repeats{more} x {counted.epochs} epochs / batch {s.batch} = "
        f"{counted.steps} steps, {len(counted.saves)} saves, {len(counted.per_bucket)} bucket"
        + ("s" if len(counted.per_bucket) > 1 else "")
    )


def mask_of(work: Work, picture: Picture, s: Settings) -> Path | None:
    """The picture's mask, if there is one and it is to act."""
    path = (work.place.masks / picture.name).with_suffix(".png")
    return path if s.masked_loss and path.is_file() else None


def split(work: Work, s: Settings) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what is held out: the pictures whose hash is smallest, so the choice is stable."""
    examples = [example(work, p, subset, s) for subset in work.set.subsets for p in subset.pictures]
    out = set(sorted(e.sha256 for e in examples if not e.reg)[: s.holdout])
    held_out = [e for e in examples if e.sha256 in out and not e.reg]
    return [e for e in examples if e not in held_out], held_out


def example(work: Work, picture: Picture, subset: Subset, s: Settings) -> Example:
    """A picture as the trainer wants it; without a caption it is called by the trigger, in reg/ by its class."""
    width, height = images.size(picture.path)
    caption = picture.caption
    mask = mask_of(work, picture, s)
    return Example(
        name=picture.name,
        path=picture.path,
        sha256=picture.sha256,
        caption=(subset.word if subset.reg else work.trigger) if caption is None else caption,
        repeats=subset.repeats,
        width=width,
        height=height,
        trigger="" if subset.reg else work.trigger,
        reg=subset.reg,
        mask=mask,
    )


def run(work: Work, s: Settings) -> Result:
    import torch

    from lorafactory.training import loop
    from lorafactory.training.precision import DTYPES

    shown, held_out = split(work, s)
    counted = plan(shown, s)
    if not work.apply:
        return Result(f"train: would be {say_plan(counted, s)}; --apply does it")
    assert work.models.base is not None
    family = families.get(families.detect(work.models.base))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = family.load(work.models.base, dtype=DTYPES[s.dtype], device=device)
    keep_earlier(work)  # only now: what is wrong with set or base has ended this run before
    log = work.place.result / "log"
    log.mkdir(parents=True, exist_ok=True)
    losses: list[tuple[int, float, float]] = []
    started = time.time()

    def on_save(save: Save) -> None:
        write_save(work, s, base, save, shown, counted, started)

    with bar() as progress:
        task = progress.add_task("train", total=counted.steps)

        def on_step(step: int, loss: float, lr: float) -> None:
            losses.append((step, loss, lr))
            work.note.metric(step, "loss", loss)
            progress.update(task, completed=step, description=f"train, loss {smooth(losses):.4f}")

        outcome = loop.train(
            base, shown, s, cache=work.workspace.cache, on_step=on_step, on_save=on_save, held_out=held_out
        )
    write_losses(log / "loss.csv", losses)
    if outcome.holdout_before is not None:
        measured = {"before": outcome.holdout_before, "after": list(outcome.holdout_after)}
        write_whole(log / "holdout.json", (json.dumps(measured) + "\n").encode())
    return told(work, counted, outcome)


def bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def smooth(losses: list[tuple[int, float, float]]) -> float:
    recent = [loss for _, loss, _ in losses[-50:]]
    return sum(recent) / len(recent)


def keep_earlier(work: Work) -> None:
    """Move an earlier training to results/<start time>/, whole: nothing of it is lost."""
    result = work.place.result
    if not result.is_dir() or not any(result.iterdir()):
        return
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(min(p.stat().st_mtime for p in result.rglob("*"))))
    target, number = work.place.earlier_results / stamp, 2
    while target.exists():
        target, number = work.place.earlier_results / f"{stamp}~{number}", number + 1
    target.parent.mkdir(exist_ok=True)
    result.rename(target)


def write_save(
    work: Work, s: Settings, base: Base, save: Save, shown: list[Example], counted: Plan, started: float
) -> None:
    """Write one LoRA file, with kohya's names and papers."""
    from lorafactory.training import lora_file
    from lorafactory.training.metadata import metadata

    path = work.place.result / file_name(work, save.epoch)
    papers = metadata(
        name=path.stem,
        base=base,
        examples=shown,
        settings=s,
        plan=counted,
        save=save,
        trigger=work.trigger,
        base_sha256=model_identity(work, "base"),
        started=started,
        finished=time.time(),
    )
    lora_file.write(path, save.tensors, papers, dtype=s.save_dtype)
    work.note.made("save", path)
    if save.holdout is not None:
        work.note.metric(save.step, "holdout", save.holdout)


def write_losses(path: Path, losses: list[tuple[int, float, float]]) -> None:
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "loss", "lr"))
        writer.writerows(losses)


def told(work: Work, counted: Plan, outcome: Outcome) -> Result:
    first, last = outcome.epoch_means[0], outcome.epoch_means[-1]
    summary = f"train: {counted.steps} steps, {len(counted.saves)} saves, loss {first:.4f} -> {last:.4f}"
    data: dict[str, Any] = {"steps": counted.steps, "saves": list(counted.saves), "epoch_losses": outcome.epoch_means}
    if outcome.holdout_before is not None:
        after = outcome.holdout_after[-1]
        summary += f", held out {outcome.holdout_before:.4f} -> {after:.4f} ({after / outcome.holdout_before:.3f})"
        data |= {"holdout_before": outcome.holdout_before, "holdout_after": list(outcome.holdout_after)}
    return Result(summary, data)
