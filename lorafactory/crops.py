"""Which part of a picture is trained on: a rectangle in a file beside the set; the picture itself stays whole.

    crops.toml      "0001.png" = [120, 40, 900, 1010]       left, top, right, bottom in pixels of the set's picture

A picture without a line is trained on as a whole. `lora review` writes the file, and so may a person.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from PIL import Image

from lorafactory.errors import InputError
from lorafactory.files import write_whole

NAME = "crops.toml"
HEAD = "left, top, right, bottom in pixels of the picture; without a line all of it is trained on"

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first that do not belong to it."""


def read(root: Path) -> dict[str, Box]:
    """Picture name to rectangle, as the file at `root` says; InputError with all that is wrong in it."""
    path = root / NAME
    if not path.is_file():
        return {}
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    wrong = [f"{path}: {name} = {value}: four whole numbers are needed, as in [0, 0, 512, 512]"
             for name, value in told.items() if not _is_box(value)]  # fmt: skip
    if wrong:
        raise InputError("\n".join(wrong))
    return {name: (*value,) for name, value in told.items()}


def parse(text: str) -> dict[str, Box]:
    """The rectangles in a text that may be broken."""
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    return {name: (*value,) for name, value in told.items() if _is_box(value)}


def _is_box(value: object) -> bool:
    whole = isinstance(value, list) and len(value) == 4 and all(type(x) is int for x in value)
    return whole and 0 <= value[0] < value[2] and 0 <= value[1] < value[3]  # type: ignore[index]


def outside(box: Box, size: tuple[int, int]) -> bool:
    """True if a rectangle does not lie within a picture of this size."""
    return box[2] > size[0] or box[3] > size[1]


def size_of(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def cut(image: Image.Image, box: Box | None) -> Image.Image:
    return image.crop(box) if box else image


def scaled(box: Box, across: float, down: float) -> Box:
    """The same rectangle of the same picture in another size, in whole pixels."""
    return round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)


def mirrored(box: Box, width: int) -> Box:
    return width - box[2], box[1], width - box[0], box[3]


def changed(text: str, boxes: Mapping[str, Box | None]) -> str:
    """The file's text with other rectangles; None takes a picture's line out. A person's remarks and order stay."""
    document = tomlkit.parse(text) if text else tomlkit.document().add(tomlkit.comment(HEAD))
    for name, box in boxes.items():
        if box is None:
            document.pop(name, None)
        else:
            document[name] = list(box)
    return tomlkit.dumps(document)


def write(root: Path, boxes: Mapping[str, Box | None]) -> None:
    """Change these rectangles in the file at `root`: whole or not at all."""
    path = root / NAME
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    write_whole(path, changed(text, boxes).encode())
