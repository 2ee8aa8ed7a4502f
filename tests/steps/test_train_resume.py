"""A training that broke off goes on; other inputs begin anew; `--more` and `--from-lora` go on from a LoRA."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lorafactory import images, step
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import _begin
from lorafactory.training import card, loop, lora_file, memory, session
from lorafactory.training.settings import TrainSettings
from lorafactory.workspace import Workspace
from tests.conftest import Said

Lora = Callable[..., Said]
BASE = ("--base", "pocket", "--trigger", "zqx", "--batch", "2", "--save-dtype", "fp32", "--apply")
EIGHT = (*BASE, "--epochs", "2", "--gradient-accumulation", "2", "--checkpoint-steps", "2")


class Killed(BaseException):
    """Ends a command anywhere, as a signal that cannot be caught would."""


def draw(root: Path, count: int, repeats: int) -> Path:
    chance = random.Random(3)
    folder = root / f"{repeats}_zqx"
    folder.mkdir(parents=True)
    for i in range(count):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{i:04}.png")
        (folder / f"{i:04}.txt").write_text("zqx, a star\n", encoding="utf-8")
    return root


def saves(root: Path) -> dict[str, str]:
    """Name to tensor hash."""
    return {p.stem: lora_file.tensor_hash(p) for p in sorted((root / "result_current").glob("*.safetensors"))}


def kill(lora: Lora, at: int, *args: object) -> None:
    """Run a command that ends while it computes this step."""
    real = session.forward.losses

    def losses(*told: Any, **more: Any) -> Tensor:
        if more["step"] == at - 1:
            raise Killed
        return real(*told, **more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(session.forward, "losses", losses)
        lora(*args)


def steps_in(root: Path) -> list[int]:
    with (root / "result_current" / "log" / "loss.csv").open(encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.fixture
def sets(space: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same two pictures in two folders: 2 pictures x 8 repeats / batch 2 x 2 = 4 steps an epoch."""
    return draw(tmp_path / "one" / "set", 2, 8), draw(tmp_path / "two" / "set", 2, 8)


def test_a_killed_training_goes_on_and_ends_alike(lora: Lora, sets: tuple[Path, Path]) -> None:
    straight, broken = sets
    assert lora("train", straight, *EIGHT).code == 0
    kill(lora, 4, "train", broken, *EIGHT)
    state = broken / "result_current" / "state"
    assert [p.name for p in sorted(state.glob("step-*"))] == ["step-00000000.safetensors", "step-00000002.safetensors"]
    plan = json.loads((state / "plan.json").read_text(encoding="utf-8"))
    assert plan["threads"] >= 1 and plan["precision"]["device"] == "cpu" and plan["means"]["micro"] == 2
    kill(lora, 8, "train", broken, *EIGHT)
    said = lora("train", broken, *EIGHT, "--json")
    assert said.code == 0 and "goes on after step 6, where it broke off" in said.err
    assert saves(broken) == saves(straight) and list(saves(broken)) == ["set-000001", "set-000002"]
    assert json.loads(said.out)["saves"] == ["set-000001.safetensors", "set-000002.safetensors"]
    assert steps_in(broken) == steps_in(straight) == list(range(1, 9))
    assert not state.exists() and (broken / "result_current" / "log" / "plan.json").is_file()
    assert not (broken / "results").exists()


def test_other_inputs_begin_anew_and_lose_nothing(lora: Lora, sets: tuple[Path, Path]) -> None:
    straight, broken = sets
    kill(lora, 7, "train", broken, *EIGHT)
    begun = saves(broken)
    for root in sets:
        (root / "8_zqx" / "0001.txt").write_text("zqx, a blue star\n", encoding="utf-8")
        said = lora("train", root, *EIGHT)
        assert said.code == 0 and "broke off" not in said.err
    assert saves(broken) == saves(straight) and begun.items() & saves(broken).items() == set()
    (earlier,) = (broken / "results").iterdir()
    assert {p.stem: lora_file.tensor_hash(p) for p in earlier.glob("*.safetensors")} == begun
    assert (earlier / "state" / "plan.json").is_file()


def test_more_goes_on_from_the_last_save_and_improves_it(lora: Lora, space: Path, tmp_path: Path) -> None:
    root = space / "loras" / "anna"
    draw(root / "training_images", 12, 2)
    options = ("anna", *BASE, "--epochs", "1", "--holdout", "4", "--lr", "1e-3")
    assert lora("train", *options, "--more", "2").code == 3  # nothing to go on from
    first = json.loads(lora("train", *options, "--json").out)
    begun = saves(root)
    assert list(begun) == ["anna-000001"]
    kill(lora, 14, "train", *options, "--more", "2")
    second = json.loads(lora("train", *options, "--json").out)  # the one that broke off, without a word
    now = saves(root)
    assert list(now) == ["anna-000001", "anna-000002", "anna-000003"] and begun.items() <= now.items()
    assert steps_in(root) == list(range(1, 3 * 8 + 1))
    assert second["holdout_before"] == pytest.approx(first["holdout_after"][-1], rel=1e-5)
    assert second["holdout_after"][-1] < 0.97 * first["holdout_after"][-1] < first["holdout_before"]
    assert "up to date" in lora("train", *options).out
    assert not (root / "results").exists()


