"""`lora check`: one table of everything, and what it does with a folder, a LoRA and --strict."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from lorafactory import images
from lorafactory.pocket import world

POCKET = ("--base", "pocket", "--trigger", "4nna", "--class", "square", "--kind", "object", "--no-clip")
ROWS = {
    "set size", "resolution", "buckets", "cropped away", "too thin or small for a bucket", "variety of background",
    "variety of pose", "left and right", "captions", "caption length", "trigger", "same phrase", "disk",
    "graphics card", "memory",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve drawings with captions: nothing is wrong with them."""
    made = tmp_path / "drawings"
    made.mkdir()
    rng = random.Random(5)
    for i in range(12):
        scene = world.random_scene(rng, plain=True)
        images.save_png(world.draw(scene, rng), made / f"{i:02}.png")
        (made / f"{i:02}.txt").write_text(f"4nna, {scene.shape} {i}\n")
    return made


def told(said) -> dict[str, dict]:
    return {row["what"]: row for row in json.loads(said.out)["findings"]}


def test_the_table_has_every_row_and_a_good_set_nothing_in_the_way(lora, space: Path, folder: Path):
    said = lora("check", folder, *POCKET)
    assert said.code == 0, said.err
    assert all(row.split()[0] in said.out for row in ROWS)
    assert said.out.splitlines()[-1] == "nothing is in the way"
    as_json = lora("check", folder, *POCKET, "--json")
    assert set(told(as_json)) == ROWS
    assert {row["verdict"] for row in told(as_json).values()} == {"ok"}
    assert lora("check", folder, *POCKET, "--strict").code == 0


def test_looking_at_a_folder_writes_nothing(lora, space: Path, folder: Path):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert lora("check", folder, *POCKET).code == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert not space.exists()


def test_the_sheet_goes_where_it_is_asked_for_and_into_a_loras_folder(lora, space: Path, folder: Path, tmp_path: Path):
    assert lora("check", folder, *POCKET, "--sheet", tmp_path / "sheet.png").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet.load()
        assert min(sheet.size) > 200
    home = space / "loras" / "anna" / "training_images"
    home.mkdir(parents=True)
    folder.rename(home / "12_4nna")
    said = lora("check", "anna", *POCKET)
    assert said.code == 0, said.err
    assert (space / "loras" / "anna" / "check.png").is_file()
    assert "check.png" in said.out


def test_notes_count_with_strict_only(lora, space: Path, folder: Path):
    (folder / "00.txt").unlink()
    (folder / "01.txt").write_text("a square\n")
    assert lora("check", folder, *POCKET).code == 0
    said = lora("check", folder, *POCKET, "--strict", "--json")
    assert said.code == 3
    assert "2 notes" in said.err
    rows = told(said)
    assert (rows["captions"]["verdict"], rows["captions"]["pictures"]) == ("note", ["00.png"])
    assert (rows["trigger"]["verdict"], rows["trigger"]["pictures"]) == ("note", ["01.png"])


def test_a_problem_is_in_the_way_without_strict_too(lora, space: Path, folder: Path):
    Image.new("RGB", (900, 20)).save(folder / "strip.png")
    (folder / "01.txt").write_bytes("größer".encode("latin-1"))
    said = lora("check", folder, *POCKET)
    assert said.code == 3
    assert "strip.png (900x20)" in said.out
    assert "1 not UTF-8 (01.png)" in said.out
    assert "01.txt is not UTF-8" in said.err


def test_originals_that_are_not_imported_yet_are_looked_at(lora, space: Path, folder: Path):
    (space / "loras" / "anna").mkdir(parents=True)
    folder.rename(space / "loras" / "anna" / "source")
    source = space / "loras" / "anna" / "source"
    (source / "broken.png").write_bytes((source / "00.png").read_bytes()[:200])
    said = lora("check", "anna", *POCKET, "--json")
    assert said.code == 0, said.err
    rows = told(said)
    assert rows["set size"]["value"].startswith("12 pictures")
    assert "will be set aside" in rows["unreadable"]["value"]


def test_what_the_chain_finds_is_said_as_before(lora, space: Path, folder: Path):
    said = lora("check", folder, "--trigger", "4nna", "--no-clip")
    assert said.code == 3
    assert "No base model is named" in said.err
    assert "set size" in said.out
