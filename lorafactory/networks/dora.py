"""DoRA: LoRA whose change turns a weight, while a vector of its own says how long each output's row is.

The weight becomes m (W + up @ down * alpha / rank) / |W + ...|, the norm over each output's inputs; m begins as |W|.
Source: Liu et al. 2024 (arXiv 2402.09353). The file is that of lycoris' `dora_wd`: `dora_scale` is m, (out, 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lorafactory.networks import Layer, Size, _low_rank
from lorafactory.networks._low_rank import ATTENTION, change, start, told
from lorafactory.networks._low_rank import attention as size

if TYPE_CHECKING:
    from lorafactory.training.settings import TrainSettings as Settings

__all__ = ["DROPOUTS", "MODULE", "TENSORS", "arguments", "change", "config", "numbers", "size", "start", "told"]

MODULE = "lycoris.kohya"
TENSORS = _low_rank.TENSORS | {"dora_scale"}
DROPOUTS: tuple[str, ...] = ()  # peft sends more than pictures through down: the norm is taken from it


def numbers(layer: Layer, size: Size, s: Settings) -> int:
    return _low_rank.numbers(layer, size, s) + layer.shape[0]


def config(s: Settings) -> tuple[str, dict[str, Any]]:
    kind, told = _low_rank.config(s)
    return kind, {**told, "use_dora": True}


def arguments(s: Settings) -> dict[str, str]:
    return {"algo": "lora", "dora_wd": "True", **ATTENTION}
