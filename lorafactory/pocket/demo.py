"""The demo's pictures: twenty stars with an eye, and something for every step of the chain to find."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from lorafactory.pocket import world
from lorafactory.pocket.concepts import CONCEPTS, VIVID

SEED = 7
COUNT = 20
APART = 165
"""Distance in RGB from which two colours are told apart at a glance: no orange star on yellow."""


def colours(count: int = COUNT) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of (star, background): those of the demo's pictures, and those left for trying the LoRA on.

    Every colour of star comes equally often: a LoRA from a set with one red star would not know red ones.
    """
    rng = random.Random(SEED)
    rest = {c: [b for b in VIVID if math.dist(world.COLOURS[c], world.COLOURS[b]) > APART] for c in VIVID}
    pairs = []
    while any(rest.values()):
        for star in rng.sample(VIVID, len(VIVID)):
            if rest[star]:
                pairs.append((star, rest[star].pop(rng.randrange(len(rest[star])))))
    return pairs[:count], pairs[count:]


def draw_demo(folder: Path, count: int = COUNT) -> int:
    """Draw the demo's originals into `folder` as somebody's pictures come: two formats, one broken; return how many."""
    rng = random.Random(SEED)
    stars = [CONCEPTS["eyestar"].draw(rng, *pair) for pair in colours(count)[0]]
    files = {f"star {i + 1:02}.png": encode(star) for i, star in enumerate(stars)}
    files["star 03 (copy).png"] = files["star 03.png"]
    files["Stern für später.jpg"] = encode(stars[4], "JPEG")
    files["star 06 flipped.png"] = encode(ImageOps.mirror(stars[5]))
    files["out of focus.png"] = encode(stars[7].filter(ImageFilter.GaussianBlur(5)))
    other = world.Scene("square", "black", "small", ("white", "gray"), world.HOLDING)
    files["not a star.png"] = encode(world.draw(other, rng))
    files["broken download.png"] = files["star 02.png"][: len(files["star 02.png"]) // 2]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return len(files)


def encode(picture: Image.Image, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    picture.save(data, form, quality=92)
    return data.getvalue()
