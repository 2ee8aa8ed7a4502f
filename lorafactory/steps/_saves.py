"""The saves of a training, as their files tell it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lorafactory import families, images
from lorafactory.errors import InputError
from lorafactory.step import Work
from lorafactory.training.saves import AVERAGE


@dataclass(frozen=True)
class Save:
    """A LoRA file of a training."""

    path: Path
    epoch: int
    """That it ends, or that its step belongs to; counted from 1, 0 is not known."""
    step: int
    """Steps done by then; 0 is not known."""
    label: str
    """What people call it: `epoch 4`, or `step 1500` of a save within an epoch."""
    average: bool = False
    """The running average beside a save."""


def find_saves(work: Work) -> list[Save]:
    """The saves of the current training, the earliest first."""
    return saves_in(work.place.result)


def saves_in(folder: Path) -> list[Save]:
    """The saves of the training in a folder, the earliest first."""
    paths = [p for p in folder.glob("*.safetensors") if not p.name.startswith(".")]
    found = [told(path) for path in paths]
    found.sort(key=lambda save: (save.epoch, save.step, save.average, images.natural(save.path.name)))
    labels = [save.label for save in found]
    return [
        replace(save, label=f"{save.label}, step {save.step}") if labels.count(save.label) > 1 else save
        for save in found
    ]


def told(path: Path) -> Save:
    """A save as its metadata and its name tell it: NAME-000004, or kohya's NAME-step00001500."""
    says = papers(path)
    average = path.stem.endswith(AVERAGE)
    ending = re.search(r"(-step)?(\d+)$", path.stem.removesuffix(AVERAGE))
    number = int(ending[2]) if ending else 0
    within = bool(ending and ending[1])
    epoch = _number(says.get("ss_epoch")) or (0 if within else number)
    step = _number(says.get("ss_steps")) or (number if within else 0)
    label = f"step {step}" if within else f"epoch {epoch}"
    return Save(path, epoch, step, f"{label}, average" if average else label, average)


def _number(said: str | None) -> int:
    """What the metadata say; other tools also write `None`."""
    return int(said) if said and said.isdecimal() else 0


def papers(path: Path) -> dict[str, str]:
    """The metadata of a LoRA file."""
    try:
        return dict(families.header(path).get("__metadata__", {}))
    except (ValueError, struct.error, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({error}); move it away or train again") from error


def trained_for(paths: Iterable[Path]) -> float | None:
    """Seconds that the trainings of these files took, each counted once; None where no file tells."""
    spans: dict[float, float] = {}
    for path in paths:
        says = papers(path)
        try:
            started, ended = (float(says[f"ss_training_{what}_at"]) for what in ("started", "finished"))
        except (KeyError, ValueError):
            continue
        spans[started] = max(spans.get(started, 0.0), ended - started)
    return sum(spans.values()) or None
