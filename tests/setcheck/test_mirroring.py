"""`check --fix-mirrored` turns the smaller group round; nothing is lost, and `undo` puts back every byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faces import photographs
from PIL import Image, ImageOps

from lorafactory import crops, images
from lorafactory.store import Store

SEED = 1
LINE = ("--base", "pocket", "--trigger", "4nna", "--class", "woman", "--no-clip")


@pytest.fixture
def anna(space: Path) -> tuple[Path, set[str]]:
    """A LoRA's set of twelve faces with captions and one mask, and the names of the flipped ones."""
    folder = space / "loras" / "anna" / "training_images" / "1_4nna"
    folder.mkdir(parents=True)
    pictures, flipped = photographs(SEED, 0.4)
    for i, picture in enumerate(pictures, 1):
        images.save_png(picture, folder / f"{i:04}.png")
        (folder / f"{i:04}.txt").write_text(f"4nna looks to the left, picture {i}\n")
    names = {f"{i:04}.png" for i, turned in enumerate(flipped, 1) if turned}
    masks = space / "loras" / "anna" / "masks"
    masks.mkdir()
    images.save_png(Image.linear_gradient("L").rotate(90).resize((160, 128)), masks / min(names))
    return folder, names


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "check.png")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(images.load(path))


def test_the_smaller_group_is_turned_and_nothing_is_lost(lora, space: Path, anna):
    folder, flipped = anna
    before = files(folder)
    said = lora("check", "anna", "--fix-mirrored", *LINE)
    assert said.code == 0, said.err
    kept = space / "loras" / "anna" / "set_aside" / "unturned"
    assert {p.name for p in kept.glob("*.png")} == flipped
    new = {p.name for p in folder.glob("*.png")} - set(before)
    assert len(new) == len(flipped)
    assert {p.name for p in folder.glob("*.png")} - new == {n for n in before if n.endswith(".png")} - flipped
    with Store(space / "lorafactory.db", readonly=True) as store:
        turned = [d for d in store.decisions(lora="anna") if d.verdict == "mirrored"]
        assert {d.image for d in turned} == new
        for d in turned:
            old = kept / str(d.rival)
            assert np.array_equal(pixels(folder / d.image), pixels(old)[:, ::-1])
            assert (folder / d.image).with_suffix(".txt").read_text() == old.with_suffix(".txt").read_text()
            assert (d.before, d.after) == (images.sha256(old), images.sha256(folder / d.image))
            assert [c.sha256 for c in store.children(str(d.before))] == [d.after]
    assert 'its caption says "left"' in said.out
    again = lora("check", "anna", "--fix-mirrored", *LINE)
    assert "no picture is turned" in again.out


def test_mask_and_crop_turn_with_their_picture(lora, space: Path, anna):
    _, flipped = anna
    root = space / "loras" / "anna"
    crops.write(root, {min(flipped): (0, 2, 150, 126)})
    before = (root / crops.NAME).read_bytes()
    assert lora("check", "anna", "--fix-mirrored", *LINE).code == 0
    with Store(space / "lorafactory.db", readonly=True) as store:
        new = next(d.image for d in store.decisions(lora="anna") if d.verdict == "mirrored" and d.rival == min(flipped))
    masks = space / "loras" / "anna" / "masks"
    assert np.array_equal(pixels(masks / new), np.asarray(ImageOps.mirror(images.load(masks / min(flipped)))))
    width, _ = images.size(root / "set_aside" / "unturned" / min(flipped))
    assert crops.read(root)[new] == (width - 150, 2, width, 126)
    assert lora("undo", "anna").code == 0
    assert (root / crops.NAME).read_bytes() == before


def test_undo_puts_back_every_byte(lora, space: Path, anna):
    folder, _ = anna
    before = files(folder)
    assert lora("check", "anna", "--fix-mirrored", *LINE).code == 0
    assert files(folder) != before
    said = lora("undo", "anna")
    assert said.code == 0, said.err
    assert files(folder) == before
    assert lora("check", "anna", *LINE).code == 0


def test_a_folder_is_left_alone_until_apply(lora, space: Path, anna, tmp_path: Path):
    folder, flipped = anna
    own = tmp_path / "own"
    own.mkdir()
    for name, data in files(folder).items():
        (own / name).write_bytes(data)
    for name in list(flipped):  # the pictures of a folder may be of any format
        images.load(own / name).save((own / name).with_suffix(".jpg"), quality=95)
        (own / name).unlink()
    before = files(own)
    said = lora("check", own, "--fix-mirrored", *LINE)
    assert said.code == 0, said.err
    assert "would be mirrored (--apply does it)" in said.out
    assert files(own) == before
    assert lora("check", own, "--fix-mirrored", "--apply", *LINE).code == 0
    after = files(own)
    stems = {Path(name).stem for name in flipped}
    assert {f"{stem}_mirrored.png" for stem in stems} <= set(after)
    assert all(after[f"set_aside/unturned/{stem}.jpg"] == before[f"{stem}.jpg"] for stem in stems)
