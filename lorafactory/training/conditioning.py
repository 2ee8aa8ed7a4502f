"""Captions on their way into the model: varied per draw, encoded once per text if the encoder is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorafactory.families import Base, Family, Frame
from lorafactory.training import captions
from lorafactory.training.settings import TrainSettings

Row = dict[str, Tensor]
"""What a model call needs for one picture, without the batch dimension."""


class Words:
    """Encodes captions; remembers what it encoded unless the encoder is being trained."""

    def __init__(self, family: Family, base: Base, settings: TrainSettings) -> None:
        self.family, self.base, self.settings = family, base, settings
        self.frozen = settings.text_encoder_lr == 0
        self.rows: dict[tuple[str, Frame], Row] = {}

    def vary(self, caption: str, generator: torch.Generator) -> str:
        """Change a caption as the settings say."""
        s = self.settings
        return captions.vary(
            caption,
            generator,
            keep_tokens=s.keep_tokens,
            shuffle=s.shuffle_captions,
            caption_dropout=s.caption_dropout,
            tag_dropout=s.tag_dropout,
        )

    def __call__(self, texts: Sequence[str], frames: Sequence[Frame]) -> dict[str, Tensor]:
        """Return the conditioning of a batch: each value has one row per text."""
        if not self.frozen:
            return self._encode(texts, frames)
        for key in zip(texts, frames, strict=True):
            if key not in self.rows:  # one at a time, so that a row does not depend on its neighbours
                with torch.no_grad():
                    encoded = self._encode([key[0]], [key[1]])
                self.rows[key] = {name: value[0] for name, value in encoded.items()}
        rows = [self.rows[key] for key in zip(texts, frames, strict=True)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _encode(self, texts: Sequence[str], frames: Sequence[Frame]) -> dict[str, Tensor]:
        return self.family.encode_captions(self.base, texts, frames, clip_skip=self.settings.clip_skip)
