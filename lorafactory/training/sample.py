"""Pictures from a base, the same whatever the batch: the noise of a picture comes from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorafactory import families, heartbeat
from lorafactory.errors import SettingsError
from lorafactory.families import Base, Frame

Words = dict[str, dict[str, Tensor]]
"""Text to what the text encoders say of it, one row each, by the names that a pipeline has for it."""


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
    words: Words | None = None,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> list[Image.Image]:
    """Draw one picture (width, height) per pair of prompt and seed, by DDIM from noise drawn on the CPU.

    `words` keeps what the text encoders said, for further calls with the same encoders, size, clip skip and length.
    """
    if len(prompts) != len(seeds):
        raise SettingsError(f"{len(prompts)} prompts and {len(seeds)} seeds: each picture needs one of both.")
    words = {} if words is None else words
    read(base, [*prompts, negative], words, size=size, clip_skip=clip_skip, max_tokens=max_tokens)
    pipe = families.get(base.family).pipeline(base)
    drawn: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        texts, own = prompts[start : start + batch], seeds[start : start + batch]
        latents = torch.stack([noise(base, seed, size) for seed in own])
        told = {**rows(words, texts), **rows(words, [negative] * len(texts), "negative_")}
        drawn += decode(base, denoise(base, pipe, told, latents, steps=steps, cfg=cfg))
        on_picture(len(drawn), len(prompts))
    return drawn


@torch.no_grad()
def read(
    base: Base, texts: Sequence[str], words: Words, *, size: tuple[int, int], clip_skip: int, max_tokens: int
) -> None:
    """Put into `words` what the text encoders say of texts; of each once, and alone, so that it is always the same."""
    family, frame = families.get(base.family), Frame(size, (0, 0), size)
    for text in dict.fromkeys(texts):
        if text not in words:
            told = family.encode_captions(base, [text], [frame], clip_skip=clip_skip, max_tokens=max_tokens)
            words[text] = {PIPELINE_NAMES[name]: value for name, value in told.items() if name in PIPELINE_NAMES}


def rows(words: Words, texts: Sequence[str], prefix: str = "") -> dict[str, Tensor]:
    """What a pipeline is told of these texts, a row each."""
    return {f"{prefix}{name}": torch.cat([words[text][name] for text in texts]) for name in words[texts[0]]}


def noise(base: Base, seed: int, size: tuple[int, int]) -> Tensor:
    """The first latents (c, h, w): what diffusers draws for `torch.Generator().manual_seed(seed)`."""
    factor = base.latent_factor
    shape = (base.latent_channels, size[1] // factor, size[0] // factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def denoise(base: Base, pipe: Any, told: Mapping[str, Tensor], latents: Tensor, *, steps: int, cfg: float) -> Tensor:
    """Go from noise (n, c, h, w) to latents through the family's diffusers pipeline."""
    height, width = (side * base.latent_factor for side in latents.shape[-2:])
    out: Tensor = pipe(
        **told,
        latents=latents.to(base.device, base.dtype),
        num_inference_steps=steps,
        guidance_scale=cfg,
        width=width,
        height=height,
        output_type="latent",
        callback_on_step_end=_alive,
    ).images
    return out


def _alive(pipe: Any, step: int, t: Any, told: dict[str, Any]) -> dict[str, Any]:
    heartbeat.alive()
    return told


PIPELINE_NAMES = {"encoder_hidden_states": "prompt_embeds", "text_embeds": "pooled_prompt_embeds"}
"""What a pipeline calls the values that `encode_captions` gives to the model; SDXL's makes the time ids of the frame
from the picture's size by itself, as `frames` has them."""


AT_ONCE = 1024 * 1024
"""Pixels that are decoded at once: of each, the last block of SD's VAE holds 256 channels in fp32, several times."""


@torch.no_grad()
def decode(base: Base, latents: Tensor) -> list[Image.Image]:
    """Turn latents into pictures, by the VAE's own precision; what is not finite is grey."""
    config = base.vae.config
    scaled = latents.float() / config.scaling_factor + (config.shift_factor or 0.0)
    at_once = max(1, AT_ONCE // (scaled[0, 0].numel() * base.latent_factor**2))
    pictures = []
    for some in scaled.split(at_once):
        with torch.autocast(base.device.type, enabled=False):
            pixels = base.vae.decode(some).sample.nan_to_num(0).clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy()
        pictures += [Image.fromarray(np.round((p + 1) * 127.5).astype(np.uint8)) for p in pixels]
    return pictures
