"""Parts of a base from a diffusers folder or from a one-file checkpoint: offline, and never twice in memory.

A one-file checkpoint is read tensor by tensor into models made from the small configurations in the package:
whatever a model needs is looked up in the file by its original name. (diffusers' own single-file loader holds the
whole file, fills what it does not find with nothing, and depends on how transformers names its layers.)
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTokenizer

from lorafactory.errors import BaseError, LoraError
from lorafactory.families import Base
from lorafactory.families._ddpm import Ddpm
from lorafactory.families._inspect import Found, inspect
from lorafactory.families._names import Place, Places, vae_places


@dataclass(frozen=True)
class Source:
    """A base on disk, and how its parts are to be loaded."""

    path: Path
    found: Found
    config: Path
    """The family's configurations in the package, laid out like a diffusers folder."""
    dtype: torch.dtype
    device: str
    other_vae: Path | None

    def base(self, parts: dict[str, nn.Module], tokenizers: tuple[Any, ...], labels: Mapping[str, str]) -> Base:
        """Put the base together with its VAE and scheduler."""
        name, vae_name = self.path.name, self.other_vae.name if self.other_vae else ""
        made = assembled(self.found.family, name, parts, tokenizers, self.vae(), self.scheduler(), labels)
        return replace(made, device=torch.device(self.device), dtype=self.dtype, vae_name=vae_name)

    def part(self, name: str, cls: Any, places: Places) -> nn.Module:
        """Load one part: a subfolder of a folder, or its tensors of a file."""
        if self.path.is_dir():
            return from_folder(cls, self.path / name, self.dtype, self.device)
        return from_file(cls, self.path, self.config / name, places, self.dtype, self.device)

    def vae(self) -> nn.Module:
        """Load the VAE, always in fp32: the base's own, or that of another file or folder."""
        path = self.other_vae or self.path
        if path.is_dir():
            folder = path / "vae" if (path / "vae").is_dir() else path
            return from_folder(AutoencoderKL, folder, torch.float32, self.device)
        own = self.path / "vae"  # of a folder; not a whole base's scale and sizes but its own
        config = own if (own / "config.json").is_file() else self.config / "vae"
        return from_file(AutoencoderKL, path, config, vae_places, torch.float32, self.device)

    def scheduler(self) -> Any:
        """Read the scheduler's settings, with what the base was found to be taught."""
        found = self.found
        # these families' schedulers share the fields that DDIM reads, so a folder's own class does not matter
        where = self.path if self.path.is_dir() else self.config
        told: dict[str, Any] = {"prediction_type": found.prediction_type, "rescale_betas_zero_snr": found.zero_snr}
        if found.zero_snr and not self.path.is_dir():
            told["timestep_spacing"] = "trailing"  # drawing has to begin where all is noise (arXiv 2305.08891)
        return DDIMScheduler.from_pretrained(where, subfolder="scheduler", local_files_only=True, **told)


def assembled(
    family: str,
    name: str,
    parts: dict[str, nn.Module],
    tokenizers: tuple[Any, ...],
    vae: nn.Module,
    scheduler: Any,
    labels: Mapping[str, str],
) -> Base:
    """A base of these parts, frozen: in fp32 on the CPU, unless its maker says otherwise."""
    for module in (*parts.values(), vae):
        module.requires_grad_(requires_grad=False).eval()
    schedule = Ddpm(scheduler.config, name)
    where, dtype = torch.device("cpu"), torch.float32
    return Base(family, name, parts, tokenizers, vae, scheduler, schedule, where, dtype, labels)


def from_folder(cls: Any, folder: Path, dtype: torch.dtype, device: str) -> nn.Module:
    """Load one part of a diffusers folder; the fp16 variant where there is no other."""
    files = [f.name for f in folder.glob("*.safetensors")]
    variant = "fp16" if files and all(".fp16." in name for name in files) else None
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": variant}
    loaded: nn.Module = cls.from_pretrained(folder, dtype=dtype, **options)
    return loaded.to(device)


def tokenizer_from(folder: Path, pad: str | None = None) -> CLIPTokenizer:
    """Load a folder's tokenizer; `pad` is the token that fills a row up, where it is another than the end's."""
    # SDXL's second one fills up with "!". Declared as a token of its own, as in those folders, it would also be
    # taken out of captions; OpenCLIP, which the encoder was trained with, reads it as any other character.
    plain: dict[str, Any] = {"pad_token": None, "added_tokens_decoder": {}} if pad else {}
    made: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True, **plain)
    return padded_with(made, pad) if pad else made


def padded_with(tokenizer: CLIPTokenizer, pad: str) -> CLIPTokenizer:
    tokenizer.pad_token = pad
    return tokenizer


def from_file(cls: Any, path: Path, config: Path, places: Places, dtype: torch.dtype, device: str) -> nn.Module:
    """Load one part of a one-file checkpoint into a model made from a folder's configuration."""
    with init_empty_weights(include_buffers=False):  # parameters that take no memory yet
        if hasattr(cls, "load_config"):
            module: nn.Module = cls.from_config(cls.load_config(config))
        else:
            module = cls(cls.config_class.from_pretrained(config, local_files_only=True))
    sizes = json.loads((config / "config.json").read_text(encoding="utf-8"))
    fill(module, path, places, sizes, dtype=dtype, device=device)
    return module.to(device)


def fill(
    module: nn.Module, path: Path, places: Places, config: Mapping[str, Any], *, dtype: torch.dtype, device: str
) -> None:
    """Give a model its tensors from a file, one at a time; raise BaseError with what is missing or of another size."""
    wanted = module.state_dict()
    state, wrong = {}, []
    with safe_open(path, framework="pt") as file:
        there = set(file.keys())
        for key, hollow in wanted.items():
            place = next((p for p in places(key, config) if p.name in there), None)
            tensor = None if place is None else _fitted(file.get_tensor(place.name), place, hollow.shape)
            if tensor is None:
                wrong.append(f"{(place or places(key, config)[0]).name} {'is missing' if place is None else 'differs'}")
            else:
                # a copy: what the file holds would stay bound to it, and must outlast it
                state[key] = tensor.to(device=device, dtype=dtype, copy=True)
    if wrong:
        kind = type(module).__name__
        raise BaseError(
            f"{path}: {len(wrong)} of the {len(wanted)} tensors of its {kind} do not fit, such as: {wrong[0]}."
        )
    module.load_state_dict(state, assign=True)


def _fitted(tensor: Tensor, place: Place, shape: torch.Size) -> Tensor | None:
    """Take what is meant out of a file's tensor; None where it has another size."""
    if place.third is not None and tensor.shape[0] % 3 == 0:
        tensor = tensor.chunk(3)[place.third]
    if place.transposed:
        tensor = tensor.T
    if tensor.ndim == len(shape) + 2 and tensor.shape[-2:] == (1, 1):
        tensor = tensor[..., 0, 0]  # a 1x1 convolution that is a linear layer here
    return tensor.contiguous() if tensor.shape == shape else None


@contextlib.contextmanager
def opened(
    path: Path, config: Path, *, dtype: torch.dtype | None, device: str, vae: Path | None, prediction: str | None
) -> Iterator[Source]:
    """Look at a base and have it loaded in a `with` block; whatever library fails in it, say which base it was."""
    found = inspect(path, vae=vae, prediction=prediction)
    with quiet():
        try:
            yield Source(path, found, config, dtype or torch.float32, device, vae)
        except LoraError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise BaseError(f"{path}: cannot be loaded as a base of family {found.family}: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the libraries' bars and notices; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
