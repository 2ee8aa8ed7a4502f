"""Draw new originals with the base model: every prompt from several seeds, each with a .json that tells how.

From source/ on they are pictures like any other, marked synthetic in the record. Pictures that are there already
are not drawn again. Seed 001 made whole sets so; its advice holds: train on other words than these prompts.

\b
For example:
  lora generate anna --prompts "photo of a woman, from the left" --count 20
  lora generate ./photos --base pocket --prompts "a large red star" --apply     into the folder itself
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lorafactory import families, images
from lorafactory.dataset import Picture
from lorafactory.errors import Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.step import Result, StepSettings, Work, model_identity

if TYPE_CHECKING:
    from lorafactory.families import Base

VERSION = 1
HEADER = ("trigger", "class")
MODELS = ("base",)


class Settings(StepSettings):
    """What is drawn."""

    prompts: tuple[str, ...] = ()
    """What to draw, one picture per prompt and seed; `{class}` and `{trigger}` stand for the LoRA's own."""
    count: int = Field(4, ge=1)
    """Pictures per prompt. From 1; time and disk grow with it."""
    seed: int = Field(0, ge=0)
    """Seed of each prompt's first picture; the next ones count up."""
    steps: int = Field(30, ge=1)
    """Denoising steps per picture: more takes longer and changes little above 30. From 1."""
    cfg: float = Field(7.0, ge=0)
    """How closely the picture follows its prompt: 1 not at all, 5 to 9 is usual."""
    negative: str = ""
    """What the pictures should not show."""
    width: int = Field(0, ge=0, multiple_of=8)
    """Pixels, a multiple of 8; 0 takes the base's own size."""
    height: int = Field(0, ge=0, multiple_of=8)
    """Pixels, a multiple of 8; 0 takes the base's own size."""
    batch: int = Field(4, ge=1, json_schema_extra={"neutral": True})
    """Pictures drawn at once: more is faster and needs more memory. From 1."""


@dataclass(frozen=True)
class Drawing:
    """One picture to be drawn: where, and what its .json tells."""

    path: Path
    told: dict[str, Any]


def check(work: Work, settings: Settings) -> list[Problem]:
    problems = []
    if not [p for p in settings.prompts if p.strip()]:
        line = f'lora generate {work.place.name} --prompts "..."'
        problems.append(Problem("generate: no prompts", line, error=SettingsError))
    if "{class}" in " ".join(settings.prompts) and not work.recipe.header.class_:
        line = "class = ... in lora.toml, or --class"
        problems.append(Problem("generate: a prompt has {class}, and none is set", line, error=SettingsError))
    return problems


def sees(work: Work, settings: Settings) -> dict[str, str]:
    """Nothing: what is drawn depends on settings and base alone, and a drawing that a person took out stays out."""
    return {}


def drawings(work: Work, settings: Settings) -> list[Drawing]:
    """Every prompt with every seed. The name is a hash of all that makes the picture."""
    folder = work.place.source if work.place.owned else work.place.root
    model = model_identity(work, "base")
    name = work.recipe.header.base or (work.models.base.name if work.models.base else "")
    found = []
    for template in settings.prompts:
        prompt = template.replace("{class}", work.recipe.header.class_).replace("{trigger}", work.trigger).strip()
        for seed in range(settings.seed, settings.seed + settings.count if prompt else settings.seed):
            told = {"prompt": prompt, "seed": seed, "base": Path(name).name, "base_sha256": model}
            told |= settings.model_dump(include={"steps", "cfg", "negative", "width", "height"})
            digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            found.append(Drawing(folder / f"generated-{digest[:16]}.png", told))
    return found


def run(work: Work, settings: Settings) -> Result:
    """Draw what is missing, batch by batch; what was drawn before an interruption stays."""
    wanted = {d.path: d for d in drawings(work, settings)}.values()
    missing = [d for d in wanted if not d.path.exists()]
    there = len(wanted) - len(missing)
    data = {"drawn": [d.path.name for d in missing], "there": there}
    if not work.apply or not missing:
        return Result(f"generate: {len(missing)} {'' if work.apply else 'would be '}drawn, {there} there already", data)
    missing[0].path.parent.mkdir(parents=True, exist_ok=True)
    base = load(work)
    batches = [missing[i : i + settings.batch] for i in range(0, len(missing), settings.batch)]
    for batch in work.track(batches, "generating"):
        draw(work, settings, base, batch)
    return Result(f"generate: {len(missing)} drawn, {there} there already", data)


def load(work: Work) -> Base:
    import torch

    path, gpu = work.models.base, torch.cuda.is_available()
    if path is None:
        raise SettingsError("generate: no base to draw with")
    family = families.get(families.detect(path))
    return family.load(path, dtype=torch.float16 if gpu else torch.float32, device="cuda" if gpu else "cpu")


def draw(work: Work, settings: Settings, base: Base, batch: list[Drawing]) -> None:
    """Draw one batch and write it, the .json first: a picture is never there without telling what it is."""
    from lorafactory.training.sample import sample

    unet: Any = base.parts["unet"]
    own = unet.config.sample_size * base.latent_factor
    pictures = sample(
        base,
        [d.told["prompt"] for d in batch],
        [d.told["seed"] for d in batch],
        steps=settings.steps,
        cfg=settings.cfg,
        size=(settings.width or own, settings.height or own),
        negative=settings.negative,
        batch=settings.batch,
    )
    for drawing, picture in zip(batch, pictures, strict=True):
        text = json.dumps(drawing.told, ensure_ascii=False, indent=1)
        write_whole(drawing.path.with_suffix(".json"), text.encode())
        images.save_png(picture, drawing.path)
        work.note.made("original", drawing.path)
        work.note(Picture(drawing.path), "generated", "generate", why=drawing.told["prompt"])
