"""What the training loop costs over the bare arithmetic: a step of the pocket base against its UNet alone."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import torch

from lorafactory import families, images
from lorafactory.pocket import MODELS
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.training import loop
from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings

BATCH, STEPS = 4, 40


def examples(folder: Path) -> list[Example]:
    import random

    rng = random.Random(1)
    made = []
    for i in range(8):
        path = folder / f"{i:04}.png"
        images.save_png(CONCEPTS["eyestar"].sample(rng), path)
        made.append(Example(path.name, path, images.sha256(path), f"zqx, a star {i}", STEPS * BATCH // 8, 96, 96))
    return made


def bare_seconds(base: families.Base) -> float:
    """Forward and backward of the UNet on one batch, all weights frozen but the last layer's input."""
    unet = base.parts["unet"]
    latents, text = torch.randn(BATCH, 4, 12, 12), torch.randn(BATCH, 77, 128)
    latents.requires_grad_()
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        unet(latents, torch.full((BATCH,), 500), encoder_hidden_states=text).sample.square().mean().backward()
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    torch.set_num_threads(1)
    base = families.get("sd15").load(MODELS / "base")
    bare = bare_seconds(base)
    for network in ("lora", "locon"):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            times: list[float] = []
            loop.train(
                base,
                examples(place),
                TrainSettings(
                    epochs=1, batch=BATCH, resolution=96, bucket_step=32, min_bucket=64, network=network, rank=16
                ),
                cache=place / "cache",
                on_step=lambda step, loss, lr, times=times: times.append(time.perf_counter()),
            )
            step = min(b - a for a, b in itertools.pairwise(times))
            print(f"{network:6} step {step * 1000:6.0f} ms   {step / bare:4.2f} x the bare UNet ({bare * 1000:.0f} ms)")


if __name__ == "__main__":
    main()
