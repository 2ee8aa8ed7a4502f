"""Latents, cached by content: what the picture, its cut, the VAE and the precision are, and nothing else.

So an edited picture or another resolution can never meet an old entry, and equal pictures share one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from lorafactory import files, images
from lorafactory.errors import FailedError
from lorafactory.families import Base, Family
from lorafactory.training.buckets import Fit
from lorafactory.training.plan import Example

Latents = tuple[Tensor, Tensor]
"""Mean and deviation (c, h, w), scaled, fp32, on the CPU."""


def cached(
    family: Family,
    base: Base,
    example: Example,
    fit: Fit,
    *,
    cache: Path,
    flip: bool,
) -> Latents:
    """Read the latents of one picture from the cache folder, or make and keep them."""
    file = cache / f"{_key(base, example, fit, flip=flip)}.safetensors"
    try:
        found = load_file(file)
        return found["mean"], found["std"]
    except FileNotFoundError:
        pass
    except (safetensors.SafetensorError, KeyError):
        file.unlink()  # a cache is safe to delete; a broken entry is made again
    pixels = _pixels(example.path, fit, flip=flip)
    mean, std = (x[0].float().cpu().contiguous() for x in family.encode_images(base, pixels[None]))
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise FailedError(f"{example.path}: the VAE of {base.name} gives latents that are not finite.")
    files.write_whole(file, save({"mean": mean, "std": std}))
    return mean, std


def all_of(
    family: Family,
    base: Base,
    examples: Sequence[tuple[Example, Fit]],
    *,
    cache: Path,
    flip: bool,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> dict[tuple[str, bool], Latents]:
    """Latents of every picture, and of its mirror image where `flip` says so, by (name, mirrored)."""
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for done, (example, fit) in enumerate(examples, 1):
        for mirrored in (False, True) if flip else (False,):
            found[example.name, mirrored] = cached(family, base, example, fit, cache=cache, flip=mirrored)
        on_picture(done, len(examples))
    return found


def _key(base: Base, example: Example, fit: Fit, *, flip: bool) -> str:
    what = {
        "format": 1,
        "image": example.sha256,
        "bucket": fit.bucket,
        "resized": fit.resized,
        "crop": fit.crop,
        "flip": flip,
        "vae": base.vae_sha256,
        "dtype": str(next(base.vae.parameters()).dtype),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _pixels(path: Path, fit: Fit, *, flip: bool) -> Tensor:
    """Resize, cut and scale one picture to (3, h, w) in -1..1."""
    image = images.load(path)
    if image.size != fit.resized:
        # antialiased both ways; sd-scripts shrinks with OpenCV's area filter, one more dependency
        image = image.resize(fit.resized, Image.Resampling.LANCZOS)
    left, top = fit.crop
    image = image.crop((left, top, left + fit.bucket[0], top + fit.bucket[1]))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    array = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
