"""Which LoRA or picture a person means: by name, by place, or by what it shows."""

from __future__ import annotations

from pathlib import Path

from lorafactory import dataset, images
from lorafactory.journal import TEXTS
from lorafactory.store import Store, tidy
from lorafactory.workspace import LoraDir, Workspace, target

SLASHES = frozenset("/\\")
"""What a folder's place has, and a LoRA's name has not."""


def lora_called(store: Store, space: Workspace, thing: str) -> str | None:
    """The LoRA that is meant by a name, or by its folder, which need not be there any more."""
    if store.runs(thing, limit=1) or (not SLASHES.intersection(thing) and (space.loras / thing).is_dir()):
        return thing
    return target(space, thing).recorded if Path(thing).expanduser().is_dir() else None


def picture_called(store: Store, space: Workspace, thing: str) -> tuple[str | None, str, list[str]]:
    """LoRA, name and contents of the picture that is meant.

    An original may bear the name of another picture of the set, so a name stands for the set's picture first, and
    a file in `source/` for its content only. The LoRA of a file elsewhere is the folder that commands were given.
    """
    path = file_called(space, thing)
    inside = _below(path.resolve(), space.loras.resolve())
    parts = inside if len(inside) > 1 else () if path.is_file() or path.is_absolute() else path.parts
    lora = parts[0] if len(parts) > 1 else set_of(store, path)
    hashes = [images.sha256(path)] if path.is_file() else []
    if lora is not None and not (hashes and "source" in parts):
        hashes += store.named(lora, path.name, "picture")
    if lora is not None and not hashes:
        hashes += store.named(lora, path.name)
    return lora, path.name, list(dict.fromkeys(hashes))


def file_called(space: Workspace, thing: str) -> Path:
    """The file that is meant: itself, or of NAME/PICTURE the one in the set, else set aside, else an original.

    A caption means its picture.
    """
    path = Path(thing).expanduser()
    if path.suffix in TEXTS:
        return next((p for s in images.SUFFIXES if (p := file_called(space, str(path.with_suffix(s)))).is_file()), path)
    if path.is_file() or len(path.parts) != 2:
        return path
    place = LoraDir("", space.loras / path.parts[0], owned=True)
    found = dataset.read_set(place.root, place.images)
    named = {p.name: p.path for p in found.pictures}
    tried = (named.get(path.name), found.aside.get(path.name), place.source / path.name)
    return next((one for one in tried if one and one.is_file()), path)


def set_of(store: Store, path: Path) -> str | None:
    """The nearest folder above a file that the record knows as a set."""
    above = (str(tidy(str(folder))) for folder in path.resolve().parents)
    return next((folder for folder in above if store.runs(folder, limit=1)), None)


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def seen(path: Path) -> tuple[str, int]:
    """Hash of a picture's pixels, and its perceptual hash."""
    from lorafactory.steps._looks import hashes, reduced

    image = images.load(path)
    return images.pixel_hash(image), hashes(reduced(image))[0]


def look_of(store: Store, path: Path, hashes: list[str]) -> tuple[str, int] | None:
    """What a picture looks like: as recorded, else as its file shows."""
    for sha in hashes:
        for row in store.ask("looks", sha256=sha):
            return row["pixels"], row["phash"]
    try:
        return seen(path) if path.is_file() else None
    except images.Unreadable:
        return None
