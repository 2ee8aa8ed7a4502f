"""What of a set reaches the trainer, what is refused for whom, and what a training leaves: saves, samples, logs."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import _diary
from lorafactory.workspace import LoraDir, Workspace
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


def papers(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    assert found["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()
    return found


def test_a_training_leaves_saves_by_step_samples_and_logs(lora: Callable[..., Said], folder: Path) -> None:
    """Eight steps in two epochs; of the saves at 3, 5, 6 and the end, the one at 5 makes room."""
    (folder / "prompts.txt").write_text(
        "{trigger}, a <b>star --s 2 --d 7\na star --s 1 --w 64 --l 1\n", encoding="utf-8"
    )
    saves = ("--save-at", 3, "--save-at", 5, "--save-at", 6, "--keep-last", 2, "--epochs", 2)
    samples = ("--sample-every-steps", 4, "--sample-prompts", "prompts.txt")
    said = lora("train", folder, *OPTIONS, *saves, *samples, "--apply", "--json")
    assert said.code == 0, said.err
    result, wanted = folder / "result_current", ["set-000002", "set-step00000003", "set-step00000006"]
    assert sorted(p.stem for p in result.glob("*.safetensors")) == wanted
    assert json.loads(said.out)["saves"] == [f"{wanted[i]}.safetensors" for i in (1, 2, 0)]
    assert not (result / "state").exists()
    told = {name: papers(result / f"{name}.safetensors") for name in wanted}
    assert [(told[n]["ss_epoch"], told[n]["ss_steps"]) for n in wanted] == [("2", "8"), ("1", "3"), ("2", "6")]
    assert [told[n]["modelspec.title"] for n in wanted] == ["set epoch 2", "set step 3", "set step 6"]
    assert {t["ss_output_name"] for t in told.values()} == {"set"}
    assert str(folder) not in json.dumps(told)

    pictures = sorted(p.name for p in (result / "sample").glob("*.png"))
    assert pictures == [f"set-{row:02}-step{step:08}.png" for row in (1, 2) for step in (0, 4, 8)]
    with Image.open(result / "sample" / pictures[-1]) as picture:
        assert picture.size == (64, 96)  # the training's resolution where the prompt does not say
    page = (result / "sample" / "index.html").read_text(encoding="utf-8")
    assert "zqx, a &lt;b&gt;star" in page and "finished after step 8" in page and 'http-equiv="refresh"' not in page
    with (result / "log" / "loss.csv").open(encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(step) for step in range(1, 9)]


def test_tensorboard_is_told_the_losses(lora: Callable[..., Said], folder: Path) -> None:
    pytest.importorskip("tensorboard")
    assert lora("train", folder, *OPTIONS, "--tensorboard", "--apply").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "result_current" / "log" / "tensorboard"))
    board.Reload()
    with (folder / "result_current" / "log" / "loss.csv").open(encoding="utf-8") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert [(e.step, pytest.approx(e.value)) for e in board.Scalars("loss")] == rows
    assert len(board.Scalars("learning rate")) == len(rows) == 4


def test_what_is_wrong_with_prompts_is_said_before_training(lora: Callable[..., Said], folder: Path) -> None:
    (folder / "p.txt").write_text("a star --cn /etc/passwd\na --w 9\n", encoding="utf-8")
    said = lora("train", folder, *OPTIONS, "--sample-every-epochs", 1, "--sample-prompts", folder / "p.txt")
    assert said.code == 3 and "line 1: --cn names a file" in said.err and "line 2: --w 9: not a number" in said.err
    said = lora("train", folder, *OPTIONS, "--sample-prompts", folder / "p.txt")
    assert said.code == 0 and "no samples are drawn" in said.err
    (folder / "p.txt").write_text("a star --ss euler_a\n", encoding="utf-8")
    said = lora("train", folder, *OPTIONS, "--sample-every-epochs", 1, "--sample-prompts", folder / "p.txt")
    assert said.code == 0 and "samples are drawn with ddim" in said.err


def test_the_plan_says_how_many_saves_stay(lora: Callable[..., Said], folder: Path) -> None:
    assert "16 steps, 4 saves, 1 bucket" in lora("train", folder, *OPTIONS, "--epochs", 4).out
    assert "16 steps, 4 saves (2 stay)" in lora("train", folder, *OPTIONS, "--epochs", 4, "--keep-last", 1).out
    said = lora("train", folder, *OPTIONS, "--save-at", 2, "--save-at", 1500)
    assert said.code == 0 and "the training ends at step 4, before 1500" in said.err
    said = lora("train", folder, *OPTIONS, "--optimizer", "prodigy", "--lr", 1)
    assert said.code == 0 and "prodigy looks for its rate for 100 steps and more, and there are 4" in said.err
    said = lora("train", folder, *OPTIONS, "--save-at", 0)
    assert said.code == 2 and "steps are counted from 1" in said.err


@pytest.fixture
def work(tmp_path: Path) -> Work:
    place = LoraDir("anna", tmp_path / "loras" / "anna", owned=True)
    place.result.mkdir(parents=True)
    return Work(Workspace(tmp_path, "test"), place, Recipe(Header(), {}, {}))


def save(work: Work, number: int) -> Path:
    path = work.place.result / f"anna-{number:06}.safetensors"
    path.write_bytes(bytes(8) + b"save %d" % number)
    return path


def test_only_own_saves_are_pruned_and_never_the_first_the_last_or_the_picked(work: Work) -> None:
    save(work, 90)  # of an earlier training, which this one goes on with
    (work.place.result / "mine.safetensors").write_bytes(b"a person's")
    gone = []
    for number in range(1, 8):
        gone += [p.name for p in _diary.prune(work, save(work, number), 2)]
        if number == 2:
            work.place.chosen.write_bytes(struct.pack("<Q", 2) + b"{}save 2")
        if number == 3:
            save(work, 3).write_bytes(b"changed by hand")
    assert gone == [f"anna-{number:06}.safetensors" for number in (4, 5)]
    left = {int(p.stem[5:]) for p in work.place.result.glob("anna-*.safetensors")}
    assert left == {1, 2, 3, 6, 7, 90} and (work.place.result / "mine.safetensors").exists()


def test_nothing_is_pruned_unless_asked_for(work: Work) -> None:
    assert [_diary.prune(work, save(work, number), 0) for number in range(1, 5)] == [[], [], [], []]
    assert not (work.place.result / "state").exists()
