"""Small drawn pictures and a tiny random base, shared by the trainer's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings

SIZES = ((32, 32), (48, 32), (32, 48), (40, 40))


@pytest.fixture(scope="session")
def draw() -> Callable[..., list[Example]]:
    """Draw pictures of a few sizes into a folder; nothing in them is random."""

    def make(folder: Path, count: int = 4, repeats: int = 1) -> list[Example]:
        folder.mkdir(parents=True, exist_ok=True)
        examples = []
        for i in range(count):
            image = Image.new("RGB", SIZES[i % len(SIZES)], (40 * i % 256, 120, 200))
            ImageDraw.Draw(image).ellipse((4, 4, 16 + i, 20), fill=(250, 30 * i % 256, 10))
            path = folder / f"{i:04}.png"
            image.save(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            examples.append(Example(path.name, path, digest, f"zqx, a dot, no {i}", repeats, *image.size))
        return examples

    return make


@pytest.fixture(scope="session")
def quick() -> TrainSettings:
    """Two epochs with every option that draws at random switched on."""
    return TrainSettings(
        epochs=2,
        batch=2,
        resolution=64,
        bucket_step=8,
        min_bucket=16,
        max_bucket=64,
        rank=4,
        alpha=2,
        conv_rank=3,
        conv_alpha=1,
        lr=1e-2,
        min_snr_gamma=5,
        noise_offset=0.05,
        shuffle_captions=True,
        caption_dropout=0.2,
        tag_dropout=0.2,
        keep_tokens=1,
        flip=True,
        seed=7,
    )
