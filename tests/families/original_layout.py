"""A base's tensors under the names of the original releases, written down here anew: what one-file checkpoints hold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorafactory import networks
from lorafactory.families import Base
from lorafactory.training.adapter import layers
from lorafactory.training.settings import TrainSettings

SMALL_VAE = {"block_out_channels": [32, 32, 32, 32]}
SMALL_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {
        "unet": {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 16, "attention_head_dim": 2},
        "vae": SMALL_VAE,
        "text_encoder": SMALL_TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 64, 64],
            "cross_attention_dim": 40,
            "attention_head_dim": [1, 2, 2],
            "transformer_layers_per_block": [1, 1, 2],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 24,
        },
        "vae": SMALL_VAE,
        "text_encoder": SMALL_TEXT,
        "text_encoder_2": {**SMALL_TEXT, "hidden_size": 24, "projection_dim": 24},
    },
}
"""What makes a toy of a family's own configuration; blocks and their order stay."""


def small_config(family: Any, folder: Path) -> Path:
    """Copy the configuration that ships in the package, with the channels of a toy."""
    path = Path(shutil.copytree(family.CONFIG, folder))
    for part, values in SMALL[family.__name__.rpartition(".")[2]].items():
        file = path / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


def build(family: Any, config: Path, device: str = "cpu") -> Base:
    """Random models of a configuration, or (on `meta`) models without weights."""
    base: Base = family.tiny()
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet"))
        base.parts = {
            "unet": unet,
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder")),
        }
        if (config / "text_encoder_2").is_dir():
            second = CLIPTextConfig.from_pretrained(config / "text_encoder_2")
            base.parts["text_encoder_2"] = CLIPTextModelWithProjection(second)
        base.vae = AutoencoderKL.from_config(AutoencoderKL.load_config(config / "vae"))
    return base


def chosen(family: Any, base: Base, kind: str) -> dict[str, tuple[str, int]]:
    """Part and rank of every layer an adapter kind changes, by its name in the file."""
    names, network = family.key_names(base), networks.get(kind)
    settings = TrainSettings(rank=16, conv_rank=8)
    sizes = [(layer, network.size(layer, settings)) for layer in layers(family, base, base.parts)]
    return {names[f"{x.part}.{x.path}"]: (x.part, size.rank) for x, size in sizes if size is not None}


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = [  # two layers to a level, as in the full models
    (r"^conv_in", "input_blocks.0.0"),
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0"),
    (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1"),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op"),
    (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0"),
    (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1"),
    (r"^up_blocks\.(\d)\.upsamplers\.0", lambda m: f"output_blocks.{3 * int(m[1]) + 2}.2"),
]
# SD 1.5's first level up has no attention, so its upsampler comes one place earlier
UPSAMPLER = {"sd15": [(r"^up_blocks\.0\.upsamplers\.0", "output_blocks.2.1")], "sdxl": []}
VAE = [
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
]
OPEN_CLIP = [
    ("text_model.", ""),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("encoder.layers", "transformer.resblocks"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn", "attn"),
    ("final_layer_norm", "ln_final"),
]


def original(base: Base) -> dict[str, Tensor]:
    """All tensors of a one-file checkpoint of this base."""
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in unet(base).items()}
    tensors |= {f"first_stage_model.{key}": tensor for key, tensor in vae(base).items()}
    first = {
        "text_model." + key.removeprefix("text_model."): tensor
        for key, tensor in base.parts["text_encoder"].state_dict().items()
    }
    if base.family == "sd15":
        tensors |= {f"cond_stage_model.transformer.{key}": tensor for key, tensor in first.items()}
    else:
        tensors |= {f"conditioner.embedders.0.transformer.{key}": tensor for key, tensor in first.items()}
        tensors |= {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in open_clip(base).items()}
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def unet(base: Base) -> dict[str, Tensor]:
    found = {}
    for full, tensor in base.parts["unet"].state_dict().items():
        key = full
        for pattern, name in [*UPSAMPLER[base.family], *UNET]:
            key, count = re.subn(pattern, name, key)
            if count:
                break
        if ".resnets." in full:
            for ours, theirs in RESNET.items():
                key = key.replace(f".{ours}.", f".{theirs}.")
        found[key] = tensor
    return found


def vae(base: Base) -> dict[str, Tensor]:
    found = {}
    for full, tensor in base.vae.state_dict().items():
        key = full
        for pattern, name in VAE:
            key = re.sub(pattern, name, key)
        square = "mid.attn_1" in key and tensor.ndim == 2
        found[key] = tensor[:, :, None, None] if square else tensor
    return found


def open_clip(base: Base) -> dict[str, Tensor]:
    """OpenCLIP's names: one tensor for query, key and value; the projection multiplies from the right."""
    state = dict(base.parts["text_encoder_2"].state_dict())
    found = {"text_projection": state.pop("text_projection.weight").T, "logit_scale": torch.tensor(4.6)}
    for full in list(state):
        key = full
        for ours, theirs in OPEN_CLIP:
            key = key.replace(ours, theirs)
        if ".q_proj." in key:
            merged = [state[full.replace("q_proj", x)] for x in ("q_proj", "k_proj", "v_proj")]
            found[key.replace("q_proj.", "in_proj_")] = torch.cat(merged)
        elif ".k_proj." not in key and ".v_proj." not in key:
            found[key] = state[full]
    return found