def test_more_stands_whatever_else_was_asked_for_it(lora: Lora, space: Path) -> None:
    """The same line without `--more` neither begins anew nor takes back what more brought, broken off or not."""
    root = space / "loras" / "anna"
    draw(root / "training_images", 2, 8)
    options = ("anna", *BASE, "--epochs", "1", "--gradient-accumulation", "4")  # 2 steps
    assert lora("train", *options).code == 0
    kill(lora, 4, "train", *options, "--more", "1", "--lr", "5e-4")
    said = lora("train", *options)
    assert said.code == 0 and "goes on after step 2" in said.err
    told = lora_file.read(root / "result_current" / "anna-000002.safetensors")[1]
    assert (told["ss_learning_rate"], told["ss_steps"]) == ("0.0005", "4")
    assert lora("train", *options, "--more", "1", "--lr", "2e-4").code == 0
    assert list(saves(root)) == ["anna-000001", "anna-000002", "anna-000003"]
    assert "up to date" in lora("train", *options).out
    assert not (root / "results").exists()
    assert "up to date" not in lora("train", *options, "--seed", "3").out


def test_one_that_died_after_its_last_file_is_only_recorded(
    lora: Lora, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = space / "loras" / "anna"
    draw(root / "training_images", 2, 8)
    options = ("train", "anna", *BASE, "--epochs", "1", "--gradient-accumulation", "4", "--json")

    def die(*args: object, **more: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(step, "snapshot", die)
        lora(*options)
    begun = saves(root)
    assert list(begun) == ["anna-000001"] and not (root / "result_current" / "state").exists()
    monkeypatch.setattr(loop, "train", die)
    said = lora(*options)
    assert said.code == 0 and saves(root) == begun and not (root / "results").exists()
    told = json.loads(said.out)
    assert told["saves"] == ["anna-000001.safetensors"] and len(told["epoch_losses"]) == 1
    assert "up to date" in lora(*options[:-1]).out
    with pytest.raises(Killed):  # asked to, it begins anew
        lora(*options, "--force")


def test_a_small_base_is_trained_by_one_thread_unless_a_person_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Workspace(tmp_path, "test")
    work = Work(space, space.lora("anna"), Recipe(Header(base="pocket"), {}, {}))

    def threads() -> int:
        return int(_begin.anew(work, TrainSettings(cpu=True), "", 7)["threads"])

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads() == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(memory, "REAL", 1000)
    assert threads() == 7


def test_a_lora_file_to_begin_with_brings_its_ranks(lora: Lora, sets: tuple[Path, Path]) -> None:
    first, second = sets
    assert lora("train", first, *BASE, "--epochs", "1", "--rank", "3", "--alpha", "2", "--network", "lora").code == 0
    file = first / "result_current" / "set-000001.safetensors"
    said = lora("train", second, *BASE, "--epochs", "1", "--from-lora", file, "--lr", "1e-9")
    assert said.code == 0, said.err
    tensors, papers = lora_file.read(second / "result_current" / "set-000001.safetensors")
    begun = lora_file.read(file)[0]
    assert papers["ss_network_dim"] == "3" and float(papers["ss_network_alpha"]) == 2
    assert tensors.keys() == begun.keys()
    assert max(float((tensors[name] - begun[name]).abs().max()) for name in begun) < 1e-5
    missing = lora("train", second, *BASE, "--from-lora", file.with_name("none.safetensors"))
    assert missing.code == 3 and "none.safetensors: no such file" in missing.err


def test_more_is_for_the_command_line(lora: Lora, sets: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[train]\nmore = 3\n", encoding="utf-8")
    said = lora("train", sets[0], *BASE, "--recipe", recipe)
    assert said.code == 2 and "more each time" in said.err and "--more 3" in said.err


def test_a_real_base_on_a_cpu_says_the_hours_and_touches_nothing(
    lora: Lora, sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sets[0]
    assert lora("train", root, *EIGHT).code == 0
    before = saves(root)
    monkeypatch.setattr(memory, "REAL", 1000)
    monkeypatch.setattr(card, "nvidia_smi", lambda query: [])
    said = lora("train", root, *EIGHT, "--seed", "5")
    assert said.code == 3 and "8 steps about 0.0 hours" in said.err and "--cpu" in said.err
    monkeypatch.setattr(card, "nvidia_smi", lambda query: [["NVIDIA GeForce RTX 3060", "550.90"]])
    said = lora("train", root, *EIGHT, "--seed", "5")
    assert said.code == 3 and "its driver is 550.90" in said.err
    assert saves(root) == before and not (root / "results").exists()
    assert lora("train", root, *EIGHT, "--seed", "5", "--cpu").code == 0
