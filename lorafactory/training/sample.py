"""Pictures from a base, the same whatever the batch: the noise of a picture comes from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.families import Base, Frame


def sample(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 20,
    cfg: float = 7.0,
    size: tuple[int, int] = (512, 512),
    negative: str = "",
    clip_skip: int = 1,
    max_tokens: int = 75,
    batch: int = 4,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> list[Image.Image]:
    """Draw one picture (width, height) per pair of prompt and seed, by DDIM from noise drawn on the CPU."""
    if len(prompts) != len(seeds):
        raise SettingsError(f"{len(prompts)} prompts and {len(seeds)} seeds: each picture needs one of both.")
    drawn: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        texts, own = prompts[start : start + batch], seeds[start : start + batch]
        latents = torch.stack([noise(base, seed, size) for seed in own])
        found = denoise(
            base,
            texts,
            latents,
            steps=steps,
            cfg=cfg,
            size=size,
            negative=negative,
            clip_skip=clip_skip,
            max_tokens=max_tokens,
        )
        drawn += decode(base, found)
        on_picture(len(drawn), len(prompts))
    return drawn


def noise(base: Base, seed: int, size: tuple[int, int]) -> Tensor:
    """The first latents (c, h, w): what diffusers draws for `torch.Generator().manual_seed(seed)`."""
    factor = base.latent_factor
    shape = (base.latent_channels, size[1] // factor, size[0] // factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def denoise(
    base: Base,
    prompts: Sequence[str],
    latents: Tensor,
    *,
    steps: int,
    cfg: float,
    size: tuple[int, int],
    negative: str = "",
    clip_skip: int = 1,
    max_tokens: int = 75,
) -> Tensor:
    """Go from noise (n, c, h, w) to latents through the family's diffusers pipeline."""
    family = families.get(base.family)
    frames = [Frame(size, (0, 0), size)] * len(prompts)
    positive, against = (
        family.encode_captions(base, texts, frames, clip_skip=clip_skip, max_tokens=max_tokens)
        for texts in (prompts, [negative] * len(prompts))
    )
    arguments = {PIPELINE_NAMES[name]: value for name, value in positive.items() if name in PIPELINE_NAMES}
    arguments |= {f"negative_{PIPELINE_NAMES[name]}": against[name] for name in against if name in PIPELINE_NAMES}
    pipe = family.pipeline(base)
    out: Tensor = pipe(
        **arguments,
        latents=latents.to(base.device, base.dtype),
        num_inference_steps=steps,
        guidance_scale=cfg,
        width=size[0],
        height=size[1],
        output_type="latent",
    ).images
    return out


PIPELINE_NAMES = {"encoder_hidden_states": "prompt_embeds", "text_embeds": "pooled_prompt_embeds"}
"""What a pipeline calls the values that `encode_captions` gives to the model; SDXL's makes the time ids of the frame
from the picture's size by itself, as `frames` has them."""


@torch.no_grad()
def decode(base: Base, latents: Tensor) -> list[Image.Image]:
    """Turn latents into pictures, by the VAE's own precision; what is not finite is grey."""
    config = base.vae.config
    scaled = latents.float() / config.scaling_factor + (config.shift_factor or 0.0)
    with torch.autocast(base.device.type, enabled=False):
        pixels = base.vae.decode(scaled).sample.nan_to_num(0).clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.round((p + 1) * 127.5).astype(np.uint8)) for p in pixels]
