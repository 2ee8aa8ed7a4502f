"""Things as the pocket's base draws them: as they come back from its VAE, and half forgotten.

A LoRA that has learned too little draws its thing as the base would have it: marks run, limbs melt into a shape that
the base knows. So does the base, when noise is put over a picture and taken off again (SDEdit, arXiv:2108.01073).
DINOv2's pocket form learns from both that the first is the thing and the second is not.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from lorafactory.pocket import MODELS, grade, models, things
from lorafactory.pocket.loop import SEED, STATE
from lorafactory.pocket.pictures import pixels

COUNT, BATCH = 4000, 20
STEPS = 12
STRENGTHS = (2, 3, 4, 5, 6)
"""Of these steps the last so many are drawn again: after two a detail is gone, after six a thing is another shape."""
FILE = STATE / "redrawn.safetensors"


@dataclass(frozen=True)
class Redrawn:
    """Two pictures of each thing, uint8 (n, 3, side, side) as DINOv2 sees them."""

    back: torch.Tensor
    """As they come back from the VAE."""
    forgotten: torch.Tensor

    @classmethod
    def load(cls) -> Redrawn:
        return cls(**load_file(FILE))

    def __len__(self) -> int:
        return len(self.back)


def thing_of(index: int) -> tuple[things.Thing, random.Random]:
    """Thing `index`, the generator ready to draw the picture that is drawn again."""
    rng = random.Random(f"{SEED} thing {index}")
    return things.random_thing(rng), rng


def train_redrawn() -> None:
    """Draw pictures of made-up things again."""
    if FILE.exists():
        return
    pipe = pipeline()
    back, forgotten = [], []
    with Progress() as bar:
        for start in bar.track(range(0, COUNT, BATCH), description="redrawn"):
            drawn = [things.draw(*thing_of(i)) for i in range(start, start + BATCH)]
            back.append(small(through_vae(pipe, drawn)))
            again = STRENGTHS[start // BATCH % len(STRENGTHS)]
            forgotten.append(small(half_forgotten(pipe, drawn, again, range(start, start + BATCH))))
    save_file({"back": torch.cat(back), "forgotten": torch.cat(forgotten)}, f"{FILE}.part")
    Path(f"{FILE}.part").replace(FILE)


def pipeline() -> Any:
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(MODELS / "base", dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def through_vae(pipe: Any, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    latents = pipe.vae.encode(pixels(pictures)).latent_dist.mean
    made: list[Image.Image] = pipe.image_processor.postprocess(pipe.vae.decode(latents).sample)
    return made


def half_forgotten(pipe: Any, pictures: Sequence[Image.Image], again: int, seeds: Sequence[int]) -> list[Image.Image]:
    """The pictures with the last `again` of STEPS drawn again, for what the base would call each."""
    known = [grade.see(picture) for picture in pictures]
    prompts = [f"a large {s.colour} {s.shape} in front of a plain {s.background[0]} background" for s in known]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    told = {"strength": again / STEPS, "num_inference_steps": STEPS, "guidance_scale": 3.0, "generator": generators}
    made: list[Image.Image] = pipe(prompts, image=list(pictures), **told).images
    return made


def small(pictures: Sequence[Image.Image]) -> torch.Tensor:
    side = (models.CLIP_SIDE, models.CLIP_SIDE)
    rows = [np.asarray(picture.resize(side, Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def seen(picture: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A picture of the pool as a float in -1..1, sometimes a little noisy; it is blurred enough."""
    tensor = picture.float() / 127.5 - 1
    return tensor + torch.randn_like(tensor) * rng.uniform(0.0, 0.04) if rng.random() < 0.3 else tensor
