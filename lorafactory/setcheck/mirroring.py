"""Turn mirrored pictures round, in the set only; the originals in source/ are not touched.

The picture as it was goes to `set_aside/unturned/` with its caption, as whatever leaves a set does. Its mirror image
comes into the set under a name of its own, with the same caption, and a mirrored mask and crop where there were some.
The record has both hashes, and `lora undo` puts everything back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageOps

from lorafactory import crops, dataset, images
from lorafactory.dataset import Picture
from lorafactory.files import write_whole
from lorafactory.setcheck.orientation import GAP
from lorafactory.step import Work

KEPT = "unturned"
"""Folder of `set_aside/` with the pictures as they were."""
RULE = "left and right"
MASKS = "masks"
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def turn(work: Work, pictures: Sequence[Picture], gap: float) -> list[str]:
    """Mirror these pictures of the set, or only say so where `work.apply` is False; a line for each."""
    if not work.apply:
        for picture in pictures:
            work.note(picture, "would be mirrored", RULE, score=gap, threshold=GAP)
        return [f"{picture.name}: would be mirrored (--apply does it)" for picture in pictures]
    return [turn_one(work, picture, gap) for picture in pictures]


def turn_one(work: Work, picture: Picture, gap: float) -> str:
    """Write the mirror image first, so that the set never lacks the picture; then set aside what it was."""
    before, text = picture.sha256, picture.caption
    new = Picture(free_path(work, picture), picture.within)
    if picture.caption_path.is_file():  # its bytes: what is not UTF-8 stays as it is
        write_whole(new.caption_path, picture.caption_path.read_bytes())
    images.save_png(ImageOps.mirror(images.load(picture.path)), new.path)
    mask = work.place.root / MASKS / f"{picture.path.stem}.png"
    if mask.is_file():
        images.save_png(ImageOps.mirror(images.load(mask).convert("L")), mask.with_name(new.path.name))
    if box := work.set.crops.get(picture.name):
        crops.write(work.place.root, {new.name: crops.mirrored(box, images.size(new.path)[0])})
    work.note(new, "mirrored", RULE, score=gap, threshold=GAP, rival=picture, before=before, after=new.sha256)
    work.note.derived(new.path, picture.path, "mirrored")
    work.note(picture, "set aside", RULE, score=gap, threshold=GAP, rival=new)
    dataset.set_aside(work.place.root, picture, KEPT)
    found = _SIDES.search(text or "")
    warning = f'; its caption says "{found[1]}": mend it' if found else ""
    return f"{picture.name}: mirrored as {new.name}, itself now in {dataset.ASIDE}/{KEPT}{warning}"


def free_path(work: Work, picture: Picture) -> Path:
    """The next number of a LoRA's set; elsewhere the picture's own name with `_mirrored`."""
    if work.place.owned:
        return picture.path.with_name(f"{work.set.next_number():04}.png")
    stem, number = f"{picture.path.stem}_mirrored", 2
    path = picture.path.with_name(f"{stem}.png")
    while path.exists() or path.with_suffix(".txt").exists():
        path, number = picture.path.with_name(f"{stem}{number}.png"), number + 1
    return path
