"""Base-model families: one file = one architecture; a new file in this folder is a new family.

A family is a module with the eight members of `Family`. The trainer, the sampler and the file format know a
base only through them, so nothing outside this folder asks which architecture it is working on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lorafactory.errors import BaseError, SettingsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Keys of a one-file checkpoint that tell the architectures apart. All of a family's must be there.
MARKERS = {
    "sd15": (
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ),
    "sdxl": (
        "model.diffusion_model.label_emb.0.0.weight",
        "conditioner.embedders.1.model.token_embedding.weight",
    ),
    "sd2": ("cond_stage_model.model.token_embedding.weight",),
}
PIPELINES = {
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
}


class Schedule(Protocol):
    """How a base was taught to go from noise to picture. t is a vector of whole timesteps."""

    prediction_type: str
    num_timesteps: int

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...
    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...
    def snr(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Frame:
    """Where a training picture sits in its bucket, in pixels: what SDXL is told beside the caption."""

    original: tuple[int, int]
    """Width, height of the file."""
    crop: tuple[int, int]
    """Left, top."""
    target: tuple[int, int]
    """Width, height of the bucket."""


@dataclass
class Base:
    """A loaded base model. `parts` are what adapters attach to: `unet`, `text_encoder`, ..."""

    family: str
    name: str
    """File or folder name, for messages and metadata."""
    parts: dict[str, nn.Module]
    tokenizers: tuple[Any, ...]
    vae: Any
    scheduler: Any
    """The scheduler of the folder, read for its settings only."""
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype
    """Of the frozen parts; the VAE always stays in fp32."""
    labels: Mapping[str, str]
    """What a LoRA file's metadata says of the family."""

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @cached_property
    def vae_sha256(self) -> str:
        """Of all weights and the scale, in name order: equal ones give equal latents, whatever the file."""
        import torch

        digest = hashlib.sha256(json.dumps([self.vae.config.scaling_factor, self.vae.config.shift_factor]).encode())
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


class Family(Protocol):
    """What a base-model family brings. Implemented by a module of this folder."""

    targets: Mapping[str, tuple[str, ...]]
    """Class names of the blocks whose layers an adapter may change: `attention`, `resnet`, `text`."""

    def load(self, path: Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> Base:
        """Load a diffusers folder or a one-file checkpoint, offline, frozen and in evaluation mode."""

    def encode_images(self, base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scaled latents (n, c, h/8, w/8) of pixels (n, 3, h, w) in -1..1."""

    def encode_captions(
        self, base: Base, captions: Sequence[str], frames: Sequence[Frame], *, clip_skip: int = 1
    ) -> dict[str, Tensor]:
        """Everything a model call needs beside latents and timesteps; each value has one row per caption."""

    def predict(self, base: Base, noisy: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """What the denoiser says of noisy latents (n, c, h, w), in fp32; compare with `schedule.target`."""

    def key_names(self, base: Base) -> dict[str, str]:
        """Kohya's name of every layer that can carry an adapter, by `part.module.path`."""

    def pipeline(self, base: Base) -> Any:
        """Return a diffusers pipeline over the same modules (nothing is copied), with a DDIM scheduler."""

    def tiny(self, seed: int = 0) -> Base:
        """Build a small base with random weights in memory, for tests."""


def names() -> list[str]:
    """Every family there is: the Python files of this folder. Those with a leading underscore are helpers."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> Family:
    if name not in names():
        raise SettingsError(f"There is no base-model family {name!r}. Known: {', '.join(names())}.")
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def detect(path: Path) -> str:
    """Say the family of a base from little of it: `model_index.json`, or the header of a checkpoint."""
    if path.is_dir():
        found = _family_of_folder(path)
    elif path.suffix == ".safetensors" and path.is_file():
        found = _family_of_checkpoint(path)
    elif not path.exists():
        raise BaseError(f"{path}: there is no such base model.")
    else:
        raise BaseError(
            f"{path}: not a base this can load. Bring a .safetensors checkpoint or a diffusers folder; "
            "a .ckpt can hold programs and is never opened."
        )
    if found not in names():
        raise BaseError(f"{path}: a base of family {found}, which is not supported. Known: {', '.join(names())}.")
    return found


def _family_of_folder(path: Path) -> str:
    index = path / "model_index.json"
    if not index.is_file():
        raise BaseError(f"{path}: not a diffusers folder, it has no model_index.json.")
    try:
        pipeline = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise BaseError(f"{index}: cannot be read ({error}).") from error
    return PIPELINES.get(pipeline, str(pipeline))


def _family_of_checkpoint(path: Path) -> str:
    try:
        keys = header(path).keys()
    except (ValueError, struct.error, OSError) as error:
        raise BaseError(f"{path}: not a whole .safetensors file ({error}). Download it again.") from error
    for family, markers in MARKERS.items():
        if all(marker in keys for marker in markers):
            return family
    if any(key.startswith(("lora_", "lycoris_")) for key in keys):
        raise BaseError(f"{path}: this is a LoRA; a base model is needed.")
    raise BaseError(f"{path}: no base model was recognised in it (is it only a UNet or a VAE?).")


def header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: name -> dtype, shape, offsets; no tensor is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError(f"the header needs {length} bytes and the file has {size}")
        found = json.loads(file.read(length))
    if not isinstance(found, dict):
        raise ValueError("the header is no table")
    end = max((v["data_offsets"][1] for k, v in found.items() if k != "__metadata__"), default=0)
    if end + 8 + length != size:
        raise ValueError(f"{end + 8 + length} bytes expected, {size} found")
    return found
