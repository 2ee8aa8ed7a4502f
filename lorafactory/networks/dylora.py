"""DyLoRA: a LoRA that can be cut to a smaller rank afterwards, because it was trained at many.

At each step a block b of `unit` ranks is drawn, and only the ranks up to its end are there, scaled by alpha / b. The
file is a plain LoRA of the whole rank. Source: Valipour et al. 2022 (arXiv 2210.07558), all ranks up to b learning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorafactory.networks._low_rank import DROPOUTS, TENSORS, change, config, numbers, start, told
from lorafactory.networks._low_rank import attention as size

if TYPE_CHECKING:
    from lorafactory.training.settings import TrainSettings as Settings

__all__ = ["DROPOUTS", "MODULE", "TENSORS", "arguments", "change", "config", "numbers", "size", "start", "told"]

MODULE = "networks.dylora"


def arguments(s: Settings) -> dict[str, str]:
    return {"unit": str(s.unit)}
