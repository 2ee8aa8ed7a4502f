"""`lora export`: every form holds the set, and brought in again gives the same pictures and captions."""

from __future__ import annotations

import hashlib
import json
import tomllib
import zipfile
from pathlib import Path

import pytest
from drawn import draw_all, files_of

from lorafactory import exports
from lorafactory.dataset import read_set
from tests.recipe_formats.sdscripts import wrong_dataset

FORMS = exports.names()


def held(root: Path) -> list[tuple[str, str | None]]:
    """sha256 and caption of every picture of a LoRA's set, in order of their names."""
    found = read_set(root, root / "training_images")
    return [(p.sha256, p.caption) for p in sorted(found.pictures, key=lambda p: p.name)]


@pytest.fixture
def anna(lora, space: Path) -> Path:
    """A LoRA of four pictures in two folders and one for regularisation; one has no caption."""
    root = space / "loras" / "anna"
    for folder, first in {"10_anna": 0, "3_hat": 3, "reg/2_woman": 4}.items():
        draw_all(root / "source" / folder, 3 if first == 0 else 1, first)
    for i, text in enumerate(["4nna, größer", '4nna, a "hat"\nand more']):
        (root / "source" / "10_anna" / f"IMG {i}.txt").write_text(text, encoding="utf-8")
    (root / "source" / "3_hat" / "IMG 3.txt").write_text("a hat", encoding="utf-8")
    (root / "lora.toml").write_text('base = "pocket"\ntrigger = "4nna"\n')
    assert lora("rename", "anna").code == 0
    return root


