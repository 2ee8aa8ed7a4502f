"""Pictures for the tests of commands: quick to draw, unlike each other, large enough to be taken."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw


def drawn(seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (272, 264), tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(10):
        x, y = rng.randrange(250), rng.randrange(240)
        pen.rectangle((x, y, x + rng.randrange(20, 90), y + rng.randrange(20, 90)), tuple(rng.choices(range(256), k=3)))
    return image


def draw_all(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        drawn(i).save(folder / f"IMG {i}.png")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below, by its place; the lock left out."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lora.lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}
