"""Stable Diffusion XL, and so Pony, Illustrious, NoobAI and Animagine: two text encoders, a UNet that is told sizes.

The captions' states are the last but one layer of both encoders, side by side; the second one's pooled state and six
numbers (size of the file, cut, size of the bucket) go in with the timestep. Clip skip changes nothing here, as in
sd-scripts (`library/strategy_sdxl.py`): the family was trained on that layer, whatever interfaces call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lorafactory.families import Base, Frame, _clip, _stable
from lorafactory.families._loading import assembled, opened, padded_with, tokenizer_from
from lorafactory.families._names import clip_places, open_clip_places, original_unet, unet_places
from lorafactory.families._stable import encode_images, targets
from lorafactory.families._vocabulary import tokenizer

__all__ = ["encode_captions", "encode_images", "key_names", "load", "pipeline", "predict", "targets", "tiny"]

CONFIG = Path(__file__).parent / "sdxl_config"
LABELS = {
    "ss_base_model_version": "sdxl_base_v1-0",
    "ss_v2": "False",
    "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    # whatever the setting says, the last but one layer is read
    "modelspec.encoder_layer": "2",
    "ss_clip_skip": "None",
}
PAD = "!"
"""Token 0, which fills up the second encoder's rows."""


def load(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    vae: Path | None = None,
    prediction: str | None = None,
) -> Base:
    """Load a diffusers folder or a one-file checkpoint; `dtype` is fp32 where not given."""
    first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
    with opened(path, CONFIG, dtype=dtype, device=device, vae=vae, prediction=prediction) as source:
        parts = {
            "unet": source.part("unet", UNet2DConditionModel, unet_places),
            "text_encoder": source.part("text_encoder", CLIPTextModel, clip_places(first)),
            "text_encoder_2": source.part("text_encoder_2", CLIPTextModelWithProjection, open_clip_places(second)),
        }
        if path.is_dir():
            tokenizers = (tokenizer_from(path / "tokenizer"), tokenizer_from(path / "tokenizer_2", PAD))
        else:
            tokenizers = (tokenizer(), padded_with(tokenizer(), PAD))
        return source.base(parts, tokenizers, LABELS)


def encode_captions(
    base: Base, captions: Sequence[str], frames: Sequence[Frame], *, clip_skip: int = 1, max_tokens: int = 75
) -> dict[str, Tensor]:
    """States (n, 77, d1 + d2), pooled state (n, p) and time ids (n, 6); `clip_skip` has no effect."""
    states = []
    for part, tokens in zip(("text_encoder", "text_encoder_2"), base.tokenizers, strict=True):
        ids = _clip.rows(tokens, captions, max_tokens)
        out = base.parts[part](ids.flatten(0, 1).to(base.device), output_hidden_states=True)
        states.append(_clip.join(out.hidden_states[-2], len(captions)))
    # of a caption in several pieces the first one's; in fp32, as fp16 and bf16 cannot tell large sizes apart
    pooled = out.text_embeds.unflatten(0, (len(captions), -1))[:, 0]
    times = torch.tensor([time_ids(frame) for frame in frames], dtype=torch.float32, device=base.device)
    return {"encoder_hidden_states": torch.cat(states, dim=-1), "text_embeds": pooled, "time_ids": times}


def time_ids(frame: Frame) -> list[int]:
    """Height before width, as the model was taught: original size, top and left of the cut, target size."""
    return [*reversed(frame.original), *reversed(frame.crop), *reversed(frame.target)]


def predict(base: Base, noisy: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    added = {"text_embeds": conditioning["text_embeds"].to(base.dtype), "time_ids": conditioning["time_ids"]}
    states = conditioning["encoder_hidden_states"].to(base.dtype)
    unet: Any = base.parts["unet"]
    out: Tensor = unet(noisy.to(base.dtype), t, states, added_cond_kwargs=added, return_dict=False)[0]
    return out.float()


def key_names(base: Base) -> dict[str, str]:
    """Kohya's names: `lora_unet_` and the original block names, `lora_te1_` and `lora_te2_`, transformers' old ones."""
    unet: Any = base.parts["unet"]
    prefixes = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    return _stable.key_names(base, prefixes, lambda path: original_unet(path, unet.config))


def pipeline(base: Base) -> StableDiffusionXLPipeline:
    return _stable.pipeline(StableDiffusionXLPipeline, base, tokenizer_2=base.tokenizers[1], add_watermarker=False)


def tiny(seed: int = 0) -> Base:
    """Two levels, the lower with attention of two layers; two encoders over bytes; 4 px a cell; answers the noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            cross_attention_dim=40,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        )
        first = CLIPTextModel(_clip.tiny_config())
        second = CLIPTextModelWithProjection(_clip.tiny_config(hidden_size=24, projection_dim=24, num_hidden_layers=3))
        parts = {"unet": unet, "text_encoder": first, "text_encoder_2": second}
        vae = _stable.tiny_vae()
    tokenizers = (_clip.tiny_tokenizer(), padded_with(_clip.tiny_tokenizer(), PAD))
    scheduler = DDIMScheduler.from_pretrained(CONFIG, subfolder="scheduler")
    return assembled("sdxl", "tiny", parts, tokenizers, vae, scheduler, LABELS)