def test_a_set_that_came_in_folders_keeps_them(anna: Path):
    found = read_set(anna, anna / "training_images")
    assert [(s.folder.name, s.repeats, s.reg, len(s.pictures)) for s in found.subsets] == [
        ("10_anna", 10, False, 3),
        ("3_hat", 3, False, 1),
        ("2_woman", 2, True, 1),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_in_again_is_the_same(lora, anna: Path, space: Path, form: str):
    before = files_of(anna)
    said = lora("export", "anna", "--format", form)
    assert said.code == 0, said.err
    assert files_of(anna) == before
    made = Path.cwd() / ("anna-" + form + exports.get(form).SUFFIX)
    assert f"pictures, 3 captions in {made}" in said.out
    assert not [p for p in Path.cwd().iterdir() if p.name.startswith(".export")]
    line = ["make", "again", "--from", made, "--to", "rename", "--text", "x", "--base", "pocket"]
    said = lora(*line, "--set", "dedupe.no_clip=true", "--set", "filter.no_clip=true")
    assert said.code == 0, said.err
    again = space / "loras" / "again"
    assert sorted(held(again), key=str) == sorted(held(anna), key=str)
    assert len(held(again)) == 4
    if form != "civitai":
        found = read_set(again, again / "training_images")
        repeats = [(s.folder.name, s.repeats, len(s.pictures)) for s in found.subsets]
        kept = [("10_anna", 10, 3), ("3_hat", 3, 1), ("2_woman", 2, 1)]
        assert repeats == (kept[:2] if form in ("huggingface", "onetrainer") else kept)
    if made.is_dir():
        assert lora("rename", made, "--to", "set").code == 0
        renamed = read_set(Path("set"), Path("set"))
        assert sorted(((p.sha256, p.caption) for p in renamed.pictures), key=str) == sorted(held(anna), key=str)


def test_one_set_gives_one_zip(lora, anna: Path):
    for name in ("a", "b.zip"):
        said = lora("export", "anna", "--format", "civitai", "--to", name)
        assert said.code == 0
        assert "not in it: repeats, which are set on Civitai's page: 10 for anna, 3 for hat" in said.out
        assert "2_woman: regularisation pictures" in said.out
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    with zipfile.ZipFile("a.zip") as archive:
        assert archive.testzip() is None
        names = [f"000{i}.{kind}" for i in (2, 3, 4, 1) for kind in ("png", "txt") if (i, kind) != (4, "txt")]
        assert archive.namelist() == names


def test_what_the_other_tools_read(lora, anna: Path):
    for form in ("onetrainer", "sdscripts", "huggingface"):
        said = lora("export", "anna", "--format", form, "--to", form)
        assert said.code == 0
        assert ("not in it: 2_woman: regularisation pictures" in said.out) == (form != "sdscripts")
    concepts = json.loads(Path("onetrainer/concepts.json").read_text(encoding="utf-8"))
    assert [(c["name"], c["balancing"], Path(c["path"])) for c in concepts] == [
        ("anna", 10.0, Path("onetrainer/10_anna").absolute()),
        ("hat", 3.0, Path("onetrainer/3_hat").absolute()),
    ]
    assert all(Path(c["path"]).is_dir() for c in concepts)
    assert not Path("onetrainer/reg").exists()
    dataset = tomllib.loads(Path("sdscripts/dataset.toml").read_text(encoding="utf-8"))
    assert wrong_dataset(dataset) == []
    subsets = dataset["datasets"][0]["subsets"]
    assert [(s["num_repeats"], s["class_tokens"], s.get("is_reg", False)) for s in subsets] == [
        (10, "anna", False),
        (3, "hat", False),
        (2, "woman", True),
    ]
    assert all(Path(s["image_dir"]).is_dir() for s in subsets)
    assert dataset["general"]["caption_extension"] == ".txt"
    rows = [json.loads(line) for line in Path("huggingface/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == ["4nna, größer", '4nna, a "hat"\nand more', None, "a hat"]
    assert all((Path("huggingface") / row["file_name"]).is_file() for row in rows)


def test_nothing_is_written_over_and_nothing_half(lora, anna: Path, monkeypatch: pytest.MonkeyPatch):
    (Path("anna-kohya") / "mine").mkdir(parents=True)
    said = lora("export", "anna")
    assert (said.code, "is there already" in said.err) == (3, True)
    assert lora("export", "anna", "--format", "kohia").code == 2

    def breaks(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("shutil.copyfile", breaks)
    assert lora("export", "anna", "--to", "other").code == 5
    assert [p.name for p in Path.cwd().iterdir() if "other" in p.name or p.name.startswith(".export")] == []


def test_an_export_goes_neither_into_the_set_nor_under_a_wrong_name(lora, anna: Path, space: Path):
    before = files_of(anna)
    for inside in (anna / "exp", anna / "training_images" / "5_x", anna / "training_images" / ".." / "y"):
        said = lora("export", "anna", "--to", inside)
        assert (said.code, f"lies inside {anna}" in said.err) == (3, True), said.err
        assert f"--to {space / 'anna-kohya'}" in said.err
    folder = draw_all(Path("set") / "2_x", 2)
    assert lora("export", "set", "--to", "set/exp").code == 3
    assert lora("export", "set", "--to", "set_kohya").code == 0
    assert files_of(anna) == before and len(list(folder.parent.rglob("*.png"))) == 2
    for form, name, wanted in (("civitai", "a.tar", "a.zip"), ("kohya", "a.zip", "a")):
        said = lora("export", "anna", "--format", form, "--to", name)
        assert said.code == 3 and f"--to {Path(wanted).absolute()}\n" in said.err + "\n"
    assert not list(Path.cwd().glob("a*"))


def test_a_zip_dropped_into_the_inbox_is_claimed(lora, anna: Path, space: Path):
    (space / "inbox").mkdir()
    assert lora("export", "anna", "--format", "civitai", "--to", space / "inbox" / "bea.zip").code == 0
    digest = hashlib.sha256((space / "inbox" / "bea.zip").read_bytes()).hexdigest()
    line = ["make", "bea", "--to", "rename", "--text", "x", "--base", "pocket"]
    assert lora(*line, "--set", "dedupe.no_clip=true", "--set", "filter.no_clip=true").code == 0
    assert sorted(held(space / "loras" / "bea"), key=str) == sorted(held(anna), key=str)
    assert list((space / "inbox").iterdir()) == []
    claimed = space / "loras" / "bea" / "source" / "bea.zip"
    assert hashlib.sha256(claimed.read_bytes()).hexdigest() == digest


def test_a_list_of_captions_that_cannot_be_read_is_named(lora, tmp_path: Path):
    folder = draw_all(tmp_path / "hf", 1)
    (folder / "metadata.jsonl").write_text('{"file_name": "IMG 0.png", "text": "one"}\n{"file_name"\n')
    said = lora("rename", folder, "--to", tmp_path / "set")
    assert said.code == 3
    assert "metadata.jsonl, line 2: not JSON" in said.err
    assert not (tmp_path / "set").exists()
