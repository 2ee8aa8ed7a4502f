"""Captions on their way into the model: varied per draw, and encoded once per text where the encoders are frozen.

Texts are remembered by what they say, so captions may vary as they like. With `cache_text` all of them are encoded
before the first step, on disk too, and the text encoders leave the device; that is only possible where no setting
makes new texts on the way, so `plan.check` refuses those that would.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lorafactory.families import Base, Family, Frame
from lorafactory.training import captions
from lorafactory.training.buckets import Fit
from lorafactory.training.cache import Cache
from lorafactory.training.plan import Example, frame
from lorafactory.training.precision import autocast
from lorafactory.training.settings import TrainSettings

REMEMBERED = 1024
"""Texts held in memory, of captions that may vary; those of SDXL take 0.6 MB each."""


class Words:
    """Encodes captions; remembers what it encoded unless an encoder is being trained."""

    def __init__(
        self, family: Family, base: Base, settings: TrainSettings, *, cache: Path | None = None, steps: int = 0
    ) -> None:
        """`cache` is the workspace's cache folder, `steps` the length of the run, for `token_warmup`."""
        self.family, self.base, self.settings, self.steps = family, base, settings, steps
        self.encoders = [part for part in base.parts if part != "unet"]
        self.frozen = not settings.rates(self.encoders)
        self.away = False
        on_disk = cache is not None and settings.cache_text and settings.cache == "disk"
        most = None if settings.cache_text else REMEMBERED
        self.cache = Cache(cache / "text" if cache and on_disk else None, most=most)
        self.read_by = _identity(base, settings) if on_disk else {}

    def vary(self, example: Example, source: captions.Source, *, epoch: int, step: int) -> str:
        """Change a picture's caption as the settings say, in an epoch and after a step."""
        return captions.vary(
            example.caption,
            self.settings,
            source,
            trigger=example.trigger,
            epoch=epoch,
            step=step,
            steps=self.steps,
        )

    @property
    def can_park(self) -> bool:
        """True if every text that can come up is known, and the encoders stay as they are."""
        return self.frozen and not self.settings.varying()

    def park(self, fitted: Iterable[tuple[Example, Fit]]) -> None:
        """Encode all that can come up, and take the encoders off the device."""
        s = self.settings
        self.cache.most = None
        dropped = s.caption_dropout > 0 or s.caption_dropout_every > 0
        for example, fit in fitted:
            texts = [captions.steady(example.caption, s), *([""] if dropped else [])]
            for mirrored in (False, True) if s.flip else (False,):
                self(texts, [frame(example, fit, flip=mirrored)] * len(texts))
        self.away = True
        self._move("cpu")

    def bring_back(self) -> None:
        """Put the encoders on the device again, for whoever needs them there."""
        if self.away:
            self.away = False
            self._move(self.base.device)

    def __call__(self, texts: Sequence[str], frames: Sequence[Frame]) -> dict[str, Tensor]:
        """Return the conditioning of a batch: each value has one row per text."""
        if not self.frozen:
            return self._encode(texts, frames)
        rows = [self._row(text, frame) for text, frame in zip(texts, frames, strict=True)]
        return {name: torch.stack([row[name] for row in rows]).to(self.base.device) for name in rows[0]}

    def _row(self, text: str, frame: Frame) -> dict[str, Tensor]:
        """What a model call needs for one picture: encoded by itself, so that it does not depend on neighbours."""

        def make() -> dict[str, Tensor]:
            self.bring_back()
            with torch.no_grad(), autocast(self.base):
                return {name: value[0] for name, value in self._encode([text], [frame]).items()}

        return self.cache.get({**self.read_by, "text": text, "frame": dataclasses.astuple(frame)}, make)

    def _encode(self, texts: Sequence[str], frames: Sequence[Frame]) -> dict[str, Tensor]:
        s = self.settings
        return self.family.encode_captions(self.base, texts, frames, clip_skip=s.clip_skip, max_tokens=s.max_tokens)

    def _move(self, device: torch.device | str) -> None:
        for part in self.encoders:
            self.base.parts[part].to(device)


def _identity(base: Base, s: TrainSettings) -> dict[str, object]:
    """All that decides what a text becomes, beside the text: weights, vocabularies, precision and settings."""
    digest = hashlib.sha256()
    for tokenizer in base.tokenizers:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    for name, part in base.parts.items():
        for key, tensor in sorted(part.state_dict().items()) if name != "unet" else ():
            digest.update(f"{name}.{key} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    precision, skip = str(base.dtype), s.clip_skip
    return {"format": 2, "encoders": digest.hexdigest(), "dtype": precision, "skip": skip, "most": s.max_tokens}
