"""A set whose folder is gone begins anew; one whose pictures a person took out stays as it was left."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorafactory import images
from lorafactory.pocket.concepts import CONCEPTS
from tests.conftest import Said
from tests.history import SET

WORDS = "zqx, a star\n"


def draw(folder: Path, seed: int) -> None:
    """Three pictures, the first of them twice."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{seed}-{i}.png")
    images.load(folder / f"{seed}-0.png").save(folder / f"{seed}-same.bmp")


Make = Callable[[], list[str]]


@pytest.fixture
def make(lora: Callable[..., Said], space: Path) -> Make:
    """Go through the chain up to the captions and the repeats; return what was said between workspace and end."""
    place = space / "loras" / "anna"
    draw(place / "source", 1)

    def run() -> list[str]:
        (place / "lora.toml").write_text(SET.replace("BASE", "pocket"))
        said = lora("make", "anna", "--to", "repeats")
        assert (said.code, said.err) == (0, "")
        return said.out.splitlines()[1:-1]

    run()
    folder = place / "training_images" / "2_zqx"
    (folder / "0002.png").unlink()
    (folder / "0003.txt").write_text("zqx, my words\n")
    assert run()[:2] == ["0002.png: removed by hand", "0003.png: caption changed by hand"]
    return run


def there(space: Path) -> dict[str, str]:
    """Pictures of the set with their captions."""
    return {p.name: p.with_suffix(".txt").read_text() for p in sorted((space / "loras").glob("anna/*/2_zqx/*.png"))}


ANEW = [
    "anna: the folder of its set is gone, so the set begins anew",
    "rename: 3 imported, 0 there already, 1 set aside (1 duplicate)",
    "    1-same.bmp: set aside, duplicate: same pixels as 0001.png",
    "dedupe: 3 pictures, nothing found",
    "filter: 3 pictures, nothing found",
    "caption: 3 captioned, 0 by hand, 0 up to date",
    "repeats: 2 x zqx (2); 3 images x 2 repeats x 6 epochs / batch 4 = 12 steps, 6 saves, 1 bucket",
]


def test_a_lora_whose_folder_was_deleted_begins_anew(make: Make, space: Path, lora: Callable[..., Said]) -> None:
    shutil.rmtree(space / "loras" / "anna")
    draw(space / "loras" / "anna" / "source", 1)
    assert make() == ANEW
    assert there(space) == {"0001.png": WORDS, "0002.png": WORDS, "0003.png": WORDS}
    assert [line.rpartition(": ")[2] for line in make()[:4]] == ["up to date"] * 4, "once"
    story = json.loads(lora("why", "anna", "--json").out)
    assert [(d["image"], d["rule"]) for d in story["out"]] == [("1-same.bmp", "same pixels")]
    taken_back = [json.loads(lora("undo", "anna", "--json").out)["step"] for _ in range(3)]
    assert taken_back == ["repeats", "caption", "rename"]
    refused = lora("undo", "anna")
    assert (refused.code, refused.err.startswith("lora: nothing to take back in anna")) == (3, True)


def test_other_pictures_under_a_deleted_name_are_a_set_of_their_own(make: Make, space: Path) -> None:
    shutil.rmtree(space / "loras" / "anna")
    draw(space / "loras" / "anna" / "source", 2)
    assert make() == [line.replace("1-same", "2-same") for line in ANEW]
    assert there(space) == {"0001.png": WORDS, "0002.png": WORDS, "0003.png": WORDS}


def test_a_set_without_its_folder_begins_anew_from_the_originals(make: Make, space: Path) -> None:
    shutil.rmtree(space / "loras" / "anna" / "training_images")
    assert make() == ANEW
    assert there(space) == {"0001.png": WORDS, "0002.png": WORDS, "0003.png": WORDS}
    shutil.rmtree(space / "loras" / "anna" / "training_images" / "2_zqx")  # as much of it as a person sees of one set
    assert make()[0] == ANEW[0]
    assert len(there(space)) == 3


def test_what_is_set_aside_stays_so_when_the_set_begins_anew(make: Make, space: Path) -> None:
    aside = space / "loras" / "anna" / "set_aside" / "not like her"
    aside.mkdir()
    shutil.move(space / "loras" / "anna" / "training_images" / "2_zqx" / "0003.png", aside)
    assert make()[0] == "0003.png: set aside by hand"
    shutil.rmtree(space / "loras" / "anna" / "training_images")
    assert make()[0] == ANEW[0]
    assert len(there(space)) == 2
    assert (aside / "0003.png").is_file()


def test_a_folder_that_was_emptied_is_a_decision_about_each_picture(
    make: Make, space: Path, lora: Callable[..., Said]
) -> None:
    for path in (space / "loras" / "anna" / "training_images" / "2_zqx").iterdir():
        path.unlink()
    chance: Any = random.Random(5)
    images.save_png(CONCEPTS["eyestar"].sample(chance), space / "loras" / "anna" / "source" / "new.png")
    assert make()[:3] == [
        "0001.png: removed by hand",
        "0003.png: removed by hand",
        "rename: 1 imported, 0 there already, 3 taken out since they were imported, 1 set aside (1 duplicate)",
    ]
    assert there(space) == {"0004.png": WORDS}


def test_a_set_elsewhere_that_was_emptied_does_not_begin_anew(
    lora: Callable[..., Said], space: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (300, 300), (90 * i, 40, 60)).save(folder / f"{i}.png")
    assert lora("filter", folder, "--apply", "--no-clip").code == 0
    (folder / "0.png").unlink()
    (folder / "1.png").unlink()
    assert lora("filter", folder, "--apply", "--no-clip").err.splitlines()[-2:] == [
        "0.png: removed by hand",
        "1.png: removed by hand",
    ]
