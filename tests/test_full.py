"""The long ones, for `make test-all`: the demo as a newcomer meets it, and real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.pocket.demo import colours

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full")]


def shares(space: Path, file: Path | None) -> tuple[float, float]:
    """Share of 64 pictures that show the concept: from the trigger alone, and from eight prompts with new colours."""
    from lorafactory import families
    from lorafactory.training import lora_file, sample
    from lorafactory.workspace import find_workspace, model_set

    base = families.get("sd15").load(model_set(find_workspace(space), "pocket").base)
    if file is not None:
        lora_file.apply(base, file)
    ask = {"steps": 20, "cfg": 3.0, "size": (96, 96), "batch": 16}
    told = [f"d3mo, a large {c} star in front of a plain {b} background" for c, b in colours()[1][:8] for _ in range(8)]
    grade = CONCEPTS["eyestar"].grade

    def share(prompts: list[str], first: int) -> float:
        pictures = sample.sample(base, prompts, list(range(first, first + 64)), **ask)
        return sum(grade(p) >= 0.5 for p in pictures) / 64

    return share(["d3mo"] * 64, 90_000), share(told, 95_000)


def test_the_demo_learns_the_concept(lora, space: Path):
    said = lora("make", "demo")
    assert said.code == 0, said.err
    alone, _ = shares(space, None)
    assert alone <= 0.05
    alone, told = shares(space, space / "loras" / "demo" / "demo.safetensors")
    print(f"trigger alone {alone:.3f}, new colours {told:.3f}")
    assert alone >= 0.7
    assert told >= 0.5


def test_more_helps_and_the_text_encoder_may_stay_as_it_is(lora, space: Path):
    once = ("train.text_encoder_lr=0", "train.epochs=3", "train.cycles=1")
    said = lora("make", "demo", "--to", "train", *(word for pair in once for word in ("--set", pair)))
    assert said.code == 0, said.err
    saves = space / "loras" / "demo" / "result_current"
    before = shares(space, saves / "demo-000003.safetensors")
    assert lora("train", "demo", "--more", 9).code == 0
    after = shares(space, saves / "demo-000012.safetensors")
    print(f"trigger alone {before[0]:.3f} -> {after[0]:.3f}, new colours {before[1]:.3f} -> {after[1]:.3f}")
    assert min(after) >= 0.5
    assert after[0] > before[0] + 0.1
    assert after[1] > before[1] + 0.1


def photographs(folder: Path) -> int:
    """The photographs that ship inside scikit-image, scikit-learn and matplotlib."""
    import matplotlib
    import skimage
    import sklearn

    found = [
        *(Path(skimage.__file__).parent / "data").glob("*.*"),
        *(Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"),
        *(Path(matplotlib.__file__).parent / "mpl-data" / "sample_data").glob("*.jpg"),
    ]
    folder.mkdir()
    kept = 0
    for path in found:
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".gif", ".tif"):
            continue
        try:
            with Image.open(path) as image:
                big = min(image.size) >= 96 and image.mode in ("RGB", "L")
        except OSError:
            continue
        if big:
            (folder / path.name).write_bytes(path.read_bytes())
            kept += 1
    return kept


def test_photographs_become_a_lora(lora, space: Path, tmp_path: Path):
    assert photographs(tmp_path / "in") >= 10
    said = lora(
        "make", "photos", "--from", tmp_path / "in", "--base", "pocket", "--text", "{trigger}, a photo",
        "--set", "train.holdout=3", "--set", "train.epochs=4", "--set", "compare.seeds=[1, 2]",
    )  # fmt: skip
    assert said.code in (0, 4), said.err
    assert "know only drawings" in said.err
    assert (space / "loras" / "photos" / "photos.safetensors").is_file()
    with (space / "loras" / "photos" / "result_current" / "log" / "holdout.json").open() as file:
        told = json.load(file)
    print(told)
    assert told["after"][-1] < 0.97 * told["before"]
