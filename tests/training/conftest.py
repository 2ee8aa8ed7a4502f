"""Small drawn pictures and a tiny random base, shared by the trainer's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lorafactory import families
from lorafactory.families import Base
from lorafactory.training.adapter import Adapter, attach
from lorafactory.training.plan import Example
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings

SIZES = ((32, 32), (48, 32), (32, 48), (40, 40))
Draw = Callable[..., list[Example]]


def change(settings: TrainSettings, **values: object) -> TrainSettings:
    """The same settings with others in their place, looked at as if a person had written them."""
    return TrainSettings.model_validate({**settings.model_dump(), **values})


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def base() -> Base:
    return families.get("sd15").tiny()


@pytest.fixture(scope="module")
def pictures(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Five pictures of four sizes, each shown twice an epoch."""
    return draw(tmp_path_factory.mktemp("set") / "2_zqx", 5, repeats=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of a workspace."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def draw() -> Draw:
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


def attached(base: Base, s: TrainSettings, scale: float = 0.3) -> Adapter:
    """An adapter in a base whose every matrix is random and matters."""
    family = families.get(base.family)
    made = attach(
        family, base, kind=s.network, settings=s, parts=list(base.parts), generator=lambda name: generator(0, name)
    )
    with torch.no_grad():
        for index, weight in enumerate(p for part in base.parts for p in made.parameters(part)):
            weight.add_(scale * torch.randn(weight.shape, generator=generator(1, index)))
    return made
