"""The folder contract: sets are read as people and kohya's tools leave them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lorafactory.dataset import Picture, place_in_set, read_set, set_aside


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(folder / name)
    return folder


def told(root: Path) -> list[tuple[str, int, str, bool, list[str]]]:
    found = read_set(root, root)
    return [
        (s.folder.relative_to(root).as_posix(), s.repeats, s.word, s.reg, [p.name for p in s.pictures])
        for s in found.subsets
    ]


def test_several_folders_keep_their_repeats(tmp_path: Path):
    fill(tmp_path / "10_anna woman", "1.png", "2.png")
    fill(tmp_path / "3_hat", "a.png")
    fill(tmp_path / "samples", "x.png")
    assert told(tmp_path) == [
        ("10_anna woman", 10, "anna woman", False, ["1.png", "2.png"]),
        ("3_hat", 3, "hat", False, ["a.png"]),
    ]


def test_regularisation_folders_are_marked_and_left_out_of_the_pictures(tmp_path: Path):
    fill(tmp_path / "10_anna", "1.png")
    fill(tmp_path / "reg" / "2_woman", "1.png")
    assert told(tmp_path) == [
        ("10_anna", 10, "anna", False, ["1.png"]),
        ("reg/2_woman", 2, "woman", True, ["reg/woman/1.png"]),
    ]
    assert [p.name for p in read_set(tmp_path, tmp_path).pictures] == ["1.png"]
    assert list(read_set(tmp_path, tmp_path).hashes()) == ["1.png"]


def test_loose_regularisation_pictures_count_once_each(tmp_path: Path):
    fill(tmp_path, "1.png")
    fill(tmp_path / "reg", "1.png")
    assert told(tmp_path)[1] == ("reg", 1, "reg", True, ["reg/reg/1.png"])


def test_what_kohyas_interface_lays_out_is_a_set(tmp_path: Path):
    fill(tmp_path / "img" / "10_anna", "1.png")
    fill(tmp_path / "reg" / "1_woman", "1.png")
    fill(tmp_path / "log")
    assert [t[:4] for t in told(tmp_path)] == [
        ("img/10_anna", 10, "anna", False),
        ("reg/1_woman", 1, "woman", True),
    ]


def test_pictures_of_one_name_in_two_folders_are_told_apart(tmp_path: Path):
    for folder, names in {"10_a": ["1.png", "2.png"], "5_b": ["1.png"], "2_c": ["3.png"]}.items():
        fill(tmp_path / folder, *names)
    assert [t[4] for t in told(tmp_path)] == [["a/1.png", "2.png"], ["3.png"], ["b/1.png"]]
    moved = set_aside(tmp_path, Picture(tmp_path / "5_b" / "1.png", "b"), "blurred")
    assert moved == tmp_path / "set_aside" / "blurred" / "1.png"
    assert [t[4] for t in told(tmp_path)] == [["a/1.png", "2.png"], ["3.png"], []]  # the other keeps its name
    fill(tmp_path / "7_a", "2.png")
    assert [t[4] for t in told(tmp_path)] == [["10_a/1.png", "10_a/2.png"], ["3.png"], [], ["7_a/2.png"]]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("10_anna/a.png", "10_anna"),
        ("photos/10_anna/more/a.png", "10_anna"),
        ("x/reg/1_woman/a.png", "reg/1_woman"),
        ("reg/a.png", "reg/1_reg"),
        ("img/10_anna/a.png", "10_anna"),
        ("10_a.png", None),
        ("anna/a.png", None),
        ("2023_summer/a.png", None),
        ("0_off/a.png", None),
    ],
)
def test_where_an_original_belongs_is_read_from_its_place(place: str, found: str | None):
    assert place_in_set(Path(place)) == (Path(found) if found else None)
