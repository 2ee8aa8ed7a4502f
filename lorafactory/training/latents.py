"""Latents of pictures, cached by content: picture, cut, mirroring, VAE and precision, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorafactory import crops, heartbeat, images
from lorafactory.errors import FailedError
from lorafactory.families import Base, Family
from lorafactory.training import masks, pixels
from lorafactory.training.buckets import Fit
from lorafactory.training.cache import Cache, Entry
from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings

Latents = tuple[Tensor, Tensor]
"""Mean and deviation (c, h, w), scaled, fp32, on the CPU."""
FORMAT = 2
"""Raised when the same picture gives other latents than before."""


class Pictures:
    """The latents of a run's pictures."""

    def __init__(self, family: Family, base: Base, settings: TrainSettings, cache: Path) -> None:
        """`cache` is the workspace's cache folder."""
        self.family, self.base, self.settings = family, base, settings
        # each random cut is rarely met twice: the disk may hold them, memory need not
        most = 1 if settings.random_crop else None
        self.cache = Cache(cache / "latents" if settings.cache == "disk" else None, most=most)
        self.masks = Cache(None, most=most)

    def prepare(self, fitted: Sequence[tuple[Example, Fit]]) -> None:
        """Encode every picture, and its mirror image with `flip`; random cuts are encoded when they are drawn."""
        if self.settings.random_crop:
            return
        for example, fit in fitted:
            heartbeat.alive()
            for mirrored in (False, True) if self.settings.flip else (False,):
                self(example, fit, flip=mirrored)

    def __call__(self, example: Example, fit: Fit, *, flip: bool = False) -> Latents:
        """Latents of one picture, cut as `fit` says."""
        what = {
            "format": FORMAT,
            "image": example.sha256,
            "bucket": fit.bucket,
            "resized": fit.resized,
            "crop": fit.crop,
            "flip": flip,
            "vae": self.base.vae_sha256,
            "dtype": str(next(self.base.vae.parameters()).dtype),
            **({"part": example.crop} if example.crop else {}),
        }
        found = self.cache.get(what, lambda: self._encode(example, fit, flip=flip))
        return found["mean"], found["std"]

    def mask(self, example: Example, fit: Fit, *, flip: bool = False) -> Tensor | None:
        """Weights (1, h, w) of the latents' cells, cut as they are; None where all of the picture is learned."""
        file, factor = example.mask, self.base.latent_factor
        if file is None or not self.settings.masked_loss:
            return None
        cells = (fit.bucket[0] // factor, fit.bucket[1] // factor)
        what = {"name": example.name, "resized": fit.resized, "bucket": fit.bucket, "crop": fit.crop, "flip": flip}
        whole = (example.width, example.height)

        def made() -> Entry:
            return {"mask": masks.weight(file, fit, cells, flip=flip, crop=example.crop, whole=whole)}

        return self.masks.get(what, made)["mask"]

    def _encode(self, example: Example, fit: Fit, *, flip: bool) -> Entry:
        shown = crops.cut(images.load(example.path), example.crop)
        array = pixels.cut(shown, fit, flip=flip).astype(np.float32) / 127.5 - 1
        batch = torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()
        mean, std = (x[0].float() for x in self.family.encode_images(self.base, batch))
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise FailedError(f"{example.path}: the VAE of {self.base.name} gives latents that are not finite.")
        return {"mean": mean, "std": std}
