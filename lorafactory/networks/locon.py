"""LoCon: LoRA, and the convolutions and time projections of the residual and resampling blocks too.

3x3 convolutions take conv_rank and conv_alpha, the rest rank and alpha, as with sd-scripts' `conv_dim`.
"""

from __future__ import annotations

from lorafactory.networks import Layer, Settings, Size


def size(layer: Layer, settings: Settings) -> Size | None:
    if layer.kernel > 1:
        return Size(settings.conv_rank, settings.conv_alpha)
    return Size(settings.rank, settings.alpha)
