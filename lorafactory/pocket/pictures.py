"""What the pocket models see while they learn."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageFilter

from lorafactory.pocket import models, world


def pixels(pictures: Iterable[Image.Image]) -> torch.Tensor:
    """Stack pictures as float (n, 3, h, w) in -1..1."""
    stack = np.stack([np.asarray(p, dtype=np.float32) for p in pictures])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def painting(rng: random.Random) -> Image.Image:
    """Smooth colour noise with hard patches: lets the VAE carry what is not of the world, such as a photograph."""
    noise = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((world.SIDE, world.SIDE, 3))
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.4), (24, 0.25)):
        coarse = Image.fromarray((noise.random((cells, cells, 3)) * 255).astype(np.uint8))
        total += np.asarray(coarse.resize((world.SIDE, world.SIDE), Image.Resampling.BICUBIC)) * weight
    total = (total - total.min()) / (np.ptp(total) + 1e-6) * 255
    canvas = world.Canvas([(0, 0, 0)])
    canvas.image.paste(Image.fromarray(total.astype(np.uint8)).resize(canvas.image.size))
    for _ in range(rng.randint(0, 3)):
        where = (rng.uniform(0, world.SIDE), rng.uniform(0, world.SIDE), rng.uniform(5, 35), rng.uniform(0, 6))
        fill = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        canvas.shape(rng.choice(world.SHAPES), *where, fill)
    return canvas.finish()


def worn(picture: Image.Image, rng: random.Random) -> torch.Tensor:
    """What CLIP and BLIP see while they learn: shrunk, often a little blurred or noisy, as generated pictures are."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    picture = picture.resize((models.CLIP_SIDE, models.CLIP_SIDE), Image.Resampling.BICUBIC)
    tensor = pixels([picture])[0]
    if rng.random() < 0.3:
        tensor = tensor + torch.randn_like(tensor) * rng.uniform(0.01, 0.06)
    return tensor


def covered(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with some patches of colour on it (arXiv:1708.04552): what is said must not hang on a detail."""
    out = picture.copy()
    for _ in range(rng.randint(1, 3)):
        side = (rng.randint(5, 16), rng.randint(5, 16))
        place = (rng.randint(24, 72 - side[0]), rng.randint(24, 72 - side[1]))
        out.paste(world.paint(rng.choice(world.NAMES), rng), (*place, place[0] + side[0], place[1] + side[1]))
    return out
