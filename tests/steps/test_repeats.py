"""The number before the folder's name: from which policy, and onto which folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lorafactory import errors
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import repeats
from lorafactory.workspace import LoraDir, Workspace


def put(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        (folder / f"{number:04d}.png").write_bytes(b"a picture")
        (folder / f"{number:04d}.txt").write_bytes(b"a caption")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    space = Workspace(tmp_path, "test")
    return Work(space, space.lora("anna"), Recipe(Header(trigger="4nna"), {}, {}))


def go(work: Work, policy: Any = "400/n") -> dict[str, int]:
    settings = repeats.Settings(policy=policy)
    errors.raise_all(repeats.check(work, settings))
    found: dict[str, int] = repeats.run(work, settings).data["repeats"]
    return found


def folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


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
        ("10", 17, 10),
        ("keep", 17, None),
    ],
)
def test_policies(policy: str, pictures: int, expected: int | None):
    assert repeats.repeats(policy, pictures) == expected


def test_the_seeds_example_is_3072_steps():
    pictures, epochs, batch = 32, 16, 2
    assert pictures * (repeats.repeats("400/n", pictures) or 0) * epochs // batch == 3072


@pytest.mark.parametrize("policy", ["", "0", "-3", "0/n", "400/", "n/400", "many", 1.5])
def test_what_is_no_policy(policy: Any):
    with pytest.raises(ValidationError, match="should be 400/n"):
        repeats.Settings(policy=policy)


def test_a_number_may_be_written_as_one():
    assert repeats.Settings(policy=40).policy == "40"  # type: ignore[arg-type]
    assert repeats.Settings(policy=" 1500 / N").policy == "1500/n"


def test_the_folder_is_renamed_and_again_when_the_set_grows(work: Work):
    put(work.place.images / "1_4nna", 32)
    assert go(work) == {"4nna": 12}
    assert folders(work.place.images) == ["12_4nna"]
    seen = repeats.sees(work, repeats.Settings())
    assert go(work) == {"4nna": 12}
    assert repeats.sees(work, repeats.Settings()) == seen
    put(work.place.images / "12_4nna", 40)
    assert repeats.sees(work, repeats.Settings()) != seen
    assert go(work) == {"4nna": 10}
    assert folders(work.place.images) == ["10_4nna"]
    assert len(folders(work.place.images / "10_4nna")) == 80


def test_keep_leaves_a_persons_number(work: Work):
    put(work.place.images / "7_4nna", 3)
    assert go(work, "keep") == {"4nna": 7}
    assert folders(work.place.images) == ["7_4nna"]


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
