"""The architectures and tokenizers of the pocket model set, as the libraries' own classes with small numbers.

Four folders: `base/` is a diffusers Stable Diffusion folder, `clip/` an open_clip `local-dir:` model, `blip/` a
transformers BLIP captioner, `dino/` a transformers DINOv2. torch and its kin are imported inside the functions.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from lorafactory.pocket import world

CLIP_SIDE = 64
"""CLIP, BLIP and DINOv2 look at pictures of this side, in patches of 8 pixels."""
CLIP_CONTEXT = 32
PROMPT = "a picture of"
"""What BLIP's decoder starts from, as kohya's captioner does (`blip.py`)."""
SPECIALS = ("<|startoftext|>", "<|endoftext|>")


# ---------------------------------------------------------------- tokenizers


def write_clip_tokenizer(folder: Path) -> int:
    """Write a CLIP byte-pair tokenizer in which every word of the world is one token; return its vocabulary size.

    The end token comes last: open_clip reads the text at the highest token id.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    vocabulary = [*symbols, *(s + "</w>" for s in symbols)]
    merges: list[tuple[str, str]] = []
    for word in world.vocabulary():
        merge_word(word, vocabulary, merges)
    tokens = {token: i for i, token in enumerate([*vocabulary, *SPECIALS])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": SPECIALS[0],
            "eos_token": SPECIALS[1],
            "unk_token": SPECIALS[1],
            "pad_token": SPECIALS[1],
        },
    )
    return len(tokens)


def merge_word(word: str, vocabulary: list[str], merges: list[tuple[str, str]]) -> None:
    """Append the merges that make `word` one token, applying the earlier ones first as the tokenizer will."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        ranks = {m: i for i, m in enumerate(merges)}
        pairs = list(itertools.pairwise(parts))
        known = min((p for p in pairs if p in ranks), key=lambda p: ranks[p], default=None)
        pair = known or pairs[0]
        if known is None:
            merges.append(pair)
            vocabulary.append(pair[0] + pair[1])
        merged: list[str] = []
        i = 0
        while i < len(parts):
            if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
                merged.append(parts[i] + parts[i + 1])
                i += 2
            else:
                merged.append(parts[i])
                i += 1
        parts = merged


def write_blip_tokenizer(folder: Path) -> int:
    """Write a word-piece tokenizer: the world's words, and letters for everything else; return its size."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    tokens += list(dict.fromkeys([*world.vocabulary(), *letters, *("##" + c for c in letters)]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64, "bos_token": "[DEC]"}
    write_json(folder / "tokenizer_config.json", config)
    pixels = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "size": {"height": CLIP_SIDE, "width": CLIP_SIDE},
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "do_resize": True,
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_convert_rgb": True,
    }
    write_json(folder / "preprocessor_config.json", pixels)
    return len(tokens)


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- models


def build_vae() -> Any:
    """Eight times smaller latents of four channels; 0.9 M parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=world.SIDE,
    )


def build_unet() -> Any:
    """The SD 1.5 plan with three levels; 4.4 M parameters."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=world.SIDE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 3, 4),
        cross_attention_dim=128,
        norm_num_groups=16,
    )


def build_text_encoder(vocab_size: int) -> Any:
    """CLIP's text tower with two layers of width 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    bos, eos = vocab_size - 2, vocab_size - 1
    config = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return CLIPTextModel(config)


SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def clip_config(vocab_size: int) -> dict[str, Any]:
    """open_clip's `model_cfg`: a ViT without a first norm, so that BLIP's tower can start from it."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": CLIP_SIDE,
            "patch_size": 8,
            "width": 128,
            "layers": 4,
            "head_width": 32,
            "no_ln_pre": True,
        },
        "text_cfg": {
            "context_length": CLIP_CONTEXT,
            "vocab_size": vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": ".",
        },
    }


def build_clip(vocab_size: int) -> Any:
    from open_clip.model import CLIP

    return CLIP(**clip_config(vocab_size))


def build_blip(vocab_size: int) -> Any:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

    text = BlipTextConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        encoder_hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=5,
        eos_token_id=3,
        pad_token_id=0,
        sep_token_id=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    vision = BlipVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CLIP_SIDE,
        patch_size=8,
        initializer_range=0.02,
    )
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128)
    return BlipForConditionalGeneration(config)


def build_dino() -> Any:
    """CLIP's tower in DINOv2's form."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=4,
        image_size=CLIP_SIDE,
        patch_size=8,
    )
    return Dinov2Model(config)


def normal(images: Any) -> Any:
    """Pictures in -1..1 as DINOv2 takes them: about the mean of ImageNet's, in their deviations."""
    import torch

    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((images + 1) / 2 - mean) / deviation


# ---------------------------------------------------------------- towers that start from CLIP's


def blip_from_clip(blip: Any, clip: Any) -> None:
    """Copy open_clip's vision tower into BLIP's: the same pre-norm ViT under other names."""
    mine = blip.vision_model
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attention": "self_attn.projection"}
    state = {
        "embeddings.class_embedding": clip.visual.class_embedding.reshape(1, 1, -1),
        "embeddings.position_embedding": clip.visual.positional_embedding[None],
        "embeddings.patch_embedding.weight": clip.visual.conv1.weight,
        "embeddings.patch_embedding.bias": mine.embeddings.patch_embedding.bias * 0,
        "post_layernorm.weight": clip.visual.ln_post.weight,
        "post_layernorm.bias": clip.visual.ln_post.bias,
    }
    for i, block in enumerate(clip.visual.transformer.resblocks):
        state |= blocks(f"encoder.layers.{i}.", block, names)
        state[f"encoder.layers.{i}.self_attn.qkv.weight"] = block.attn.in_proj_weight
        state[f"encoder.layers.{i}.self_attn.qkv.bias"] = block.attn.in_proj_bias
    mine.load_state_dict(state)


def dino_from_clip(dino: Any, clip: Any) -> None:
    """Copy open_clip's vision tower into DINOv2's, which scales what each layer adds: by one."""
    names = {"norm1": "norm1", "norm2": "norm2", "attention": "attention.o_proj"}
    state = {
        "embeddings.cls_token": clip.visual.class_embedding.reshape(1, 1, -1),
        "embeddings.mask_token": dino.embeddings.mask_token,
        "embeddings.position_embeddings": clip.visual.positional_embedding[None],
        "embeddings.patch_embeddings.projection.weight": clip.visual.conv1.weight,
        "embeddings.patch_embeddings.projection.bias": dino.embeddings.patch_embeddings.projection.bias * 0,
        "layernorm.weight": clip.visual.ln_post.weight,
        "layernorm.bias": clip.visual.ln_post.bias,
    }
    for i, block in enumerate(clip.visual.transformer.resblocks):
        name = f"encoder.layer.{i}."
        state |= blocks(name, block, names)
        for part, weight, bias in zip(
            "qkv", block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True
        ):
            state |= {f"{name}attention.{part}_proj.weight": weight, f"{name}attention.{part}_proj.bias": bias}
        state |= {f"{name}layer_scale{n}.lambda1": block.ln_1.weight * 0 + 1 for n in (1, 2)}
    dino.load_state_dict(state)


def blocks(name: str, block: Any, names: dict[str, str]) -> dict[str, Any]:
    """What of one of open_clip's layers is copied as it is, under the names that another library gives it."""
    parts = {
        names["norm1"]: block.ln_1,
        names["norm2"]: block.ln_2,
        names["attention"]: block.attn.out_proj,
        "mlp.fc1": block.mlp.c_fc,
        "mlp.fc2": block.mlp.c_proj,
    }
    return {
        f"{name}{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()
    }
