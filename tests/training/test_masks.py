"""What a mask hides is not learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lorafactory import families
from lorafactory.training import forward, masks
from lorafactory.training.buckets import Fit
from lorafactory.training.conditioning import Words
from lorafactory.training.latents import Pictures
from lorafactory.training.plan import Example, Item, plan
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import Draw


def split(path: Path, size: tuple[int, int], left: int = 255, right: int = 0) -> Path:
    image = Image.new("L", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    image.save(path)
    return path


def test_a_mask_is_cut_as_its_picture_and_meaned_over_each_cell(tmp_path: Path) -> None:
    path = split(tmp_path / "mask.png", (40, 16), right=51)
    # cut from 8 to 40: of 8 cells the border at 20 is the middle of the fourth
    fit = Fit((32, 16), (40, 16), (8, 0))
    found = masks.weight(path, fit, (8, 4), flip=False)
    assert found.shape == (1, 4, 8)
    torch.testing.assert_close(found[0, 0], torch.tensor([1, 1, 1, *[0.2] * 5]))
    assert torch.equal(masks.weight(path, fit, (8, 4), flip=True), found.flip(2))
    # a mask of another size is brought to the picture's
    small = split(tmp_path / "small.png", (20, 8), right=51)
    torch.testing.assert_close(
        masks.weight(small, Fit((32, 16), (40, 16), (4, 0)), (8, 4), flip=False)[0, 0],
        torch.tensor([1.0] * 4 + [0.2] * 4),
        rtol=0,
        atol=0.05,  # Lanczos rings at the border
    )


def test_the_loss_counts_what_the_mask_shows(draw: Draw, quick: TrainSettings, tmp_path: Path) -> None:
    base = families.get("sd15").tiny()
    family = families.get("sd15")
    s = quick.model_copy(update={"flip": False, "prior_loss_weight": 0.25})
    plain = draw(tmp_path / "set", 1)[0]

    def loss(example: Example, settings: TrainSettings = s) -> float:
        item = Item(example, plan([replace(example, reg=False)], settings).fits[example.name], 0)
        pictures, words = Pictures(family, base, settings, tmp_path), Words(family, base, settings)
        found: Tensor = forward.losses(base, [item], pictures, words, settings, epoch=1, step=0)
        return float(found.detach())

    size = (plain.width, plain.height)
    shown = [split(tmp_path / f"{a}-{b}.png", size, a, b) for a, b in ((255, 255), (255, 0), (0, 255), (0, 0))]
    whole, left, right, nothing = (loss(replace(plain, mask=path)) for path in shown)
    assert whole == pytest.approx(loss(plain)) and nothing == 0
    assert left > 0 and right > 0 and left + right == pytest.approx(whole)
    off = s.model_copy(update={"masked_loss": False})
    assert loss(replace(plain, mask=shown[3]), off) == loss(plain)
    # a picture of regularisation counts with the weight of its kind
    assert loss(replace(plain, reg=True)) == pytest.approx(0.25 * loss(plain))
