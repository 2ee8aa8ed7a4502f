"""LoKr: the change is the Kronecker product of a small matrix and a larger one, the larger a product of low rank.

Where the rank is at least half as large as a matrix, the matrix is there as it is; if both are, alpha acts no more.
Sources: Yeh et al. 2023 (arXiv 2309.14859), and lycoris, whose layers, names and start these are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lorafactory.networks import Group, Layer, Size
from lorafactory.networks._low_rank import ATTENTION, conv_arguments, everywhere

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorafactory.training.settings import TrainSettings as Settings

MODULE = "lycoris.kohya"
TENSORS = frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"})
DROPOUTS: tuple[str, ...] = ("rank_dropout", "module_dropout")


def size(layer: Layer, s: Settings) -> Size | None:
    found = everywhere(layer, s)
    if found is not None and all(whole for _, _, whole in matrices(layer, found.rank, s)):
        return Size(found.rank, float(found.rank))
    return found


def matrices(layer: Layer, rank: int, s: Settings) -> list[tuple[int, int, bool]]:
    """Rows and columns of the small and the large matrix, and whether each is there as it is."""
    (a, b), (c, d) = (factors(n, s.lokr_factor) for n in layer.shape[:2])
    small = not (s.decompose_both and rank < max(a, c) / 2)
    return [(a, c, small), (b, d * math.prod(layer.shape[2:]), rank >= max(b, d) / 2)]


def factors(number: int, factor: int) -> tuple[int, int]:
    """Two whole numbers whose product is this one, the smaller first: `factor` if it can be, else nearest to a root."""
    if factor > 0 and number % factor == 0:
        return min(factor, number // factor), max(factor, number // factor)
    most = min(math.isqrt(number), factor if factor > 0 else number)
    small = next(n for n in range(most, 0, -1) if number % n == 0)
    return small, number // small


def numbers(layer: Layer, size: Size, s: Settings) -> int:
    found = matrices(layer, size.rank, s)
    return sum(rows * columns if whole else size.rank * (rows + columns) for rows, columns, whole in found)


def config(s: Settings) -> tuple[str, dict[str, Any]]:
    shapes = {"decompose_factor": s.lokr_factor, "decompose_both": s.decompose_both}
    return "LoKrConfig", {**shapes, "rank_dropout": s.rank_dropout, "module_dropout": s.module_dropout}


def start(name: str, values: Tensor, draw: torch.Generator) -> None:
    from torch import nn

    if name in ("lokr_w2", "lokr_w2_b"):
        nn.init.zeros_(values)
    else:
        nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=draw)


def told(group: Group) -> Size:
    product = next((group[name] for name in ("lokr_w2_b", "lokr_w1_b") if name in group), None)
    if product is not None:
        return Size(len(product), float(group.get("alpha", len(product))))
    alpha = float(group.get("alpha", 1))  # it says the rank, and acts no more
    return Size(max(1, int(alpha)), alpha)


def change(group: Group) -> Tensor:
    import torch

    small, large = (
        group[name].float() if name in group else group[f"{name}_a"].float() @ group[f"{name}_b"].float()
        for name in ("lokr_w1", "lokr_w2")
    )
    size = told(group)
    scale = 1.0 if {"lokr_w1", "lokr_w2"} <= set(group) else size.alpha / size.rank
    return torch.kron(small, large.flatten(1)) * scale


def arguments(s: Settings) -> dict[str, str]:
    both = {"decompose_both": "True"} if s.decompose_both else {}
    return {"algo": "lokr", "factor": str(s.lokr_factor), **both, **(conv_arguments(s) or ATTENTION)}
