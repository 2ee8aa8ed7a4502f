"""Base-model families: one file = one architecture; a new file in this folder is a new family.

A family is a module with the eight members of `Family`. The trainer, the sampler and the file format know a
base only through them, so nothing outside this folder asks which architecture it is working on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lorafactory.errors import SettingsError
from lorafactory.families._inspect import Found, detect, header, inspect, weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Base", "Family", "Found", "Frame", "Schedule", "detect", "get", "header", "inspect", "load", "names", "park",
    "resident", "weights",
]  # fmt: skip

MOST = 2
"""Bases that stay resident: one is trained, and another, in other precision, drawn with."""
_kept: dict[tuple[Any, ...], Base] | None = None
"""What `load` loaded, the latest last; None: nothing is kept."""


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
    """Left, top: not of the real cut, but where the picture would lie if the bucket held the whole of it (sd-scripts'
    `get_crop_ltrb`), so a picture that loses its edges counts as one that was not cut."""
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
    vae_name: str = ""
    """File or folder of the VAE, where it is not the base's own."""

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

    def load(
        self,
        path: Path,
        *,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        vae: Path | None = None,
        prediction: str | None = None,
    ) -> Base:
        """Load a diffusers folder or a one-file checkpoint, offline, frozen and in evaluation mode.

        `vae` is a file or folder whose VAE is used instead; `prediction` says what the base was taught to answer
        where it does not (`inspect`). `dtype` is fp32 where not given.
        """

    def encode_images(self, base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scaled latents (n, c, h/8, w/8) of pixels (n, 3, h, w) in -1..1."""

    def encode_captions(
        self,
        base: Base,
        captions: Sequence[str],
        frames: Sequence[Frame],
        *,
        clip_skip: int = 1,
        max_tokens: int = 75,
    ) -> dict[str, Tensor]:
        """Everything a model call needs beside latents and timesteps; each value has one row per caption.

        What of a caption is beyond `max_tokens` (75, 150 or 225) is cut off.
        """

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


@contextmanager
def resident() -> Iterator[None]:
    """Keep the bases that `load` loads, for whoever loads the same next: for a process that does one job after another.

    Whoever loads one leaves it as it was. After a failure nobody knows, so the process should end.
    """
    global _kept  # noqa: PLW0603
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def load(
    path: Path, *, dtype: torch.dtype | None = None, device: str = "cpu", vae: Path | None = None,
    prediction: str | None = None,
) -> Base:  # fmt: skip
    """Load a base as its `Family.load` does, or give the one that is resident."""
    family = get(detect(path))
    if _kept is None:
        return family.load(path, dtype=dtype, device=device, vae=vae, prediction=prediction)
    key = (_stamp(path), _stamp(vae), prediction, dtype, device)
    found = _kept.pop(key, None)
    if found is None:
        while len(_kept) >= MOST:
            del _kept[next(iter(_kept))]
        found = family.load(path, dtype=dtype, device=device, vae=vae, prediction=prediction)
    _kept[key] = found
    return _move(found, found.device)


def park() -> None:
    """Make room on the card for other models: what is resident waits in the machine's memory."""
    for base in (_kept or {}).values():
        _move(base, "cpu")


def _move(base: Base, device: torch.device | str) -> Base:
    for module in (*base.parts.values(), base.vae):
        module.to(device)
    return base


def _stamp(path: Path | None) -> tuple[Any, ...]:
    """What tells that a base on disk is still the same: its weights, and what a folder says of itself."""
    files = [path] if path else []
    if path and path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".safetensors", ".json"))
    return tuple((str(f), (told := f.stat()).st_size, told.st_mtime_ns) for f in files)
