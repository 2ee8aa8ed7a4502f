"""DINOv2 through transformers: vectors of how a thing looks rather than what it is called (Oquab et al., 2304.07193).

It sees pictures only. DreamBooth (2208.12242) measures likeness by it: CLIP forgives other members of a class.
Nothing is downloaded here: a model is a folder, or in the hub's cache already. Weights are safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafactory import images
from lorafactory.encoders._memory import batches
from lorafactory.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

BATCH, SIDE = 32, 224
"""Pictures at once; pixels of what a model looks at, if it was not made for fewer."""
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of the pictures it was trained on, 0..1."""
FOLDER = "folder:"
FILES = ("config.json", "model.safetensors")
KNOWN = {"facebook/dinov2-base": 346, "facebook/dinov2-small": 88}
"""Hub ids and the megabytes of their weights, the better one first."""


def found() -> str | None:
    """Return the first of the known models that is on this machine; None if there is none."""
    return next((model for model in KNOWN if missing(model) is None), None)


def missing(model: str) -> str | None:
    """Say what is not on this machine and how to get it; None if all is there."""
    lacking = [name for name in FILES if _file(model, name) is None]
    if not lacking:
        return None
    if model.startswith(FOLDER):
        return f"DINOv2 is not whole: {model.removeprefix(FOLDER)} has no {' and no '.join(lacking)}"
    size = f"about {KNOWN[model]} MB; " if model in KNOWN else ""
    return f"DINOv2 ({model}) is not on this machine: {size}hf download {model} {' '.join(FILES)}"


def sources(model: str) -> tuple[str, list[str]]:
    """The repository and the files on the hub that are needed."""
    return model, list(FILES)


def identity(model: str) -> str:
    """Return what tells this model's vectors from another's: the hash of its files, or its commit on the hub."""
    files = _files(model)
    if model.startswith(FOLDER):
        return "dino:" + hashlib.sha256("".join(images.sha256(path) for path in files).encode()).hexdigest()
    return f"dino:{model}@{files[0].parent.name}"


def _file(model: str, name: str) -> Path | None:
    if model.startswith(FOLDER):
        path = Path(model.removeprefix(FOLDER)) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, name)
    return Path(found) if isinstance(found, str) else None


def _files(model: str) -> list[Path]:
    if lacking := missing(model):
        raise InputError(lacking)
    return [path for name in FILES if (path := _file(model, name))]


@dataclass(frozen=True)
class Dino:
    """A loaded DINOv2, in fp32, on the GPU where there is one."""

    net: Any
    device: str
    side: int
    """Of what it looks at, in pixels."""

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return one row of length 1 per picture: the class token."""
        import torch

        rows = []
        with torch.inference_mode():
            for some in batches(pictures, BATCH):
                pixels = torch.from_numpy(np.stack([prepared(p, self.side) for p in some])).to(self.device)
                tokens = self.net(pixel_values=pixels).last_hidden_state[:, 0]
                rows.append(torch.nn.functional.normalize(tokens, dim=-1).cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def load(model: str) -> Dino:
    """Load a model; InputError if it is not on this machine."""
    config, _ = _files(model)
    import torch
    from transformers import Dinov2Model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net: Any = Dinov2Model.from_pretrained(config.parent, local_files_only=True, use_safetensors=True)
    side = min(SIDE, net.config.image_size)
    return Dino(net.to(device, torch.float32).eval().requires_grad_(False), device, side)


def prepared(picture: Image.Image, side: int = SIDE) -> NDArray[np.float32]:
    """A picture as channels x side x side about the model's mean; the whole of it, nothing is cut off."""
    from PIL import Image

    small = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = (np.asarray(small, np.float64) / 255 - MEAN) / DEVIATION
    rows: NDArray[np.float32] = pixels.transpose(2, 0, 1).astype(np.float32)
    return rows
