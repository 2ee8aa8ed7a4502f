"""Stable Diffusion 1.x: one CLIP text encoder, a UNet with cross-attention, four latent channels.

Everything that differs between bases of this family (sizes, layer counts, prediction type, latent scale,
noise schedule) is read from the base's own configuration; the small models that ship with the project are members
like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from lorafactory.errors import BaseError
from lorafactory.families import Base, Frame, _clip, _stable
from lorafactory.families._loading import assembled, opened, tokenizer_from
from lorafactory.families._names import clip_places, unet_places
from lorafactory.families._stable import encode_images, targets
from lorafactory.families._vocabulary import tokenizer

__all__ = ["encode_captions", "encode_images", "key_names", "load", "pipeline", "predict", "targets", "tiny"]

CONFIG = Path(__file__).parent / "sd15_config"
LABELS = {
    "ss_base_model_version": "sd_v1",
    "ss_v2": "False",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers",
}


def load(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    vae: Path | None = None,
    prediction: str | None = None,
) -> Base:
    """Load a diffusers folder or a one-file checkpoint; `dtype` is fp32 where not given."""
    with opened(path, CONFIG, dtype=dtype, device=device, vae=vae, prediction=prediction) as source:
        parts = {
            "unet": source.part("unet", UNet2DConditionModel, unet_places),
            "text_encoder": source.part("text_encoder", CLIPTextModel, clip_places("cond_stage_model.transformer.")),
        }
        own = tokenizer_from(path / "tokenizer") if path.is_dir() else tokenizer()
        return source.base(parts, (own,), LABELS)


def encode_captions(
    base: Base, captions: Sequence[str], frames: Sequence[Frame], *, clip_skip: int = 1, max_tokens: int = 75
) -> dict[str, Tensor]:
    """Hidden states (n, 77, d); clip_skip 1 is the last layer, 2 the one before; the final norm follows."""
    encoder: Any = base.parts["text_encoder"]
    layers = int(encoder.config.num_hidden_layers)
    if not 1 <= clip_skip <= layers:
        raise BaseError(f"clip_skip {clip_skip}: the text encoder of {base.name} has {layers} layers.")
    ids = _clip.rows(base.tokenizers[0], captions, max_tokens).flatten(0, 1).to(base.device)
    out = encoder(ids, output_hidden_states=clip_skip > 1)
    if clip_skip == 1:
        states = out.last_hidden_state
    else:
        inner = getattr(encoder, "text_model", encoder)
        states = inner.final_layer_norm(out.hidden_states[-clip_skip])
    return {"encoder_hidden_states": _clip.join(states, len(captions))}


def predict(base: Base, noisy: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    states = conditioning["encoder_hidden_states"].to(base.dtype)
    out: Tensor = base.parts["unet"](noisy.to(base.dtype), t, states, return_dict=False)[0]
    return out.float()


def key_names(base: Base) -> dict[str, str]:
    """Kohya's names: `lora_unet_` and diffusers' module names, `lora_te_` and transformers' old ones."""
    return _stable.key_names(base, {"text_encoder": "lora_te_"})


def pipeline(base: Base) -> StableDiffusionPipeline:
    no_checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _stable.pipeline(StableDiffusionPipeline, base, **no_checker)


def tiny(seed: int = 0) -> Base:
    """Two levels, the upper with attention; a two-layer text encoder over bytes; 4 px a cell; answers v."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=16,
            norm_num_groups=8,
        )
        parts = {"unet": unet, "text_encoder": CLIPTextModel(_clip.tiny_config())}
        vae = _stable.tiny_vae()
    scheduler = DDIMScheduler.from_pretrained(CONFIG, subfolder="scheduler", prediction_type="v_prediction")
    return assembled("sd15", "tiny", parts, (_clip.tiny_tokenizer(),), vae, scheduler, LABELS)
