"""What both Stable Diffusion families do alike: layers, names, pictures to latents, the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn

from lorafactory.families import Base, _clip
from lorafactory.families._loading import quiet

targets = {
    "attention": ("Transformer2DModel",),
    "resnet": ("ResnetBlock2D", "Downsample2D", "Upsample2D"),
    "text": ("CLIPAttention", "CLIPMLP"),
}


def encode_images(base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the scaled latents of pixels (n, 3, h, w) in -1..1, in fp32."""
    with torch.no_grad():
        posterior = base.vae.encode(pixels.to(base.device, torch.float32)).latent_dist
    scale = base.vae.config.scaling_factor
    shift = base.vae.config.shift_factor or 0.0
    return (posterior.mean - shift) * scale, posterior.std * scale


def key_names(
    base: Base, prefixes: Mapping[str, str], original: Callable[[str], str] = lambda path: path
) -> dict[str, str]:
    """Kohya's names: `lora_unet_` and the `original` of a module's path, and a prefix for each text encoder."""
    names = {
        f"unet.{path}": "lora_unet_" + original(path).replace(".", "_")
        for path, module in base.parts["unet"].named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    for part, prefix in prefixes.items():
        names |= {f"{part}.{path}": name for path, name in _clip.key_names(base.parts[part], prefix).items()}
    return names


def pipeline(cls: Any, base: Base, **more: Any) -> Any:
    """Build a diffusers pipeline over the base's own modules; `more` are arguments of this class alone."""
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    with quiet():
        pipe = cls(vae=base.vae, **base.parts, tokenizer=base.tokenizers[0], scheduler=scheduler, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


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
