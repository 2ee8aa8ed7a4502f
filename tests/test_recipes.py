"""Every recipe that ships: it parses for each family, says what is odd about it, plans, and trains."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorafactory import families, recipe, settings, step, steps
from lorafactory.pocket import MODELS, demo
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.recipe import Recipe
from lorafactory.training import plan as planned
from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings

FOLDER = Path(__file__).parent.parent / "recipes"
FILES = sorted(FOLDER.rglob("*.toml"))
GOALS = {"demo", "portrait", "civitai", "style", "character", "lazy", "icons", "anime", "object"}
TABLES = {"sd15": ("sd15",), "sdxl": ("sdxl",), "pony": ("sdxl", "pony"), "pocket": ("sd15", "pocket")}
SMALL: dict[str, Any] = {
    "resolution": 64,
    "bucket_step": 8,
    "min_bucket": 16,
    "max_bucket": 64,
    "dtype": "fp32",
    "cpu": True,
}


def combined(path: Path, base: str) -> Recipe:
    known = (steps.names(), [*families.names(), *settings.VARIANTS])
    layers = [recipe.read(p, *known) for p in dict.fromkeys((FOLDER / "default.toml", path))]
    return recipe.combine(layers, TABLES[base])


def trainer(path: Path, base: str, **changed: Any) -> TrainSettings:
    found = step.settings_of(steps.get("train"), combined(path, base)).model_dump()
    return TrainSettings.model_validate(
        {k: v for k, v in {**found, **changed}.items() if k in TrainSettings.model_fields}
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Three pictures of one size."""
    folder = tmp_path_factory.mktemp("set") / "1_zqx"
    folder.mkdir()
    found = []
    for i in range(3):
        path = folder / f"{i:04}.png"
        Image.new("RGB", (48, 32), (200, 60 * i, 40)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Example(path.name, path, digest, f"zqx, a dot, no {i}", 1, 48, 32, "zqx"))
    return found


def test_all_recipes_were_found():
    assert {path.stem for path in FILES} == {"default", *GOALS} == set(settings.recipe_names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_first_lines_say_what_for_from_what_on_what_and_how(path: Path):
    head = path.read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(word in head for word in ("Images:", "GPU:", "lora make"))
    assert path.stem in ("default", "demo") or "seed 00" in head


@pytest.mark.parametrize("base", TABLES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_table_holds_and_the_training_is_planned(path: Path, base: str, pictures: list[Example]):
    found = combined(path, base)
    for name in steps.names():
        step.settings_of(steps.get(name), found)
    train = trainer(path, base)
    assert planned.check(train) == []
    counted = planned.plan([replace(picture, width=1280, height=1280) for picture in pictures], train)
    assert counted.steps == math.ceil(3 / (train.batch * train.gradient_accumulation)) * train.epochs
    assert counted.saves
    assert train.resolution == {"sd15": 512, "sdxl": 1024, "pony": 1024, "pocket": 96}[base]
    if base == "pony":
        assert (train.noise_offset, train.adaptive_noise_scale, train.min_snr_gamma) == (0, 0, 0)
        prompts = step.settings_of(steps.get("compare"), found).prompts
        assert path.stem == "demo" or all(prompt.startswith("score_9, ") for prompt in prompts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_trains(path: Path, pictures: list[Example], tmp_path: Path):
    """Two steps on a tiny model, with the recipe's own optimizer, schedule, adapter and loss."""
    from lorafactory.training.loop import train

    settings = trainer(path, "sd15", **SMALL, epochs=2, batch=3, save_at=(), save_every_steps=0, warmup=1)
    outcome = train(families.get("sd15").tiny(), pictures, settings, cache=tmp_path)
    assert len(outcome.losses) == 2
    assert all(map(math.isfinite, outcome.losses))


@pytest.mark.slow
@pytest.mark.parametrize("base", ("sd15", "sdxl", "pony"))
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_trains_on_each_family(path: Path, base: str, pictures: list[Example], tmp_path: Path):
    """Six steps, after which adapters in the save have left zero, and all are finite."""
    from lorafactory.training.loop import Save, train

    saves: list[Save] = []
    settings = trainer(path, base, **SMALL, epochs=6, batch=3, save_at=(), save_every_steps=0, warmup=1, max_steps=0)
    model = families.get("sdxl" if base == "pony" else base).tiny()
    losses = train(model, pictures, settings, cache=tmp_path, on_save=saves.append).losses
    assert len(losses) == 6
    assert all(map(math.isfinite, losses))
    learned = [tensor.abs().max() for key, tensor in saves[-1].tensors.items() if "lora_up" in key]
    assert learned
    assert all(map(math.isfinite, learned))
    assert max(learned) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["style", "character", "lazy"])
def test_an_optimizer_that_finds_its_rate_learns_with_the_recipe_s_own_settings(name: str, tmp_path: Path):
    """On the pocket base, whose rate it knows nothing of: half of the loss is gone, and nothing was ruined before."""
    from lorafactory.training.loop import train

    base = families.load(MODELS / "base")
    rng, shown = random.Random(3), []
    for i, (star, ground) in enumerate(demo.colours()[0]):
        path = tmp_path / f"{i:04}.png"
        CONCEPTS["eyestar"].draw(rng, star, ground).save(path)
        caption = f"zqx, a large {star} star in front of a plain {ground} background"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shown.append(Example(path.name, path, digest, caption, 60, 96, 96, "zqx"))
    settings = trainer(FOLDER / f"{name}.toml", "pocket", batch=2, epochs=1, save_at=(), cpu=True, dtype="fp32")
    losses = train(base, shown, settings, cache=tmp_path / "cache").losses
    first, *_, last = means = [sum(part) / len(part) for part in zip(*[iter(losses)] * 100, strict=True)]
    assert last < 0.6 * first
    assert max(means) < 1.1 * first
