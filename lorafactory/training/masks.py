"""Which places of a picture are learned: a grey picture beside it, white for all, black for nothing.

Kohya's masked loss (sd-scripts `custom_train_functions.py: apply_masked_loss`), restated: the error of each latent
cell is multiplied by the mean of the mask over it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lorafactory import images
from lorafactory.training import pixels
from lorafactory.training.buckets import Fit, Size


def weight(path: Path, fit: Fit, cells: Size, *, flip: bool) -> Tensor:
    """Weights (1, h, w) from 0 to 1 of a picture's latent `cells` (width, height), cut as its pixels are."""
    found = torch.from_numpy(pixels.cut(images.load(path).convert("L"), fit, flip=flip).copy())
    return interpolate(found[None, None].float() / 255, size=cells[::-1], mode="area")[0]
