"""CLIP's tokenizer, as both Stable Diffusion families read captions; it needs neither torch nor a model."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

from transformers import CLIPTokenizer

from lorafactory.errors import BaseError


def tokenizer() -> CLIPTokenizer:
    """Build CLIP's tokenizer from the vocabulary that open_clip ships."""
    spec = importlib.util.find_spec("open_clip")  # found, not imported: that takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise BaseError("open_clip is not installed, and CLIP's vocabulary is in it: pip install open_clip_torch")
    text = gzip.decompress((Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    # the first line is a version; 48 894 merges make, with 2 x 256 bytes and 2 specials, the 49 408 tokens
    merges = text.decode("utf-8").splitlines()[1 : 49152 - 256 - 2 + 1]
    pairs = [(left, right) for left, right in (line.split() for line in merges)]
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(left + right for left, right in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    made: CLIPTokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=pairs, model_max_length=77
    )
    return made


def byte_symbols() -> list[str]:
    """Name each byte by a visible character, in the order of GPT-2's BPE, as CLIP's vocabulary does."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in visible] + [chr(256 + n) for n in range(256 - len(visible))]


def tokenizer_of(base: Path | None) -> CLIPTokenizer:
    """The tokenizer of a base as it lies on disk; a one-file checkpoint has none of its own, and CLIP's is used."""
    folder = base / "tokenizer" if base is not None and base.is_dir() else None
    if folder is None or not folder.is_dir():
        return tokenizer()
    own: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return own
