"""BLIP (Li et al., 2201.12086) through transformers, asked as kohya's captioner asks it: beams, and a decoder prompt.

Nothing is downloaded here: a model is a folder, or is in the hub's cache already. Weights are safetensors, and always
fp32: in half precision a beam can turn with the batch size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafactory import images
from lorafactory.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

WEIGHTS = "model.safetensors"
NEEDED = (WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer_config.json")
TOKENIZER = ("vocab.txt", "tokenizer.json", "special_tokens_map.json")
SIZE = "about 1900 MB"
"""Of `Salesforce/blip-image-captioning-large`."""


# ---------------------------------------------------------------- is it there, and which is it


def missing(model: str) -> str | None:
    """Say what is not on this machine and how to get it; None if all is there."""
    folder = Path(model)
    if folder.is_dir():
        lacking = [name for name in NEEDED if not (folder / name).is_file()]
        return f"BLIP is not whole: {folder} has no {' and no '.join(lacking)}" if lacking else None
    lacking = [name for name in NEEDED if _cached(model, name) is None]
    if not lacking:
        return None
    return f"BLIP is not on this machine: {model}/{lacking[0]}, {SIZE} in all; lora init --fetch gets it"


def sources(model: str) -> tuple[str, list[str]]:
    """The repository and the files on the hub that `lora init --fetch` brings."""
    return model, [*NEEDED, *TOKENIZER]


def identity(model: str) -> str:
    """Return what tells this model's captions from another's: the hash of its files, or its commit on the hub."""
    if lacking := missing(model):
        raise InputError(lacking)
    folder = Path(model)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".txt"})
        whole = "".join(f"{p.name} {images.sha256(p)}\n" for p in files)
        return "blip:" + hashlib.sha256(whole.encode()).hexdigest()
    file = _cached(model, WEIGHTS)
    assert file is not None  # nothing is missing
    return f"blip:{model}@{file.parent.name}"


def _cached(model: str, file: str) -> Path | None:
    """A file of a hub id in the hub's cache, `.../snapshots/<commit>/<file>`, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, file)
    except HFValidationError:  # a path at which nothing is
        return None
    return Path(found) if isinstance(found, str) else None


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
        if lacking := missing(model):
            raise InputError(lacking)
        import torch
        from transformers import BlipForConditionalGeneration, BlipProcessor

        device = "cuda" if torch.cuda.is_available() else "cpu"
        processor = BlipProcessor.from_pretrained(model, local_files_only=True)
        net = BlipForConditionalGeneration.from_pretrained(
            model, local_files_only=True, use_safetensors=True, dtype=torch.float32
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
        import torch

        room = int(self.net.config.text_config.max_position_embeddings)
        lengths = {"min_length": min(min_length, room), "max_length": min(max_length, room)}
        done: list[str] = []
        while len(done) < len(images):
            some = [p.convert("RGB") for p in images[len(done) : len(done) + batch]]
            try:
                done += self._describe(some, prompt, num_beams=beams, do_sample=False, **lengths)
            except torch.cuda.OutOfMemoryError:
                if len(some) == 1:
                    raise
                torch.cuda.empty_cache()
                batch = len(some) // 2
        return done

    def _describe(self, pictures: list[Image.Image], prompt: str, **how: Any) -> list[str]:
        import torch

        texts = {"text": [prompt] * len(pictures)} if prompt else {}
        inputs = self.processor(images=pictures, return_tensors="pt", **texts).to(self.device)
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
