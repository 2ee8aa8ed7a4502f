"""The saves of the current training, as their files tell it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from lorafactory import families, images
from lorafactory.errors import InputError
from lorafactory.step import Work


@dataclass(frozen=True)
class Save:
    """A LoRA file of the current training."""

    path: Path
    epoch: int
    label: str


def find_saves(work: Work) -> list[Save]:
    """The saves of the current training, the earliest first."""
    paths = [p for p in work.place.result.glob("*.safetensors") if not p.name.startswith(".")]
    numbered = []
    for path in paths:
        told = papers(path)
        ending = re.search(r"(\d+)$", path.stem)
        epoch = int(told.get("ss_epoch") or (ending[1] if ending else 0))
        numbered.append((epoch, int(told.get("ss_steps") or 0), images.natural(path.name), path))
    numbered.sort()
    epochs = [epoch for epoch, *_ in numbered]
    return [
        Save(path, epoch, f"epoch {epoch}" + (f", step {step}" if epochs.count(epoch) > 1 else ""))
        for epoch, step, _, path in numbered
    ]


def papers(path: Path) -> dict[str, str]:
    """The metadata of a LoRA file."""
    try:
        return dict(families.header(path).get("__metadata__", {}))
    except (ValueError, struct.error, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({error}); move it away or train again") from error
