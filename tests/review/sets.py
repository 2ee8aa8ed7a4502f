"""A LoRA whose pictures were judged and captioned, as steps leave it in folder and record, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lorafactory import dataset, images
from lorafactory.dataset import Picture
from lorafactory.past import snapshot
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace

COUNT = 14
TOML = """
base = "pocket"
trigger = "4nna"
kind = "person"
class = "woman"
[train]
resolution = 128
bucket_step = 32
min_bucket = 64
max_bucket = 256
"""


def noise(seed: int, size: tuple[int, int] = (144, 128)) -> Image.Image:
    """Smooth, and like no other."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def make_set(root: Path, count: int = COUNT, *, text: str = "", name: str = "anna") -> LoraDir:
    """Write loras/anna; `text` is in whatever a person may bring."""
    space = Workspace(root, "test")
    place = space.lora(name)
    folder = place.images / "2_4nna"
    folder.mkdir(parents=True)
    place.settings.write_text(TOML, encoding="utf-8")
    for i in range(1, count + 1):
        images.save_png(noise(i), folder / f"{i:04}.png")
        words = f"4nna, a woman with a hat and holding a cup, number {i}{text}"
        (folder / f"{i:04}.txt").write_text(f"{words}\n", encoding="utf-8")
    record(space, place, text)
    return place


def record(space: Workspace, place: LoraDir, text: str = "") -> None:
    """What dedupe, filter and caption said: 0002 is like 0001, 0003 is blurred, 0001's cup is not seen."""
    found = dataset.read_set(place.root, place.images)
    pictures: dict[str, Picture] = {p.name: p for p in found.pictures}
    with Store(space.record) as store:
        with store.run(place.recorded, "dedupe", version=3, key="k", settings={}) as run:
            one, two = pictures["0001.png"], pictures["0002.png"]
            told = {"rival": one.name, "rival_sha256": one.sha256, "score": 3.0, "threshold": 4.0}
            run.note(two.name, two.sha256, "flagged", "phash", note=f"nearly the same as 0001.png{text}", **told)
            snapshot(found, run)
        with store.run(place.recorded, "filter", version=2, key="k", settings={}) as run:
            three = pictures["0003.png"]
            run.note(three.name, three.sha256, "flagged", "blur", score=0.2, threshold=0.3, note=f"blurred{text}")
            snapshot(found, run)
        with store.run(place.recorded, "caption", version=2, key="k", settings={}) as run:
            why = f'"and holding a cup": the caption is -0.020 nearer to the picture with it{text}'
            run.note(one.name, one.sha256, "flagged", "unsupported phrase", score=12.0, threshold=50.0, note=why)
            for p in pictures.values():
                run.note(p.name, p.sha256, "captioned", "blip", after=p.caption, note="0" * 64)
            snapshot(found, run)


def folder_of(place: LoraDir) -> Path:
    return next(place.images.glob("*_4nna"))


def standing(place: LoraDir) -> dict[str, bytes]:
    """Every file that an act may touch, by its place."""
    tops = ("training_images", "set_aside", "crops.toml", "txt2img-images/blind.json")
    found = (p for p in place.root.rglob("*") if p.is_file())
    told = {p.relative_to(place.root).as_posix(): p.read_bytes() for p in found}
    return {at: data for at, data in told.items() if at.startswith(tops)}
