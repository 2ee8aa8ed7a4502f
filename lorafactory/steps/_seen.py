"""What CLIP thinks of words about a picture: which of a list fits best, and which phrase shows nothing that is there.

Only cosines of one picture are compared, or of one text: those of different texts differ by the texts alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorafactory import encoders, wording
from lorafactory.dataset import Picture
from lorafactory.step import Work

Row = NDArray[np.float32]
GAP = 50.0
"""Percentile below which what a phrase names is not seen in its picture more than anywhere else."""
ASKED = "a picture of {}"
WORD = "a picture, {}"

# fmt: off
NOUNS = (
    "airplane", "apple", "apron", "arrow", "axe", "baby", "backpack", "bag", "ball", "balloon", "banana", "bandage",
    "barrel", "basket", "bat", "beach", "beard", "bed", "belt", "bench", "bicycle", "bird", "blanket", "boat", "book",
    "boot", "bottle", "bow", "bowl", "box", "bracelet", "bread", "bridge", "broom", "brush", "bucket", "bus",
    "butterfly", "cake", "camera", "candle", "cap", "cape", "car", "carpet", "castle", "cat", "cell phone", "chain",
    "chair", "child", "church", "cigarette", "circle", "city", "clock", "cloud", "coat", "coin", "computer", "couch",
    "cow", "cross", "crowd", "crown", "cup", "curtain", "desert", "desk", "dog", "doll", "door", "dragon", "dress",
    "drum", "earring", "egg", "elephant", "fan", "feather", "fence", "field", "fire", "fish", "flag", "flower", "food",
    "forest", "fork", "fountain", "frog", "fruit", "garden", "gate", "ghost", "giraffe", "glass", "glasses", "glove",
    "guitar", "gun", "hammer", "handbag", "hat", "heart", "helmet", "hill", "hood", "horse", "house", "ice cream",
    "jacket", "jewel", "key", "keyboard", "kitchen", "kite", "knife", "ladder", "lake", "lamp", "laptop", "leaf",
    "letter", "lion", "map", "mask", "medal", "microphone", "mirror", "monkey", "moon", "motorcycle", "mountain",
    "mouse", "mushroom", "necklace", "newspaper", "ocean", "office", "orange", "painting", "palace", "paper",
    "parachute", "park", "pen", "pencil", "piano", "pillow", "pipe", "pizza", "plant", "plate", "poster", "rabbit",
    "radio", "rain", "remote control", "ribbon", "ring", "river", "road", "robe", "robot", "rock", "roof", "rope",
    "rose", "sandwich", "scarf", "school", "scissors", "sea", "sheep", "shelf", "ship", "shirt", "shoe", "shop",
    "shovel", "sign", "skateboard", "skirt", "sky", "skull", "snake", "snow", "soap", "sock", "spoon", "square",
    "stage", "stairs", "star", "statue", "street", "suit", "suitcase", "sunglasses", "sword", "table", "tattoo",
    "television", "tent", "tie", "tiger", "towel", "tower", "toy", "train", "tree", "triangle", "truck", "trumpet",
    "turtle", "umbrella", "vase", "violin", "wall", "wallet", "watch", "waterfall", "wheel", "whip", "window", "wine",
    "wing", "wolf", "zebra",
)
# fmt: on
"""What a picture may show: a phrase whose noun fits its picture no better than these do is doubtful."""


@dataclass(frozen=True)
class Phrase:
    """One phrase of a caption, and what speaks for it."""

    index: int
    """Which piece of the caption it is."""
    text: str
    drop: float
    """Cosine of the whole caption less that of the caption without it; CLIP misses a phrase that is true."""
    gap: float
    """Percentile, 0 to 100, of what it names: among the set's other pictures and among NOUNS, half and half."""

    @property
    def supported(self) -> bool:
        return self.drop > 0 or self.gap >= GAP


@dataclass(frozen=True)
class Choice:
    """How the words of one dimension fit one picture."""

    dimension: str
    ranking: tuple[tuple[str, float], ...]
    """Words with their cosines, best first; at least two."""

    @property
    def lead(self) -> float:
        """How far the best is ahead of the next, in cosines."""
        return self.ranking[0][1] - self.ranking[1][1]


@dataclass(frozen=True)
class Eye:
    """CLIP, looking at one set."""

    work: Work

    def pictures(self, pictures: Sequence[Picture]) -> dict[Picture, Row]:
        rows = encoders.get("clip").embed(pictures, self.work.judges.clip, self.work.workspace.cache, self.work.track)
        return dict(zip(pictures, rows, strict=True))

    def texts(self, texts: Iterable[str]) -> dict[str, Row]:
        each = list(dict.fromkeys(texts))
        return dict(
            zip(each, encoders.get("clip").read(each, self.work.judges.clip, self.work.workspace.cache), strict=True)
        )


def judge(eye: Eye, captions: Mapping[Picture, str], others: Sequence[Picture]) -> dict[Picture, list[Phrase]]:
    """Score every phrase of every caption; `others` are further pictures of the set to compare with.

    The method is F-CLIPScore's idea (2502.20034), per phrase: a caption as a whole tells too little.
    """
    found = {picture: wording.phrases(text) for picture, text in captions.items()}
    asked = {picture: text for picture, text in captions.items() if found[picture]}
    if not asked:
        return {}
    nulls = [ASKED.format(f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}") for noun in NOUNS]
    texts = {*nulls, *asked.values()}
    for picture, text in asked.items():
        texts |= {wording.without(text, {i}) for i in found[picture]} | {named(text, i) for i in found[picture]}
    row_of = eye.texts(sorted(texts))
    seen = eye.pictures(list(dict.fromkeys([*captions, *others])))
    null_rows = np.stack([row_of[null] for null in nulls])
    return {p: [score(p, text, i, row_of, seen, null_rows) for i in found[p]] for p, text in asked.items()}


def named(text: str, index: int) -> str:
    """The question for what a phrase names."""
    return ASKED.format(wording.noun(wording.pieces(text)[index]))


def score(
    picture: Picture,
    text: str,
    index: int,
    row_of: Mapping[str, Row],
    seen: Mapping[Picture, Row],
    null_rows: NDArray[np.float32],
) -> Phrase:
    """Score one phrase of one caption."""
    own, asked = seen[picture], row_of[named(text, index)]
    drop = float(own @ row_of[text] - own @ row_of[wording.without(text, {index})])
    here = float(own @ asked)
    shares = [float((null_rows @ own < here).mean())]
    elsewhere = [float(row @ asked) for other, row in seen.items() if other != picture]
    if elsewhere:
        shares.append(float((np.asarray(elsewhere) < here).mean()))
    return Phrase(index, wording.bare(wording.pieces(text)[index]), drop, 100 * float(np.mean(shares)))


def choose(eye: Eye, words: Mapping[str, Sequence[str]], pictures: Sequence[Picture]) -> dict[Picture, list[Choice]]:
    """Rank each dimension's words for each picture."""
    row_of = eye.texts(WORD.format(word) for each in words.values() for word in each)
    found: dict[Picture, list[Choice]] = {}
    for picture, row in eye.pictures(pictures).items():
        for dimension, each in words.items():
            ranking = sorted(((w, float(row @ row_of[WORD.format(w)])) for w in each), key=lambda one: -one[1])
            found.setdefault(picture, []).append(Choice(dimension, tuple(ranking)))
    return found
