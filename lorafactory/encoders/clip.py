"""CLIP through open_clip: vectors in which pictures and texts of one meaning lie close (Radford et al., 2103.00020).

Nothing is downloaded here: a model is a folder, or a file that is in the hub's cache already. Weights are safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafactory import images
from lorafactory.encoders._memory import Memory, ahead, batches
from lorafactory.errors import InputError, SettingsError

if TYPE_CHECKING:
    from PIL import Image

    from lorafactory.dataset import Picture
    from lorafactory.encoders import Opened, Track

BATCH = 32
FOLDER = "folder:"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""open_clip would also take a pickle from the folder, so this name is asked for."""


@dataclass(frozen=True)
class Hub:
    """Where the weights of one of open_clip's `MODEL/TAG` lie on the hub."""

    repository: str
    file: str
    megabytes: int


KNOWN = {
    "ViT-B-32-quickgelu/openai": Hub("timm/vit_base_patch32_clip_224.openai", WEIGHTS, 605),
}


# ---------------------------------------------------------------- is it there, and which is it


def missing(model: str) -> str | None:
    """Say what is not on this machine and how to get it; None if all is there."""
    if model.startswith(FOLDER):
        folder = Path(model.removeprefix(FOLDER))
        lacking = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        return f"CLIP is not whole: {folder} has no {' and no '.join(lacking)}" if lacking else None
    if _cached(model) is not None:
        return None
    hub = _known(model)
    size = f"about {round(hub.megabytes, -2)} MB"
    return f"CLIP ({model}) is not on this machine: {hub.repository}/{hub.file}, {size}; lora init --fetch gets it"


def sources(model: str) -> tuple[str, list[str]]:
    """The repository and the files on the hub that `lora init --fetch` brings."""
    hub = _known(model)
    return hub.repository, [hub.file]


def identity(model: str) -> str:
    """Return what tells this model's vectors from another's: the hash of its files, or its commit on the hub."""
    if lacking := missing(model):
        raise InputError(lacking)
    if model.startswith(FOLDER):
        folder = Path(model.removeprefix(FOLDER))
        whole = images.sha256(folder / CONFIG) + images.sha256(folder / WEIGHTS)
        return "clip:" + hashlib.sha256(whole.encode()).hexdigest()
    file = _cached(model)
    assert file is not None  # nothing is missing
    return f"clip:{model}@{file.parent.name}"


def _known(model: str) -> Hub:
    if model not in KNOWN:
        known = ", ".join(KNOWN)
        raise SettingsError(f"there is no CLIP called {model!r}; known are: {known}, or {FOLDER}PATH")
    return KNOWN[model]


