"""Captions through CLIP's text encoders, and their names: what both Stable Diffusion families share.

Captions beyond 75 tokens are read in pieces of 75 whose hidden states are joined, as sd-scripts does
(`max_token_length` 150 and 225).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTokenizer

from lorafactory.families._vocabulary import byte_symbols


def rows(tokenizer: Any, captions: Sequence[str], max_tokens: int) -> Tensor:
    """Token ids (n, pieces, 77): each piece begins and ends like a caption, and is filled up with the pad token."""
    width = int(tokenizer.model_max_length)
    inner = width - 2
    pieces = max(1, max_tokens // 75)
    out = torch.full((len(captions), pieces, width), int(tokenizer.pad_token_id))
    for caption, row in zip(captions, out, strict=True):
        cut = {"truncation": True, "max_length": pieces * inner}
        ids = tokenizer(caption, add_special_tokens=False, **cut).input_ids
        for index, piece in enumerate(row):
            own = ids[index * inner : (index + 1) * inner]
            piece[: len(own) + 2] = torch.tensor([tokenizer.bos_token_id, *own, tokenizer.eos_token_id])
    return out


def join(states: Tensor, captions: int) -> Tensor:
    """Hidden states of all pieces (n * pieces, 77, d) as one row per caption (n, 2 + 75 * pieces, d).

    The first piece's begin and the last one's end stay, the others' go.
    """
    if len(states) == captions:
        return states
    by_caption = states.reshape(captions, -1, *states.shape[1:])
    inner = by_caption[:, :, 1:-1].flatten(1, 2)
    return torch.cat([by_caption[:, 0, :1], inner, by_caption[:, -1, -1:]], dim=1)


def key_names(part: nn.Module, prefix: str) -> dict[str, str]:
    """Kohya's name of every linear layer of a text encoder, by its path."""
    names = {}
    for path, module in part.named_modules():
        if isinstance(module, nn.Linear):
            bare = path.removeprefix("text_model.")
            # transformers 5 dropped the level `text_model.` that the names of the format still have
            full = bare if bare == "text_projection" else f"text_model.{bare}"
            names[path] = prefix + full.replace(".", "_")
    return names


def tiny_vocabulary() -> list[str]:
    """Every byte, also as a word's end, and two special tokens."""
    symbols = byte_symbols()
    return [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]


def tiny_tokenizer() -> CLIPTokenizer:
    made: CLIPTokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tiny_vocabulary())}, merges=[], model_max_length=77
    )
    return made


def tiny_config(**other: Any) -> CLIPTextConfig:
    """Two layers of width 16 over `tiny_vocabulary`."""
    size = len(tiny_vocabulary())
    values = {
        "vocab_size": size,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "projection_dim": 16,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }
    made: CLIPTextConfig = CLIPTextConfig(**{**values, **other})
    return made
