"""LoRA as kohya trains it: every linear layer and 1x1 convolution of the attention blocks and text encoder.

Source: Hu et al. 2021 (arXiv 2106.09685); the choice of layers is that of sd-scripts' `networks.lora`.
"""

from __future__ import annotations

from lorafactory.networks import Layer, Settings, Size


def size(layer: Layer, settings: Settings) -> Size | None:
    if layer.block == "resnet" or layer.kernel > 1:
        return None
    return Size(settings.rank, settings.alpha)
