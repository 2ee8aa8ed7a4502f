"""What a training writes while it runs: the LoRA files, loss.csv, samples, TensorBoard, and the line with its bar."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lorafactory import heartbeat, images
from lorafactory.errors import InputError
from lorafactory.files import whole, write_whole
from lorafactory.scoring.prompts import prompts_for
from lorafactory.step import Work
from lorafactory.training import prompts
from lorafactory.training.lora_header import tensor_hash
from lorafactory.training.plan import Plan
from lorafactory.training.prompts import Prompt
from lorafactory.training.saves import AVERAGE, kept

if TYPE_CHECKING:
    from lorafactory.families import Base
    from lorafactory.training.gallery import Gallery
    from lorafactory.training.loop import Save
    from lorafactory.training.settings import TrainSettings

ENDING = f"{AVERAGE}.safetensors"
OWN = "saves.json"
"""In state/: the saves of the training that is not over, with their hashes."""


class Diary:
    """Told of every step, sample and save of a training; a context, so that it knows how it ended."""

    def __init__(
        self, work: Work, s: TrainSettings, base: Base, plan: Plan, asked: Sequence[Prompt], *, tensorboard: bool
    ) -> None:
        self.work, self.settings, self.base, self.plan, self.asked = work, s, base, plan, asked
        self.losses: list[tuple[int, float, float]] = []
        """(step, loss, learning rate) of every step so far."""
        self.last = plan.steps
        """Number of the last step."""
        self.log = work.place.result / "log"
        self.log.mkdir(parents=True, exist_ok=True)
        self.tensorboard = tensorboard
        self.gallery: Gallery | None = None
        self.board: Any = None
        self.progress = bar()
        self.task = self.progress.add_task("train", total=plan.steps, memory="")

    def __enter__(self) -> Diary:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()
        done = self.losses[-1][0] if self.losses else 0
        write_losses(self.log / "loss.csv", self.losses)
        if self.gallery:
            self.gallery.close(f"stopped after step {done} of {self.last}" if kind else f"finished after step {done}")
        if self.board:
            self.board.close()

    def step(self, step: int, loss: float, lr: float) -> None:
        while self.losses and self.losses[-1][0] >= step:
            self.losses.pop()  # the training went back to an earlier state
        self.losses.append((step, loss, lr))
        self.work.note.metric(step, "loss", loss)
        if heartbeat.beat("train", step, self.last):  # somebody watches: the curve is there as it comes
            with suppress(OSError):  # a full disk stops the work itself soon enough
                write_losses(self.log / "loss.csv", self.losses, synced=False)
        recent = [loss for _, loss, _ in self.losses[-50:]]
        told = f"train, loss {sum(recent) / len(recent):.4f}"
        self.progress.update(self.task, completed=step, description=told, memory=memory(self.base))
        if self.board:
            self.board.add_scalar("loss", loss, step)
            self.board.add_scalar("learning rate", lr, step)

    def begin(self, done: Sequence[tuple[int, float, float]], last: int) -> None:
        """Take over the steps that were done before, by a training that broke off or that this one goes on with."""
        self.losses += done
        self.last = last
        for step, loss, _ in done:
            self.work.note.metric(step, "loss", loss)
        self.progress.update(self.task, completed=len(done), total=last)
        if self.plan.sampled:
            self.gallery = self._gallery()
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.log / "tensorboard"), purge_step=len(done) + 1)

    def event(self, step: int, text: str) -> None:
        """Say what a person should know, and keep it in log/events.jsonl."""
        self.progress.console.print(f"train: {text}", markup=False, highlight=False, soft_wrap=True)
        with (self.log / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "said": text}, ensure_ascii=False) + "\n")

    def sample(self, step: int, epoch: int) -> None:
        if self.gallery is None or self.gallery.remark:
            return
        pictures = self.gallery.draw(self.base, step, epoch)
        if self.gallery.remark:
            self.event(step, self.gallery.remark)
        if self.board:
            for number, picture in enumerate(pictures, 1):
                self.board.add_image(f"prompt {number}", np.asarray(picture), step, dataformats="HWC")

    def saved(self, save: Save, paths: Sequence[Path]) -> None:
        """Record a save that was written, and its average; delete those that `keep_last` does not keep."""
        write_losses(self.log / "loss.csv", self.losses)
        for path in paths:
            self.work.note.made("save", path)
            prune(self.work, path, self.settings.keep_last)
        if save.holdout is not None:
            self.work.note.metric(save.step, "holdout", save.holdout)
            if self.board:
                self.board.add_scalar("held out", save.holdout, save.step)

    def _gallery(self) -> Gallery:
        from lorafactory.training.gallery import Gallery

        place = self.work.place
        return Gallery(place.result / "sample", place.name, self.asked, self.settings, last=self.last)


# ---------------------------------------------------------------- what samples are drawn of


def asked(work: Work, file: str, side: int) -> prompts.Prompts:
    """The prompts of the file, `{trigger}` and `{class}` filled in; without a file those that a comparison draws."""
    header = work.recipe.header
    if not file:
        made = prompts_for((), header.kind, header.class_, work.trigger)
        square = (side // 8 * 8, side // 8 * 8)
        return prompts.Prompts(tuple(Prompt(p.text, size=square) for p in made))
    path = Path(file).expanduser()
    path = (
        inside if (inside := work.place.root / path).is_file() else path
    )  # beside lora.toml, or from where one stands
    return prompts.read(path, side=side, words={"trigger": work.trigger, "class": header.class_})


# ---------------------------------------------------------------- files


def prune(work: Work, newest: Path, keep_last: int) -> list[Path]:
    """Remember a save as one of this training's, and delete those of them that need not stay.

    Deleted is only what this training wrote and nobody has changed since, and never the file that was picked.
    """
    if not keep_last:
        return []
    memory = work.place.result / "state" / OWN
    own: dict[str, str] = json.loads(memory.read_text(encoding="utf-8")) if memory.is_file() else {}
    own[newest.name] = images.sha256(newest)
    picked = ""
    with suppress(InputError, OSError):  # there is none, or it is no LoRA
        picked = tensor_hash(work.place.chosen)
    stay = {*kept([name for name in own if not name.endswith(ENDING)], keep_last), newest.name}
    gone = []
    for name in [name for name in own if name not in stay and name.replace(ENDING, ".safetensors") not in stay]:
        path = work.place.result / name
        if path.is_file() and images.sha256(path) == own[name]:
            if tensor_hash(path) == picked:
                continue
            path.unlink()
            gone.append(path)
        del own[name]
    memory.parent.mkdir(exist_ok=True)
    write_whole(memory, (json.dumps(own) + "\n").encode())
    return gone


def write_losses(path: Path, losses: list[tuple[int, float, float]], *, synced: bool = True) -> None:
    with whole(path, synced=synced) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "loss", "lr"))
        writer.writerows(losses)


# ---------------------------------------------------------------- the line


class Rate(ProgressColumn):
    """Steps per second, or seconds per step where that is the larger number."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        told = "" if not speed else f"{speed:.1f} steps/s" if speed >= 1 else f"{1 / speed:.1f} s/step"
        return Text(told)


def bar() -> Progress:
    """Loss, steps, rate, memory, time left; on stderr, and only where somebody sees it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), Rate())
    more = (TextColumn("{task.fields[memory]}"), TimeRemainingColumn())
    return Progress(*columns, *more, console=console, transient=True, disable=not console.is_terminal)


def memory(base: Base) -> str:
    """What the training holds of the card's memory, or without one of the machine's."""
    if base.device.type == "cuda":
        import torch

        return f"{torch.cuda.memory_reserved(base.device) / 1e9:.1f} GB"
    return f"{psutil.Process().memory_info().rss / 1e9:.1f} GB"
