"""The trigger: a token of the LoRA's own, made from its name.

Seed 003 replaces letters by digits until the word means nothing to the model; here CLIP's own vocabulary decides when
that is so. The vocabulary ships with open_clip and is read without importing it or loading a model.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import itertools
import re
import unicodedata
from functools import cache
from pathlib import Path

DIGITS = {"e": "3", "a": "4", "o": "0", "i": "1", "s": "5", "t": "7", "l": "1", "b": "8", "g": "9", "z": "2"}
_PIECES = re.compile(r"[a-z]+|[0-9]")
MERGES = 49152 - 256 - 2
"""CLIP's vocabulary: 256 bytes, each also as a word's end, the merges, and two special tokens."""


def make_trigger(name: str) -> str:
    """The name in ASCII and lower case, letters turned to digits one at a time until CLIP reads two to four tokens."""
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    word = re.sub(r"[^a-z0-9]", "", folded)[:12]
    if len(word) < 3:  # a name in another script: letters that mean nothing, always the same for the same name
        digest = hashlib.sha256(name.encode()).digest()
        word += "".join("bcdfghjkmnpqrvwxz"[b % 17] for b in digest[: 5 - len(word)])
    for candidate in candidates(word):
        if 2 <= len(tokens(candidate)) <= 4:
            return candidate
    return word


def candidates(word: str) -> list[str]:
    """The word with none, one, two ... of its letters as digits, from the first letter that has one."""
    out = [word]
    for i, letter in enumerate(word):
        if letter in DIGITS:
            out.append(out[-1][:i] + DIGITS[letter] + out[-1][i + 1 :])
    singles = [word[:i] + DIGITS[c] + word[i + 1 :] for i, c in enumerate(word) if c in DIGITS]
    return [word, *singles, *out[2:]]


def tokens(word: str) -> list[str]:
    """CLIP's byte-pair tokens of a lower-case ASCII word (arXiv:1508.07909, merges in the order of their rank)."""
    found: list[str] = []
    for piece in _PIECES.findall(word):
        parts = [*piece[:-1], piece[-1] + "</w>"]
        while len(parts) > 1:
            ranks = [merges().get((a, b), MERGES) for a, b in itertools.pairwise(parts)]
            best = min(ranks)
            if best == MERGES:
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found += parts
    return found


@cache
def merges() -> dict[tuple[str, str], int]:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None, "open_clip_torch is a dependency"
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES - 256 + 1]
    return {(a, b): i for i, (a, b) in enumerate(line.split() for line in lines)}
