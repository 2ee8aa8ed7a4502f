"""LoHa: the change is the product, element by element, of two of low rank, and so of up to rank squared.

Sources: Hyeon-Woo et al. 2021 (arXiv 2108.06098), and lycoris, whose layers, names and start these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lorafactory.networks import Group, Layer, Size, inner
from lorafactory.networks._low_rank import ATTENTION, conv_arguments
from lorafactory.networks._low_rank import everywhere as size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorafactory.training.settings import TrainSettings as Settings

__all__ = ["DROPOUTS", "MODULE", "TENSORS", "arguments", "change", "config", "numbers", "size", "start", "told"]

MODULE = "lycoris.kohya"
TENSORS = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
DROPOUTS: tuple[str, ...] = ("rank_dropout", "module_dropout")
DEVIATION = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0, "hada_w2_a": 0.0}
"""Of each matrix's normal draw at the start: one of them is nothing, so the change is too."""


def numbers(layer: Layer, size: Size, s: Settings) -> int:
    return 2 * size.rank * (layer.shape[0] + inner(layer.shape))


def config(s: Settings) -> tuple[str, dict[str, Any]]:
    return "LoHaConfig", {"rank_dropout": s.rank_dropout, "module_dropout": s.module_dropout}


def start(name: str, values: Tensor, draw: torch.Generator) -> None:
    values.normal_(generator=draw).mul_(DEVIATION[name])


def told(group: Group) -> Size:
    rank = int(group["hada_w1_b"].shape[0])
    return Size(rank, float(group.get("alpha", rank)))


def change(group: Group) -> Tensor:
    first, second = (group[f"hada_w{i}_a"].float() @ group[f"hada_w{i}_b"].float() for i in (1, 2))
    size = told(group)
    return first * second * (size.alpha / size.rank)


def arguments(s: Settings) -> dict[str, str]:
    return {"algo": "loha", **(conv_arguments(s) or ATTENTION)}
