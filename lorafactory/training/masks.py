"""Which places of a picture are learned: a grey picture beside it, white for all, black for nothing.

Kohya's masked loss (sd-scripts `custom_train_functions.py: apply_masked_loss`), restated: the error of each latent
cell is multiplied by the mean of the mask over it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lorafactory import crops, images
from lorafactory.crops import Box
from lorafactory.training import pixels
from lorafactory.training.buckets import Fit, Size


def weight(
    path: Path, fit: Fit, cells: Size, *, flip: bool, crop: Box | None = None, whole: Size | None = None
) -> Tensor:
    """Weights (1, h, w) from 0 to 1 of a picture's latent `cells` (width, height), cut as its pixels are.

    `crop` is in pixels of the `whole` picture, whose mask may be of another size.
    """
    mask = images.load(path).convert("L")
    if crop and whole:
        mask = mask.crop(crops.scaled(crop, mask.width / whole[0], mask.height / whole[1]))
    found = torch.from_numpy(pixels.cut(mask, fit, flip=flip).copy())
    return interpolate(found[None, None].float() / 255, size=cells[::-1], mode="area")[0]
