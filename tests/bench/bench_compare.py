"""Does a comparison draw as fast as diffusers alone, and what is it beside its training?

Both draw the same prompts and seeds, in the same batches, at the same size and steps, with the pocket's base in one
process, in turns; ours with a LoRA swapped in for every column, as a comparison does it. The second number is of the
steps that a LoRA's record tells: a training and the comparison after it.

    .venv/bin/python tests/bench/bench_compare.py
    .venv/bin/python tests/bench/bench_compare.py --workspace .bench --lora eyestar-right
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from lorafactory import families
from lorafactory.scoring.prompts import Prompt
from lorafactory.steps._cells import Board, Checkpoint, Column, How
from lorafactory.steps._saves import Save
from lorafactory.steps._studio import Studio
from lorafactory.steps.compare import drawn_with
from lorafactory.store import Store
from lorafactory.training import adapter, lora_file
from lorafactory.training.settings import TrainSettings
from lorafactory.workspace import find_workspace, model_set

clock = time.perf_counter if torch.cuda.is_available() else time.process_time
"""Without a card the processor's time, of which other programs take none."""
SEEDS, BATCH = (1, 2, 3, 4), 4
TEXTS = ("d3mo", "d3mo, a large yellow star in front of a plain blue background")


def a_lora(path: Path, base: Any) -> Path:
    """A LoRA of every layer, of random numbers."""
    family = families.get(base.family)
    generator = torch.Generator().manual_seed(0)
    made = adapter.attach(
        family,
        base,
        kind="lora",
        settings=TrainSettings(rank=16, alpha=16),
        parts=list(base.parts),
        generator=lambda name: generator,
    )
    tensors = {name: tensor + 0.01 if "up" in name else tensor for name, tensor in made.state().items()}
    made.detach()
    lora_file.write(path, tensors, {})
    return path


def ours(studio: Studio, columns: list[Column], folder: Path, how: How) -> float:
    """Seconds a picture, with the swapping of LoRAs and the writing of files."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        board = Board(Path(place), [Prompt(text, True, text) for text in TEXTS], SEEDS, how)
        cells = board.cells(columns, board.spots)
        began = clock()
        studio.paint(cells, lambda items, what: items, "")
        return (clock() - began) / len(cells)


def plain(pipe: Any, columns: int, how: How) -> float:
    """Seconds a picture of diffusers' own pipeline, called with one prompt and its seeds at a time."""
    began = clock()
    for text in TEXTS * columns:
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        size = {"width": how.side, "height": how.side}
        pipe([text] * BATCH, generator=generators, num_inference_steps=how.steps, guidance_scale=how.cfg, **size)
    return (clock() - began) / (columns * len(TEXTS) * len(SEEDS))


def throughput(turns: int, side: int, steps: int) -> None:
    """Print how many of the plain pipeline's pictures a second ours draws."""
    models = model_set(find_workspace(Path.cwd()), "pocket")
    assert models.base is not None
    how = How(side, 1, steps, 7.0, *drawn_with("fp32"))
    with tempfile.TemporaryDirectory() as place:
        base = families.get("sd15").load(models.base)
        file = a_lora(Path(place) / "lora.safetensors", base)
        home = Checkpoint(models, "bench")
        columns = [Column(home), *(Column(home, Save(file, n, n, f"epoch {n}"), 1.0, str(n)) for n in (1, 2))]
        pipe, studio = families.get("sd15").pipeline(base), Studio(how, BATCH)
        ours(studio, columns[:1], Path(place), how), plain(pipe, 1, how)  # what the first call costs is neither's
        pairs = [(ours(studio, columns, Path(place), how), plain(pipe, len(columns), how)) for _ in range(turns)]
    ratios = sorted(their / own for own, their in pairs)
    own, their = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"{side} px, {steps} steps, batch {BATCH}: ours {own:.3f} s a picture, the plain pipeline {their:.3f} s")
    print(f"  ours draws {statistics.median(ratios):.3f} times as many a second ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def share(workspace: Path, name: str) -> None:
    """Print what the last comparison took beside the training, by the record."""
    with Store(find_workspace(workspace).record, readonly=True) as store:
        found = {step: store.last(name, step) for step in ("train", "compare")}
    train, compare = (found[step].wall_s if found[step] else None for step in ("train", "compare"))
    if train and compare:
        print(f"{name}: training {train:.0f} s, comparison {compare:.0f} s, {compare / train:.3f} of it")
    else:
        print(f"{name}: the record of {workspace} has no finished training and comparison")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--turns", type=int, default=5)
    asked.add_argument("--side", type=int, default=96)
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--workspace", type=Path, help="of a LoRA that was trained and compared")
    asked.add_argument("--lora", default="demo")
    told = asked.parse_args()
    busy = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"{torch.get_num_threads()} threads, {busy}; torch {torch.__version__}")
    throughput(told.turns, told.side, told.steps)
    if told.workspace:
        share(told.workspace, told.lora)


if __name__ == "__main__":
    main()
