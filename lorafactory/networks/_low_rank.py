"""What the kinds share whose change of a weight is up @ down * alpha / rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lorafactory.networks import Group, Layer, Size, inner

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorafactory.training.settings import TrainSettings as Settings

MODULE = "networks.lora"
TENSORS = frozenset({"lora_down.weight", "lora_up.weight"})
DROPOUTS: tuple[str, ...] = ("dropout", "rank_dropout", "module_dropout")


def attention(layer: Layer, s: Settings) -> Size | None:
    """Every linear layer and 1x1 convolution of the attention blocks and text encoder, as sd-scripts chooses."""
    if layer.block == "resnet" or layer.kernel > 1 or not s.rank:
        return None
    return Size(s.rank, s.alpha)


def everywhere(layer: Layer, s: Settings) -> Size | None:
    """The residual and resampling blocks too: convolutions take conv_rank, their 1x1 and linear layers rank."""
    if layer.kernel > 1:
        return Size(s.conv_rank, s.conv_alpha) if s.conv_rank else None
    if not s.rank or (layer.block == "resnet" and not s.conv_rank):
        return None
    return Size(s.rank, s.alpha)


def conv_arguments(s: Settings) -> dict[str, str]:
    return {"conv_dim": str(s.conv_rank), "conv_alpha": str(s.conv_alpha)} if s.conv_rank else {}


ATTENTION = {"preset": "attn-mlp"}
"""By which lycoris leaves convolutions alone; else it trains them, also where nothing is said of them."""


def numbers(layer: Layer, size: Size, s: Settings) -> int:
    return size.rank * (layer.shape[0] + inner(layer.shape))


def config(s: Settings) -> tuple[str, dict[str, Any]]:
    return "LoraConfig", {"lora_dropout": 0.0, "bias": "none"}


def start(name: str, values: Tensor, draw: torch.Generator) -> None:
    """Down uniform within 1/sqrt(fan in), kohya's and peft's start; up zero."""
    from torch import nn

    if name == "lora_up.weight":
        nn.init.zeros_(values)
    elif name == "lora_down.weight":
        nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=draw)


def told(group: Group) -> Size:
    rank = int(group["lora_down.weight"].shape[0])
    return Size(rank, float(group.get("alpha", rank)))


def change(group: Group) -> Tensor:
    """Up @ down; a convolution's up has a 1x1 kernel, so the product over channels is the whole change."""
    down, up, size = group["lora_down.weight"], group["lora_up.weight"], told(group)
    return up.float().flatten(1) @ down.float().flatten(1) * (size.alpha / size.rank)


def arguments(s: Settings) -> dict[str, str]:
    return {}
