"""What the original releases (CompVis, Stability AI, OpenCLIP) call the layers that diffusers and transformers rename.

Names only. They are needed twice: to read one-file checkpoints, and because LoRA files of SDXL use them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a tensor may be found in a file."""

    name: str
    third: int | None = None
    """It is this third of the rows (0, 1, 2): query, key and value are one tensor in OpenCLIP."""
    transposed: bool = False


Places = Callable[[str, Mapping[str, Any]], list[Place]]
"""Where to look for a part's tensor, best first, from its name in diffusers or transformers and the configuration."""

UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE = (
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
)
OLD_ATTENTION = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
"""Attention of a VAE as diffusers named it until 0.12."""
VAE_PREFIXES = ("first_stage_model.", "vae.", "")
OPEN_CLIP = (
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)", r".ln_\1"),
    (r"\.mlp\.fc1", ".mlp.c_fc"),
    (r"\.mlp\.fc2", ".mlp.c_proj"),
    (r"\.self_attn\.out_proj", ".attn.out_proj"),
    (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
    (r"^final_layer_norm", "ln_final"),
)


def original_unet(path: str, config: Mapping[str, Any]) -> str:
    """Name a UNet's module or tensor as the original release does; `config` is diffusers' of that UNet."""
    for ours, theirs in UNET.items():
        if path == ours or path.startswith(f"{ours}."):
            return theirs + path.removeprefix(ours)
    found = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)(.*)", path)
    if found is None:
        raise ValueError(f"a UNet layer of no known place: {path}")
    side, block, kind, layer, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if kind == "resnets":
        rest = re.sub(r"^\.(\w+)", lambda m: f".{RESNET[m[1]]}", rest)
    return _unet_block(side, block, kind, layer, config) + rest.replace(".conv", ".op" if side == "down" else ".conv")


def _unet_block(side: str, block: int, kind: str, layer: int, config: Mapping[str, Any]) -> str:
    """Name the original numbers: one block for each layer, and one for the way down."""
    each = int(config["layers_per_block"]) + 1
    within = 1 if kind == "attentions" else 0
    if side == "mid":
        return "middle_block.1" if within else f"middle_block.{2 * layer}"
    if side == "down":
        return f"input_blocks.{each * block + (each if kind == 'downsamplers' else layer + 1)}.{within}"
    if kind == "upsamplers":  # the last thing in the level's last block, where there is attention or not
        layer, within = each - 1, 2 if "Attn" in config["up_block_types"][block] else 1
    return f"output_blocks.{each * block + layer}.{within}"


def unet_places(key: str, config: Mapping[str, Any]) -> list[Place]:
    return [Place(f"model.diffusion_model.{original_unet(key, config)}")]


def vae_places(key: str, config: Mapping[str, Any]) -> list[Place]:
    """In a whole checkpoint, or in a file of its own, in the original's layout or in either of diffusers'."""
    last = len(config["block_out_channels"]) - 1
    original = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    original = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", original)
    original = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", original)
    for ours, theirs in VAE:
        original = re.sub(ours, theirs, original)
    old = key
    for new, former in OLD_ATTENTION.items():
        old = old.replace(new, former)
    return [Place(prefix + name) for prefix in VAE_PREFIXES for name in (original, key, old)]


def clip_places(prefix: str) -> Places:
    """transformers' CLIP under a prefix; some merging tools drop `text_model.`, as transformers 5 does."""

    def places(key: str, config: Mapping[str, Any]) -> list[Place]:
        bare = key.removeprefix("text_model.")
        return [Place(f"{prefix}text_model.{bare}"), Place(prefix + bare)]

    return places


def open_clip_places(prefix: str) -> Places:
    """OpenCLIP's text encoder under a prefix."""

    def places(key: str, config: Mapping[str, Any]) -> list[Place]:
        if key == "text_projection.weight":  # a matrix to multiply with from the right; a layer in few files
            return [Place(f"{prefix}text_projection", transposed=True), Place(prefix + key)]
        split = re.search(r"\.self_attn\.([qkv])_proj\.", key)
        for ours, theirs in OPEN_CLIP:
            key = re.sub(ours, theirs, key)
        return [Place(prefix + key, third="qkv".index(split[1]) if split else None)]

    return places
