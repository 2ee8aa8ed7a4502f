"""What of a set reaches the trainer: masks, regularisation pictures, and what is refused for whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.conftest import Said

OPTIONS = ("--base", "pocket", "--epochs", "1", "--batch", "2", "--save-dtype", "fp32")


def draw(path: Path, colour: int, size: tuple[int, int] = (96, 96)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (colour, 90, 160))
    ImageDraw.Draw(image).ellipse((8, 8, 40, 60), fill=(240, colour, 20))
    image.save(path)
    path.with_suffix(".txt").write_text("zqx, a red star\n", encoding="utf-8")


@pytest.fixture
def folder(space: Path, tmp_path: Path) -> Path:
    """Two pictures shown twice, one of regularisation, one mask."""
    root = tmp_path / "set"
    draw(root / "2_zqx" / "0001.png", 30)
    draw(root / "2_zqx" / "0002.png", 200)
    draw(root / "reg" / "1_star" / "0001.png", 120)
    (root / "masks").mkdir()
    Image.new("L", (96, 96), 128).save(root / "masks" / "0001.png")
    return root


def test_persons_and_characters_are_not_mirrored_unless_forced(lora: Callable[..., Said], folder: Path) -> None:
    for kind in ("person", "character"):
        said = lora("train", folder, *OPTIONS, "--kind", kind, "--flip")
        assert said.code == 2 and f"train.flip would mirror a {kind}" in said.err and "--force-flip" in said.err
        assert lora("train", folder, *OPTIONS, "--kind", kind, "--flip", "--force-flip").code == 0
    assert lora("train", folder, *OPTIONS, "--kind", "style", "--flip").code == 0


def test_regularisation_pictures_are_in_the_plan_and_never_held_out(lora: Callable[..., Said], folder: Path) -> None:
    said = lora("train", folder, *OPTIONS)
    assert "2 images x 2 repeats and 4 of regularisation x 1 epochs / batch 2 = 4 steps" in said.out
    said = lora("train", folder, *OPTIONS, "--holdout", "1")
    assert "1 images x 2 repeats and 2 of regularisation x 1 epochs" in said.out
    said = lora("train", folder, *OPTIONS, "--epochs", "9", "--max-steps", "9")
    assert "x 2 epochs / batch 2 = 8 steps" in said.out


def test_a_mask_changes_the_training_and_an_edit_of_it_repeats_it(lora: Callable[..., Said], folder: Path) -> None:
    def losses() -> list[str]:
        said = lora("train", folder, *OPTIONS, "--apply", "--json")
        assert said.code == 0, said.err
        return [str(x) for x in json.loads(said.out)["epoch_losses"]]

    def files() -> list[Path]:
        return sorted((folder / "result_current").glob("*.safetensors"))

    grey = losses()
    assert [p.name for p in files()] == ["set-000001.safetensors"]
    (folder / "masks" / "0001.png").unlink()
    assert losses() != grey
    Image.new("L", (96, 20)).save(folder / "masks" / "0001.png")
    said = lora("train", folder, *OPTIONS, "--apply")
    assert said.code == 3 and "0001.png: 96x20 is another shape than its picture's 96x96" in said.err