def _cached(model: str) -> Path | None:
    """The file of a `MODEL/TAG` in the hub's cache, `.../snapshots/<commit>/<file>`, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache

    hub = _known(model)
    found = try_to_load_from_cache(hub.repository, hub.file)
    return Path(found) if isinstance(found, str) else None


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP, in fp32, on the GPU where there is one."""

    net: Any
    transform: Any
    tokenizer: Any
    device: str

    @classmethod
    def load(cls, model: str) -> Clip:
        """Load a model; InputError if it is not on this machine."""
        if lacking := missing(model):
            raise InputError(lacking)
        import open_clip
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if model.startswith(FOLDER):
            name, weights, pixels = f"local-dir:{model.removeprefix(FOLDER)}", None, {}
        else:
            name, _, tag = model.partition("/")
            weights, pixels = str(_cached(model)), _pixels(name, tag)
        # this call requires pretrained weights; open_clip's others give a random model where they are lacking
        net, transform = open_clip.create_model_from_pretrained(name, weights, device=device, **pixels)
        return cls(net.eval().requires_grad_(False), transform, open_clip.get_tokenizer(name), device)

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return one row of length 1 per picture."""
        return _rows([self.encode_prepared([self.prepare(p) for p in some]) for some in batches(pictures, BATCH)])

    def prepare(self, picture: Image.Image) -> Any:
        """Bring a picture to the model's size and range; what threads can do."""
        return self.transform(picture.convert("RGB"))

    def encode_prepared(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return one row of length 1 per picture that went through `prepare`, all at once."""
        import torch

        if not prepared:
            return _rows([])
        with torch.inference_mode():
            pixels = torch.stack(list(prepared)).to(self.device)
            return _rows([self.net.encode_image(pixels, normalize=True).float().cpu().numpy()])

    def encode_parts(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return pictures x patches x width, rows of length 1: what is seen half-way, before it is only a meaning."""
        import torch

        visual, parts = self.net.visual, []
        half = len(visual.transformer.resblocks) // 2
        with torch.inference_mode():
            for some in batches(pictures, BATCH):
                pixels = torch.stack([self.prepare(p) for p in some]).to(self.device)
                seen = visual.forward_intermediates(
                    pixels, [half - 1], stop_early=True, intermediates_only=True, output_fmt="NLC"
                )
                patches = torch.nn.functional.normalize(seen["image_intermediates"][0], dim=-1)
                parts.append(patches.float().cpu().numpy())
        return _rows(parts)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 per text; what is beyond the model's context is not read."""
        import torch

        rows = []
        with torch.inference_mode():
            for some in batches(texts, BATCH):
                tokens = self.tokenizer(list(some)).to(self.device)
                rows.append(self.net.encode_text(tokens, normalize=True).float().cpu().numpy())
        return _rows(rows)


def load(model: str) -> Clip:
    """Load a model; InputError if it is not on this machine."""
    return Clip.load(model)


def _pixels(name: str, tag: str) -> dict[str, Any]:
    """How pictures are prepared for a tag; SettingsError if its weights were trained with another activation.

    open_clip only warns of that, and returns other vectors.
    """
    import open_clip

    config, trained = open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag)
    if not config or not trained:
        raise SettingsError(f"open_clip knows no {name}/{tag}")
    if bool(config.get("quick_gelu")) != bool(trained.get("quick_gelu")):
        kind = "quick GELU" if trained.get("quick_gelu") else "plain GELU"
        raise SettingsError(f"{name}/{tag}: these weights were trained with {kind}, and {name} has the other one")
    wanted = {
        "image_mean": "mean",
        "image_std": "std",
        "image_interpolation": "interpolation",
        "image_resize_mode": "resize_mode",
    }
    return {option: trained[key] for option, key in wanted.items() if key in trained}


def _rows(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 0), np.float32)


# ---------------------------------------------------------------- by content


def plain(items: Sequence[Any], what: str) -> Iterable[Any]:
    """No bar."""
    return items


def whole(picture: Picture) -> Image.Image:
    return images.load(picture.path)


def embed(pictures: Sequence[Picture], model: str, cache: Path, track: Track = plain) -> NDArray[np.float32]:
    """Return one row per picture; Unreadable if one is broken. Otherwise as `rows`."""
    if not pictures:
        return np.zeros((0, 0), np.float32)
    found = rows(pictures, model, cache, whole, track)
    return np.stack([found[p.sha256] for p in pictures])


def rows(
    pictures: Sequence[Picture], model: str, cache: Path, opened: Opened, track: Track = plain
) -> dict[str, NDArray[np.float32]]:
    """Return the row of every picture by its sha256; the model is loaded only for bytes it has not seen before.

    `opened` decodes a picture, in a thread while the model looks at others; where it gives None there is no row.
    Rows are kept by the hash of the file and the model's identity, and written batch by batch, so that an
    interrupted run goes on where it was.
    """
    memory = Memory(cache / "embeddings", identity(model))
    found = {p.sha256: row for p in pictures if (row := memory.get(p.sha256)) is not None}
    unseen = list({p.sha256: p for p in pictures if p.sha256 not in found}.values())
    if not unseen:
        return found
    clip = Clip.load(model)

    def prepared(picture: Picture) -> tuple[str, Any]:
        image = opened(picture)
        return picture.sha256, None if image is None else clip.prepare(image)

    for _, made in zip(track(batches(unseen, BATCH), "looking with CLIP"), ahead(unseen, prepared, BATCH), strict=True):
        ready = {sha: pixels for sha, pixels in made if pixels is not None}
        fresh = clip.encode_prepared(list(ready.values()))
        for sha, row in zip(ready, fresh, strict=True):
            memory.put(sha, row)
            found[sha] = row
    return found


def read(texts: Sequence[str], model: str, cache: Path) -> NDArray[np.float32]:
    """Return one row per text, comparable with those of pictures, from the cache where it was read before."""
    memory = Memory(cache / "embeddings", identity(model))
    found = {text: memory.get(f"text {text}") for text in texts}
    if unread := [text for text, row in found.items() if row is None]:
        for text, row in zip(unread, Clip.load(model).encode_texts(unread), strict=True):
            memory.put(f"text {text}", row)
            found[text] = row
    return _rows([row[None] for text in texts if (row := found[text]) is not None])
