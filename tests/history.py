"""One history for all who ask about it: duplicates and rejects, a caption by hand, a mask, a crop, a LoRA, pictures
drawn with it, a second LoRA from these, a third that goes on from the second, and more of the third.

Secrets lie about wherever one might be picked up: in the environment, in folder names, in what a person writes down.
"""

from __future__ import annotations

import json
import platform
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from lorafactory import cli, images, recording, step
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import pick
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace
from tests.picked_sets import write_scores

FOLDER = "canary-folder"
SECRETS = {
    "HOSTNAME": "canary-host",
    "USER": "canary-user",
    "HF_TOKEN": "hf_canary" + "q7" * 17,
    "NVIDIA_TF32_OVERRIDE": "canary-flag canary-user",
}
BASE = "108fecb30af88f4d25165c8738da863a1f76ac4c6e94771dba95a6e8ecc22439"
"""The pocket base."""
CANARIES = (FOLDER, *SECRETS.values(), "canary-config")
SET = """
base = "BASE"
trigger = "zqx"
kind = "object"
# canary-config
[rename]
min_side = 64
[dedupe]
no_clip = true
act = "facts"
[filter]
no_clip = true
[caption]
no_clip = true
text = "{trigger}, a star"
[repeats]
policy = 2
"""
TOML = f"""{SET}
[train]
epochs = 3
batch = 2
save_dtype = "fp32"
save_every_epochs = 1
"""


def run(space: Path, *args: object) -> None:
    assert cli.run([*map(str, args), "--workspace", str(space)]) == 0


def draw(folder: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{i}.png")


def begin(space: Path, name: str, base: Path, train: str = "") -> Path:
    place = space / "loras" / name
    place.mkdir(parents=True)
    (place / "lora.toml").write_text(TOML.replace("BASE", base.as_posix()) + train, encoding="utf-8")
    return place


@contextmanager
def secrets() -> Iterator[None]:
    """What lies about in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield


def make_all(top: Path) -> None:
    """Make the history, with a base of its own that may be moved about."""
    from lorafactory.pocket import MODELS

    base = top / FOLDER / "models" / "pocket-base"
    shutil.copytree(MODELS / "base", base)
    with secrets():
        make(top / FOLDER / "workspace", base)


def make(space: Path, base: Path) -> None:
    anna = begin(space, "anna", base, "ema = true\nema_decay = 0.5\n")
    draw(anna / "source", 1, 3)
    images.load(anna / "source" / "0.png").save(anna / "source" / "same.bmp")
    Image.new("RGB", (32, 32)).save(anna / "source" / "small.png")
    run(space, "make", "anna", "--to", "caption")
    (next((anna / "training_images").iterdir()) / "0002.txt").write_text("zqx, a red star\n", encoding="utf-8")
    (anna / "masks").mkdir(exist_ok=True)
    Image.new("L", (96, 96), 128).save(anna / "masks" / "0003.png")
    (anna / "crops.toml").write_text('"0003.png" = [8, 4, 72, 68]\n', encoding="utf-8")
    run(space, "make", "anna", "--to", "train")
    choose(space, anna)

    begin(space, "dora", base)
    drawing = ("--prompts", "zqx, a star", "--count", "2", "--steps", "2", "--lora", anna / "anna.safetensors")
    run(space, "generate", "dora", *drawing)
    run(space, "make", "dora", "--to", "train")

    cleo = begin(space, "cleo", base)
    draw(cleo / "source", 2, 2)
    run(space, "make", "cleo", "--to", "repeats")
    run(space, "train", "cleo", "--from-lora", save(space, "dora", 3))
    run(space, "train", "cleo", "--more", "1")


def choose(space: Path, anna: Path) -> None:
    """A person chooses the second save, after a comparison that is made up."""
    place = LoraDir("anna", anna, owned=True)
    work = Work(Workspace(space, "test"), place, Recipe(Header(kind="object", trigger="zqx"), {}, {}))
    write_scores(work, [0.5, 0.7, 0.69])
    with Store(space / "lorafactory.db") as store:
        step.perform(pick, work, pick.Settings(saves=("2",)), store)
    (place.comparison / "scores.json").unlink()  # not whole enough for a report


def save(space: Path, lora: str, epoch: int) -> Path:
    return space / "loras" / lora / "result_current" / f"{lora}-{epoch:06}.safetensors"


def folder(space: Path, lora: str) -> Path:
    """The folder of its pictures."""
    return next((space / "loras" / lora / "training_images").iterdir())


def hashes(space: Path, lora: str) -> dict[str, str]:
    """The pictures of its set, name to sha256."""
    return {p.name: images.sha256(p) for p in images.find(folder(space, lora))}


# ---------------------------------------------------------------- what is asked of it


def told(space: Path, *args: object) -> Any:
    """What `why` answers, as data."""
    line = ["why", *map(str, args), "--workspace", str(space), "--json"]
    return json.loads(CliRunner().invoke(cli.lora, line, catch_exceptions=False).stdout)


def said(space: Path, *args: object) -> list[str]:
    """What `why` says, without what differs from one making to the next: files by their names, no times."""
    line = ["why", *map(str, args), "--workspace", str(space)]
    text = CliRunner().invoke(cli.lora, line, catch_exceptions=False).stdout.replace(f"{space}/", "")
    for path in sorted(p for p in space.glob("loras/**/*") if p.is_file()):
        text = re.sub(rf"\b{(sha := images.sha256(path))}\b|\b{sha[:12]}\b", path.relative_to(space).as_posix(), text)
    here = json.loads(recording.environment())
    known = {", ".join(f"{name} {version}" for name, version in sorted(here["packages"].items())): "PACKAGES"}
    known |= {platform.machine(): "MACHINE", here["platform"]: "SYSTEM", f"python {here['python']}": "PYTHON"}
    known |= {BASE: "BASE-SHA", BASE[:12]: "BASE-SHA", str(space.parent): "ABOVE"}
    for told, name in sorted(known.items(), key=lambda item: -len(item[0])):
        text = text.replace(told, name)
    for pattern, name in (
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d\+00:00)?", "WHEN"),
        (r" +\d+\.\d s\b", " TIME"),
        (r"\d+\.\d\d hours", "HOURS"),
        (r"(tensor hash|made of)( +)[0-9a-f]{64}", r"\1\2HASH"),
        (r"generated-[0-9a-f]{16}", "generated-ID"),  # of the LoRA's bytes too, and its header has the time
        (r"seed \d:", "seed N:"),
    ):
        text = re.sub(pattern, name, text)
    return [line.rstrip() for line in text.splitlines()]
