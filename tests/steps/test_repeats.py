"""The number before the folder's name: from which policy, against whose will, and how many steps come of it."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from lorafactory import errors, step
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Result, Work
from lorafactory.steps import repeats, train
from lorafactory.store import Store
from lorafactory.training.plan import plan
from lorafactory.workspace import LoraDir, Workspace

SQUARE = (512, 512)


def png(size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("1", size).save(data, "PNG")
    return data.getvalue()


def put(folder: Path, count: int, sizes: Sequence[tuple[int, int]] = (SQUARE,)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [png(size) for size in sizes]
    for number in range(1, count + 1):
        (folder / f"{number:04d}.png").write_bytes(drawn[number % len(drawn)])
        (folder / f"{number:04d}.txt").write_bytes(b"a caption")


def told(work: Work, origin: str = "lora.toml", **tables: dict[str, Any]) -> Work:
    """The same with these tables in its recipe, as `origin` says them."""
    origins = {f"{name}.{key}": origin for name, table in tables.items() for key in table}
    return replace(work, recipe=Recipe(work.recipe.header, tables, origins))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    space = Workspace(tmp_path, "test")
    return Work(space, space.lora("anna"), Recipe(Header(trigger="4nna"), {}, {}))


def run(work: Work, policy: Any = "400/n") -> Result:
    settings = repeats.Settings(policy=policy)
    errors.raise_all(repeats.check(work, settings))
    return repeats.run(work, settings)


def go(work: Work, policy: Any = "400/n") -> dict[str, int]:
    found: dict[str, int] = run(work, policy).data["repeats"]
    return found


def folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("policy", "pictures", "expected"),
    [
        ("400/n", 32, 12),
        ("400/n", 30, 13),
        ("400/n", 21, 19),
        ("400/n", 500, 1),
        ("400/n", 1000, 1),
        ("1500/n", 15, 100),
        ("100/n", 100, 1),
        ("at-least=10", 20, 20),
        ("at-least=10", 50, 10),
        ("at-least=10", 500, 10),
        ("10", 17, 10),
    ],
)
def test_policies(policy: str, pictures: int, expected: int):
    assert repeats.repeats(policy, pictures) == expected


@pytest.mark.parametrize(
    ("kind", "pictures", "expected"),
    [
        *[("character", n, r) for n, r in ((30, 13), (10, 15), (100, 7))],
        *[("person", n, r) for n, r in ((30, 20), (16, 25), (5, 30))],
        *[("object", n, r) for n, r in ((30, 30), (8, 50), (2, 100))],
        ("style", 100, 7),
    ],
)
def test_by_kind_stays_within_what_seed_002_says(kind: str, pictures: int, expected: int):
    assert repeats.repeats("by-kind", pictures, kind) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(100, 1), (10, 10), (6, 17), (300, 1)])
def test_per_image_is_what_all_epochs_show(epochs: int, expected: int):
    assert repeats.repeats("per-image=100", 25, epochs=epochs) == expected


@pytest.mark.parametrize(
    "policy", ["", "0", "-3", "0/n", "400/", "n/400", "many", 1.5, "steps=", "steps=0", "at-least", "by_kind", "n=3"]
)
def test_what_is_no_policy(policy: Any):
    with pytest.raises(ValidationError, match="should be 400/n"):
        repeats.Settings(policy=policy)


@pytest.mark.parametrize(
    "policy", ["1001", "99999999", "at-least=1001", "9999999/n", "steps=9999999", "per-image=9999999"]
)
def test_what_no_training_needs(policy: str):
    with pytest.raises(ValidationError, match=r"and 1000(000)? is the most"):
        repeats.Settings(policy=policy)


def test_a_number_may_be_written_as_one():
    assert repeats.Settings(policy="1000").policy == "1000"
    assert repeats.Settings(policy=40).policy == "40"  # type: ignore[arg-type]
    assert repeats.Settings(policy=" 1500 / N").policy == "1500/n"
    assert repeats.Settings(policy="Steps = 2000").policy == "steps=2000"


def test_the_recipe_decides_kind_and_epochs(work: Work):
    put(work.place.images / "1_4nna", 30)
    thing = replace(work, recipe=Recipe(Header(trigger="4nna", kind="object"), {}, {}))
    assert go(thing, "by-kind") == {"4nna": 30}
    longer = told(work, "command line", train={"epochs": 20}, repeats={"policy": "per-image=100"})
    assert go(longer, "per-image=100") == {"4nna": 5}


# ---------------------------------------------------------------- steps, as training takes them


def steps_of(work: Work) -> int:
    """Steps that the trainer takes for the folders as they are: its own batches of every epoch, counted."""
    from lorafactory.training.order import batches

    s = step.settings_of(train, work.recipe)
    shown, _ = train.split(work, s)
    whole = plan(shown, s)
    epochs = range(1, whole.epochs + 1)
    return sum(math.ceil(len(batches(whole, shown, s, epoch)) / s.gradient_accumulation) for epoch in epochs)


def test_the_example_of_seed_003(work: Work):
    put(work.place.images / "1_4nna", 32)
    work = told(work, train={"batch": 2, "epochs": 16})
    found = run(work)
    assert folders(work.place.images) == ["12_4nna"]
    assert found.data["steps"] == steps_of(work) == 3072
    said = "repeats: 12 x 4nna (400/n, seed 003); 32 images x 12 repeats x 16 epochs / batch 2 = 3072 steps"
    assert found.summary.startswith(said)


def test_the_example_of_seed_000(work: Work):
    put(work.place.images / "1_4nna", 503)
    work = told(work, train={"batch": 2, "epochs": 5})
    assert run(work, 2).data["steps"] == steps_of(work) == 2515


@pytest.mark.parametrize("seed", range(4))
def test_the_steps_announced_are_those_that_training_takes(work: Work, seed: int):
    rng = random.Random(seed)
    sizes = [SQUARE, (768, 512), (400, 700), (1024, 300), (640, 640), (300, 320)]
    put(work.place.images / "1_4nna", rng.randint(3, 40), rng.sample(sizes, 4))
    put(work.place.images / "1_other", rng.randint(1, 9), rng.sample(sizes, 2))
    for picture in (work.place.images / "1_other").iterdir():
        picture.rename(picture.with_stem(f"o{picture.stem}"))
    counts = {"epochs": rng.randint(1, 4), "batch": rng.randint(1, 5), "gradient_accumulation": rng.randint(1, 3)}
    work = told(work, train={**counts, "holdout": rng.randint(0, 2), "bucket_upscale": seed % 2 == 0})
    for policy in ("400/n", "7", f"steps={rng.randint(1, 900)}"):
        work = told(work, "command line", train=work.recipe.tables["train"], repeats={"policy": policy})
        announced = run(replace(work, apply=False), policy).data["steps"]
        assert run(work, policy).data["steps"] == announced == steps_of(work)


@pytest.mark.parametrize("target", [1, 60, 500, 2000, 2001])
def test_steps_come_as_near_as_whole_repeats_allow(work: Work, target: int):
    put(work.place.images / "1_4nna", 23, [SQUARE, (768, 512)])
    work = told(work, train={"batch": 4, "epochs": 3}, repeats={"policy": "steps"}, origin="command line")
    number = go(work, f"steps={target}")["4nna"]
    far = abs(steps_of(work) - target)
    for other in (max(1, number - 1), number + 1):
        go(work, other)
        assert abs(steps_of(work) - target) >= far


def test_max_steps_takes_whole_epochs_off_and_is_said(work: Work):
    put(work.place.images / "1_4nna", 32)
    work = told(work, train={"batch": 2, "epochs": 16, "max_steps": 3000})
    found = run(work)
    assert (found.data["steps"], found.data["epochs"]) == (steps_of(work), 15) == (2880, 15)
    assert found.summary.endswith("(15 of 16 epochs: max_steps = 3000)")
    assert len(plan(train.split(work, train.Settings())[0], step.settings_of(train, work.recipe)).saves) == 15


def test_what_cannot_be_counted_is_said_and_the_folder_gets_its_number(work: Work):
    put(work.place.images / "1_4nna", 20, [(512, 20)])
    found = run(work)
    assert found.data["steps"] is None and "0001.png" in found.summary
    assert folders(work.place.images) == ["20_4nna"]


# ---------------------------------------------------------------- what a person wrote


class Story:
    """Runs of the step on one LoRA that the record remembers, as `lora repeats` does them."""

    def __init__(self, work: Work, store: Store) -> None:
        self.work, self.store = work, store

    def go(self, policy: str = "400/n", *, line: bool = False) -> Result:
        origin = "command line" if line else "recipe"
        work = told(self.work, origin, **({"repeats": {"policy": policy}} if policy != "400/n" or line else {}))
        return step.perform(repeats, work, step.settings_of(repeats, work.recipe), self.store)


@pytest.fixture
def story(work: Work, tmp_path: Path):
    with Store(tmp_path / "lorafactory.db") as store:
        yield Story(work, store)


def test_the_number_follows_the_set_as_long_as_nobody_writes_another(story: Story):
    home = story.work.place.images
    put(home / "1_4nna", 32)
    assert story.go().data["repeats"] == {"4nna": 12}
    assert story.go().skipped
    put(home / "12_4nna", 40)
    assert story.go().data == {"repeats": {"4nna": 10}, "by_hand": [], "steps": 1200, "epochs": 6}
    assert folders(home) == ["10_4nna"]


def test_a_number_that_a_person_writes_stays_and_is_shown(story: Story):
    home = story.work.place.images
    put(home / "1_4nna", 32)
    story.go()
    (home / "12_4nna").rename(home / "7_4nna")
    found = story.go()
    assert found.data["repeats"] == {"4nna": 7} and found.data["by_hand"] == ["4nna"]
    assert found.summary.startswith("repeats: 7 x 4nna (by hand); 32 images x 7 repeats")
    assert "written by hand, kept" in found.lines[0]
    put(home / "7_4nna", 40)
    assert story.go("1500/n").data["repeats"] == {"4nna": 7}
    assert {d.verdict for d in story.store.decisions(rule="by hand")} == {"kept"}
    (home / "7_4nna").rename(home / "1_4nna")
    assert story.go().data["repeats"] == {"4nna": 1}


def test_a_policy_on_the_command_line_replaces_it_for_good(story: Story):
    home = story.work.place.images
    put(home / "1_4nna", 32)
    story.go()
    (home / "12_4nna").rename(home / "7_4nna")
    assert story.go().data["by_hand"] == ["4nna"]
    assert story.go("400/n", line=True).data["repeats"] == {"4nna": 12}
    assert folders(home) == ["12_4nna"]
    assert story.go("400/n", line=True).skipped
    put(home / "12_4nna", 40)
    assert story.go().data["repeats"] == {"4nna": 10}


def test_a_run_that_was_killed_wrote_no_persons_number(story: Story):
    home = story.work.place.images
    put(home / "1_4nna", 32)
    repeats.run(story.work, repeats.Settings())  # renames, and the record never hears of it
    assert story.go().data["by_hand"] == []
    put(home / "12_4nna", 40)
    assert story.go().data["repeats"] == {"4nna": 10}


def test_other_epochs_are_another_announcement(story: Story):
    put(story.work.place.images / "1_4nna", 32)
    assert story.go("steps=2000").data["repeats"] == {"4nna": 21}
    story.work = told(story.work, train={"epochs": 12})
    found = step.perform(repeats, story.work, repeats.Settings(policy="steps=2000"), story.store)
    assert found.data["repeats"] == {"4nna": 10}


def test_a_set_of_somebody_elses_keeps_its_numbers(work: Work, tmp_path: Path):
    put(tmp_path / "set" / "12_anna", 5)
    put(tmp_path / "set" / "1_anna far", 7)
    put(tmp_path / "set" / "reg" / "1_woman", 3)
    other = replace(work, place=LoraDir("set", tmp_path / "set", owned=False))
    found = run(other)
    assert found.data["repeats"] == {"anna": 12, "anna far": 1} and len(found.data["by_hand"]) == 2
    assert folders(tmp_path / "set") == ["12_anna", "1_anna far", "reg"]
    named = told(other, "command line", repeats={"policy": "400/n"})
    assert go(named) == {"anna": 80, "anna far": 57}
    assert folders(tmp_path / "set") == ["57_anna far", "80_anna", "reg"]
    assert folders(tmp_path / "set" / "reg") == ["1_woman"]


def test_steps_reckon_with_the_folders_that_stay(story: Story):
    home = story.work.place.images
    put(home / "1_face", 20)
    story.go()
    put(home / "30_far", 10)
    for picture in (home / "30_far").iterdir():
        picture.rename(picture.with_stem(f"far{picture.stem}"))
    found = story.go("steps=1500")
    assert found.data["repeats"] == {"face": 10, "far": 30}
    assert found.data["steps"] == 1500 == steps_of(story.work)


def test_keep_leaves_all_numbers(work: Work):
    put(work.place.images / "7_4nna", 3)
    assert go(work, "keep") == {"4nna": 7}
    assert folders(work.place.images) == ["7_4nna"]


# ---------------------------------------------------------------- folders


def test_each_folder_by_itself_and_empty_ones_left_alone(work: Work):
    put(work.place.images / "1_4nna face", 10)
    put(work.place.images / "1_4nna far", 40)
    put(work.place.images / "3_later", 0)
    assert go(work) == {"4nna face": 40, "4nna far": 10}
    assert folders(work.place.images) == ["10_4nna far", "3_later", "40_4nna face"]


def test_no_pictures(work: Work):
    with pytest.raises(errors.InputError, match="put some back"):
        go(work)


def test_a_folder_in_the_way(work: Work):
    put(work.place.images / "1_4nna", 40)
    put(work.place.images / "10_4nna", 0)
    with pytest.raises(errors.InputError, match="in the way"):
        go(work)


def test_another_folder_is_only_reported(work: Work, tmp_path: Path):
    put(tmp_path / "set" / "1_x", 20)
    other = replace(work, place=LoraDir("set", tmp_path / "set", owned=False), apply=False)
    assert go(other) == {"x": 20}
    assert folders(tmp_path / "set") == ["1_x"]
    assert go(replace(other, apply=True)) == {"x": 20}
    assert folders(tmp_path / "set") == ["20_x"]


def test_loose_pictures_get_a_folder_with_their_captions(work: Work, tmp_path: Path):
    put(tmp_path / "photos", 20)
    (tmp_path / "photos" / "notes.md").touch()
    other = replace(work, place=LoraDir("photos", tmp_path / "photos", owned=False))
    assert go(other) == {"4nna": 20}
    assert folders(tmp_path / "photos") == ["20_4nna", "notes.md"]
    assert len(folders(tmp_path / "photos" / "20_4nna")) == 40
    assert go(other) == {"4nna": 20}


def test_one_folder_of_a_set_is_not_renamed_from_within(work: Work, tmp_path: Path):
    put(tmp_path / "set" / "1_x", 20)
    other = replace(work, place=LoraDir("1_x", tmp_path / "set" / "1_x", owned=False))
    with pytest.raises(errors.InputError, match=r"lora repeats .*set --apply"):
        go(other)
    assert go(replace(other, apply=False)) == {"x": 20}
    put(tmp_path / "mine" / "9_x", 20)
    assert go(replace(other, place=LoraDir("9_x", tmp_path / "mine" / "9_x", owned=False))) == {"x": 9}
