"""Pictures to latents, as both Stable Diffusion families do it."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from lorafactory.families import Base


def encode_images(base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the scaled latents of pixels (n, 3, h, w) in -1..1, in fp32."""
    with torch.no_grad():
        posterior = base.vae.encode(pixels.to(base.device, torch.float32)).latent_dist
    scale = base.vae.config.scaling_factor
    shift = base.vae.config.shift_factor or 0.0
    return (posterior.mean - shift) * scale, posterior.std * scale


def tiny_vae() -> AutoencoderKL:
    """4 pixels a cell, four channels, random weights."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=0.9,
    )
