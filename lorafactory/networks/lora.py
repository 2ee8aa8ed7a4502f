"""LoRA as kohya trains it: every linear layer and 1x1 convolution of the attention blocks and text encoder.

Source: Hu et al. 2021 (arXiv 2106.09685); the choice of layers is that of sd-scripts' `networks.lora`.
"""

from __future__ import annotations

from lorafactory.networks._low_rank import DROPOUTS, MODULE, TENSORS, arguments, change, config, numbers, start, told
from lorafactory.networks._low_rank import attention as size

__all__ = ["DROPOUTS", "MODULE", "TENSORS", "arguments", "change", "config", "numbers", "size", "start", "told"]
