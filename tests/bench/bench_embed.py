"""What looking at pictures costs over decoding them and asking CLIP, each alone, in one run.

ViT-B-32 with random weights and 512-pixel PNGs. `vectors` is CLIP alone; `everything` adds hashes, sharpness, levels
and compression, from the same decode, and writes it all to the cache. Threads are those of the machine, for all alike.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorafactory import images
from lorafactory.dataset import Picture
from lorafactory.encoders import clip
from lorafactory.encoders._memory import batches
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import _looks
from lorafactory.workspace import LoraDir, Workspace

COUNT, SIDE, ROUNDS = 64, 512, 3


def photographs(folder: Path) -> list[Picture]:
    """Parts of real photographs, so that decoding takes what it takes; without them, smooth noise."""
    rng = np.random.default_rng(0)
    try:
        import skimage.data

        source = Image.fromarray(skimage.data.astronaut())
    except ImportError:
        source = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    for i in range(COUNT):
        left, top = rng.integers(0, 200, 2)
        part = source.crop((left, top, left + 312, top + 312)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        (folder / f"{i + 1:04}.png").write_bytes(images.png(part))
    return [Picture(path) for path in images.find(folder)]


def random_clip() -> clip.Clip:
    import open_clip
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, _, transform = open_clip.create_model_and_transforms("ViT-B-32", device=device)
    return clip.Clip(net.eval().requires_grad_(False), transform, open_clip.get_tokenizer("ViT-B-32"), device)


def seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    net = random_clip()
    clip.Clip.load = staticmethod(lambda model: net)  # type: ignore[assignment,method-assign]
    clip.identity = lambda model: "random"  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "set"
        place.mkdir()
        pictures = photographs(place)
        ready = [net.prepare(images.load(p.path)) for p in pictures]
        net.encode_prepared(ready[:8])
        best = {"decode": 1e9, "forward": 1e9, "vectors": 1e9, "everything": 1e9}
        for i in range(ROUNDS):
            work = Work(Workspace(Path(folder) / f"w{i}", ""), LoraDir("x", place, False), Recipe(Header(), {}, {}))
            cache = Path(folder) / f"v{i}"
            jobs = {
                "decode": lambda: [images.load(p.path) for p in pictures],
                "forward": lambda: [net.encode_prepared(some) for some in batches(ready, clip.BATCH)],
                "vectors": lambda cache=cache: clip.embed(pictures, "", cache),
                "everything": lambda work=work: _looks.see(work, clip=True, exact=True),
            }
            best = {name: min(best[name], seconds(job)) for name, job in jobs.items()}
    alone = best["decode"] + best["forward"]
    for name, took in best.items():
        print(f"{name:10} {took / COUNT * 1000:6.1f} ms a picture   {took / alone:4.2f} x (decode + forward)")


if __name__ == "__main__":
    main()
