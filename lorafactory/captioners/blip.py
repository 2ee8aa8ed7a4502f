"""BLIP (Li et al., 2201.12086) through transformers, asked as kohya's captioner asks it: beams, and a decoder prompt.

Nothing is downloaded here: a model is a folder, or is in the hub's cache already. Weights are safetensors, and always
fp32: in half precision a beam can turn with the batch size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafactory.captioners._weights import WEIGHTS, Files, in_batches
from lorafactory.workspace import REAL_BLIP

if TYPE_CHECKING:
    from PIL import Image

MODEL = REAL_BLIP
ASKED = ("prompt", "beams", "min_length", "max_length")
PROSE = True
NEEDED = (WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer_config.json")
TOKENIZER = ("vocab.txt", "tokenizer.json", "special_tokens_map.json")
FILES = Files("BLIP", NEEDED, MODEL, "about 1900 MB", "lora init --fetch")


# ---------------------------------------------------------------- is it there, and which is it


def missing(model: str) -> str | None:
    """Say what is not on this machine and how to get it; None if all is there."""
    return FILES.missing(model)


def sources(model: str) -> tuple[str, list[str]]:
    """The repository and the files on the hub that `lora init --fetch` brings."""
    return model, [*NEEDED, *TOKENIZER]


def identity(model: str) -> str:
    """Return what tells this model's captions from another's: the hash of its files, or its commit on the hub."""
    return FILES.identity(model)


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Blip:
    """A loaded BLIP, in fp32, on the GPU where there is one."""

    processor: Any
    net: Any
    device: str

    @classmethod
    def load(cls, model: str) -> Blip:
        """Load a model; InputError if it is not on this machine."""
        folder = FILES.folder(model)
        import torch
        from transformers import BlipForConditionalGeneration, BlipProcessor

        device = "cuda" if torch.cuda.is_available() else "cpu"
        processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
        net = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        return cls(processor, net.eval().requires_grad_(False).to(device), device)

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        prompt: str,
        beams: int,
        min_length: int,
        max_length: int,
        batch: int,
    ) -> list[str]:
        """Describe each picture in one line, without the prompt. Lengths are in tokens and count the prompt's.

        Where the GPU's memory does not hold a batch, it is halved and the rest goes on so.
        """
        room = int(self.net.config.text_config.max_position_embeddings)
        how = {"num_beams": beams, "min_length": min(min_length, room), "max_length": min(max_length, room)}
        return in_batches(images, batch, lambda some: self._describe(some, prompt, do_sample=False, **how))

    def _describe(self, pictures: Sequence[Image.Image], prompt: str, **how: Any) -> list[str]:
        import torch

        texts = {"text": [prompt] * len(pictures)} if prompt else {}
        rgb = [picture.convert("RGB") for picture in pictures]
        inputs = self.processor(images=rgb, return_tensors="pt", **texts).to(self.device)
        with torch.inference_mode():
            ids = self.net.generate(**inputs, **how)
        said = self.processor.batch_decode(ids, skip_special_tokens=True)
        return [without_prompt(text, prompt) for text in said]


def load(model: str) -> Blip:
    """Load a model; InputError if it is not on this machine."""
    return Blip.load(model)


def without_prompt(text: str, prompt: str) -> str:
    """Take the prompt from the front of a caption, once; the tokenizer has changed its case and its spaces."""
    words = r"\s*".join(re.escape(w) for w in re.findall(r"\w+|[^\w\s]", prompt))
    rest = re.sub(rf"^\s*{words}(?!\w)", "", text, count=1, flags=re.IGNORECASE) if words else text
    return " ".join(rest.split())
