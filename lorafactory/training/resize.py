"""A LoRA of a smaller rank: the nearest there is to it.

A layer's change is up @ down. Of all matrices of rank r, what its r largest singular values make is nearest to it in
the Frobenius norm (Eckart and Young 1936). As in sd-scripts (`networks/resize_lora.py`) the scale alpha / rank stays
what it was, so alpha becomes alpha * r / rank.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorafactory.errors import InputError
from lorafactory.training import adapter, lora_file
from lorafactory.training.precision import DTYPES

PLAIN = {"lora_down.weight", "lora_up.weight"}


@dataclass(frozen=True)
class Resized:
    """A smaller LoRA, by kohya's names, new matrices in fp32."""

    tensors: dict[str, Tensor]
    kept: float
    """Share of the Frobenius norm of all layers' changes together, 0 to 1."""


@torch.no_grad()
def resize(where: str, tensors: Mapping[str, Tensor], rank: int) -> Resized:
    """Bring every layer above `rank` down to it; those below stay. InputError names `where` if none can be."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        layer, _, what = key.partition(".")
        layers[layer][what] = tensor
    if strange := next((name for name, group in layers.items() if set(group) - {"alpha"} != PLAIN), None):
        has = ", ".join(sorted(layers[strange]))
        raise InputError(f"{where}: only a LoRA or a LoCon can be made smaller, and {strange} has {has}.")
    most = max((len(group["lora_down.weight"]) for group in layers.values()), default=0)
    if rank >= most:
        raise InputError(f"{where}: is of rank {most} already, and --rank {rank} is not smaller.")
    small: dict[str, Tensor] = {}
    whole = left = 0.0
    for name, group in layers.items():
        made, values, scale = _nearest(group, rank)
        small |= {f"{name}.{what}": tensor for what, tensor in made.items()}
        whole += scale**2 * float((values**2).sum())
        left += scale**2 * float((values[:rank] ** 2).sum())
    return Resized(small, math.sqrt(left / whole) if whole else 1.0)


def _nearest(group: Mapping[str, Tensor], rank: int) -> tuple[dict[str, Tensor], Tensor, float]:
    """One layer's tensors at this rank, all singular values of its up @ down, and its alpha / rank."""
    down, up = group["lora_down.weight"], group["lora_up.weight"]
    scale = float(group["alpha"]) / len(down) if "alpha" in group else 1.0
    # up (out, r) and down (r, in) as QR each: what is left to take apart is r x r, not out x in
    left, inner = torch.linalg.qr(up.flatten(1).float())
    right, outer = torch.linalg.qr(down.flatten(1).float().T)
    u, values, v = torch.linalg.svd(inner.double() @ outer.double().T)
    if len(down) <= rank:
        return dict(group), values, scale
    half = values[:rank].sqrt()  # half the size to each side: both fit into fp16 where the longer might not
    new_up = left @ (u[:, : len(half)] * half).float()
    new_down = (half[:, None] * v[: len(half)]).float() @ right.T
    made = {
        "lora_down.weight": new_down.reshape(-1, *down.shape[1:]),
        "lora_up.weight": new_up.reshape(len(up), -1, *up.shape[2:]),
        "alpha": torch.tensor(scale * len(half)),
    }
    return made, values, scale


def resized_file(path: Path, rank: int, labels: Mapping[str, str]) -> tuple[bytes, float]:
    """A LoRA file as one of this rank in its own precision, and the share kept.

    `labels` are added to its metadata, and what changed in it is told there.
    """
    tensors, papers = lora_file.read(path)
    found = resize(path.name, tensors, rank)
    now, before = adapter.sizes_told(found.tensors), adapter.sizes_told(tensors)
    comment = f"rank {before['rank']} to {now['rank']} by SVD, {found.kept:.1%} of it kept"
    told = {
        "ss_network_dim": str(now["rank"]),
        "ss_network_alpha": str(now["alpha"]),
        "ss_training_comment": "; ".join(filter(None, (comment, papers.get("ss_training_comment")))),
    }
    if "conv_rank" in now:
        args = {"conv_dim": str(now["conv_rank"]), "conv_alpha": str(now["conv_alpha"])}
        told["ss_network_args"] = json.dumps(args)
    dtypes = {dtype: name for name, dtype in DTYPES.items()}
    kind = next(tensor.dtype for name, tensor in tensors.items() if name.endswith("lora_down.weight"))
    return lora_file.encoded(path, found.tensors, {**papers, **labels, **told}, dtype=dtypes[kind]), found.kept
