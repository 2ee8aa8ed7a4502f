"""`rename` on two cores against one Pillow process that decodes, turns and saves the same files at the same PNG level.

Times are the best of several rounds taken in turn, so that other work on the machine hits all alike. Two such Pillow
processes at once show what the machine can give at best; processor time shows what `rename` does beyond Pillow's part:
hashes, equal pictures, files that are whole or absent.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage import data

from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import rename
from lorafactory.workspace import Workspace

PICTURES, SIZE, ROUNDS = 8, (2048, 1536), 9
"""No larger than `rename` leaves them: reduced ones would be saved faster than Pillow's."""


def photographs(folder: Path) -> None:
    """Photographs as a telephone saves them, a third of them lying on their side."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    for i in range(PICTURES):
        picture = Image.fromarray(sources[i % 4]).rotate(3 * i).resize(SIZE, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, (SIZE[1], SIZE[0], 1))
        picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 3 == 0 else 1
        picture.save(folder / f"{i}.jpg", quality=92, exif=exif)


def by_pillow(paths: list[Path], out: Path) -> None:
    """What a script of ten lines does."""
    for path in paths:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image).save(out / f"{path.stem}.png", compress_level=2)


def by_rename(root: Path) -> None:
    space = Workspace(root, "bench")
    shutil.rmtree(space.lora("bench").images, ignore_errors=True)
    result = rename.run(Work(space, space.lora("bench"), Recipe(Header(trigger="b3nch"), {}, {})), rename.Settings())
    assert len(result.data["imported"]) == PICTURES


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - busy


def same_level() -> bool:
    from lorafactory import images

    buffer = io.BytesIO()
    picture = Image.fromarray(data.astronaut())
    picture.save(buffer, "PNG", compress_level=2)
    return images.png(picture) == buffer.getvalue()


def main() -> None:
    assert same_level(), "the level in by_pillow is not that of images.png"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder, pool() as two:
        root = Path(folder)
        source = root / "loras" / "bench" / "source"
        photographs(source)
        paths = sorted(source.iterdir())
        halves = (paths[::2], paths[1::2])
        times: dict[str, list[tuple[float, float]]] = {"one": [], "two": [], "rename": []}
        for _ in range(ROUNDS):
            times["one"].append(seconds(lambda: by_pillow(paths, root)))
            times["two"].append(seconds(lambda: list(two.map(by_pillow, halves, (root, root)))))
            times["rename"].append(seconds(lambda: by_rename(root)))
    wall = {name: min(w for w, _ in rounds) for name, rounds in times.items()}
    busy = {name: min(b for _, b in rounds) for name, rounds in times.items()}
    print(f"one Pillow process      {wall['one']:6.2f} s for {PICTURES} pictures of {SIZE[0]} x {SIZE[1]}")
    print(
        f"two Pillow processes    {wall['two']:6.2f} s   {wall['one'] / wall['two']:5.2f} times as fast: what there is"
    )
    print(f"lora rename             {wall['rename']:6.2f} s   {wall['one'] / wall['rename']:5.2f} times (1.7 wanted)")
    print(f"processor time          {busy['rename'] / busy['one']:6.2f} times that of one Pillow process")


def pool() -> ProcessPoolExecutor:
    """Two processes that are up and have imported what they need."""
    made = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    list(made.map(time.sleep, (0.5, 0.5)))
    return made


if __name__ == "__main__":
    main()
