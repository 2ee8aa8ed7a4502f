"""LoCon: LoRA, and the convolutions and time projections of the residual and resampling blocks too.

3x3 convolutions take conv_rank and conv_alpha, the rest rank and alpha, as with sd-scripts' `conv_dim`.
"""

from __future__ import annotations

from lorafactory.networks._low_rank import DROPOUTS, MODULE, TENSORS, change, config, numbers, start, told
from lorafactory.networks._low_rank import conv_arguments as arguments
from lorafactory.networks._low_rank import everywhere as size

__all__ = ["DROPOUTS", "MODULE", "TENSORS", "arguments", "change", "config", "numbers", "size", "start", "told"]
