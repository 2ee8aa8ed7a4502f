"""LoRA files: kohya's names and shapes, exact alpha, metadata that interfaces read; whole or absent.

The same training gives the same bytes; header and hashes are those of `lora_header`.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lorafactory import families, files
from lorafactory.errors import InputError, SettingsError
from lorafactory.families import Base
from lorafactory.training import adapter, lora_header
from lorafactory.training.lora_header import tensor_hash
from lorafactory.training.precision import DTYPES


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, dtype: str = "fp16") -> str:
    """Write a file whole or not at all, every tensor in `dtype`; return its tensor hash. DiskFull if there is no room.

    An alpha that `dtype` cannot hold exactly, as fp16 cannot hold 3.3, stays in fp32.
    """
    data = encoded(path, tensors, metadata, dtype=dtype)
    files.room_for(path.parent, len(data))
    files.write_whole(path, data)
    return tensor_hash(path)


def encoded(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, dtype: str) -> bytes:
    """What `write` writes; InputError names `path` if a tensor is not finite in `dtype`."""
    converted = {name: _converted(name, tensor, DTYPES[dtype]) for name, tensor in tensors.items()}
    broken = [name for name, tensor in converted.items() if not torch.isfinite(tensor).all()]
    if broken:
        fits = all(torch.isfinite(tensor).all() for tensor in tensors.values())
        cure = ": too large for it, and save_dtype fp32 holds them" if fits else ""
        text = f"{path}: not written, {len(broken)} tensors are not finite in {dtype}, such as {broken[0]}{cure}."
        raise InputError(text)
    header, body = lora_header.split(safetensors.torch.save(converted))
    return lora_header.assemble(header, metadata, body)


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    small = tensor.to(dtype).contiguous()
    exact = not name.endswith(".alpha") or torch.equal(small.double(), tensor.double())
    return small if exact else tensor.float()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable LoRA file ({error}).") from error


@dataclass(frozen=True)
class Applied:
    """A LoRA that is in a base: what it changed, to be put back exactly."""

    tensors: int
    """How many of the file's tensors were used: all of them."""
    originals: tuple[tuple[nn.Parameter, Tensor], ...]
    """Each changed weight and a copy of what it was, on the CPU."""


@torch.no_grad()
def apply(base: Base, file: Path | Mapping[str, Tensor], strength: float = 1.0) -> Applied:
    """Add a LoRA's change, times `strength`, to the base's weights; every tensor must find its layer."""
    where = str(file) if isinstance(file, Path) else "the LoRA"
    tensors = read(file)[0] if isinstance(file, Path) else file
    grouped: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        layer, _, what = key.partition(".")
        grouped[layer][what] = tensor
    paths = {name: path for path, name in families.get(base.family).key_names(base).items()}
    strange = sorted(set(grouped) - set(paths))
    if strange:
        raise InputError(
            f"{where}: {len(strange)} of its {len(grouped)} layers are not in {base.name} ({base.family}), "
            f"such as {strange[0]}. It was made for another kind of base."
        )
    changes = []
    for name, group in grouped.items():
        weight = _weight(base, paths[name])
        changes.append((weight, adapter.delta(f"{where}: {name}", group, weight)))
    originals = tuple((weight, weight.detach().to("cpu", copy=True)) for weight, _ in changes)
    for weight, change in changes:
        weight.copy_(weight.float() + strength * change.to(weight.device))
    return Applied(len(tensors), originals)


@torch.no_grad()
def remove(applied: Applied) -> None:
    """Put back what `apply` changed, to the last bit. Several are removed in the reverse order."""
    for weight, original in applied.originals:
        weight.copy_(original)


@contextlib.contextmanager
def applied(base: Base, file: Path | Mapping[str, Tensor], strength: float = 1.0) -> Iterator[Applied]:
    """Have a LoRA in the base for the length of a `with` block."""
    there = apply(base, file, strength)
    try:
        yield there
    finally:
        remove(there)


def _weight(base: Base, path: str) -> nn.Parameter:
    part, _, module = path.partition(".")
    weight = base.parts[part].get_submodule(module).weight
    assert isinstance(weight, nn.Parameter)
    if not weight.is_floating_point():
        raise SettingsError(f"{base.name} is held in fewer bits, so no LoRA can be put in. Load it without quantize.")
    return weight
