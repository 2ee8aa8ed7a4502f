"""Where a LoRA's pictures come from, and how they get into its source/: whole, and none twice."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from lorafactory import dataset, images, sidecars, unzip, workspace
from lorafactory.errors import InputError
from lorafactory.files import whole, write_whole
from lorafactory.workspace import LoraDir, Workspace

DEMO = "demo"
COMPANIONS = (".txt", ".caption", ".json")
"""What belongs to a picture and lies beside it: a caption, or how it was generated."""


@dataclass(frozen=True)
class Origin:
    """Where the pictures come from: `there` (go on), `drop`, `zip` (a drop too), `from` or `demo`."""

    how: str
    folder: Path
    packed: Path | None = None
    """The zip that `folder` was unpacked from."""


def find_origin(
    space: Workspace, place: LoraDir, given: Path | None, unpacked: ExitStack, *, draws: bool = False
) -> Origin:
    """loras/NAME, then inbox/NAME, then --from; InputError with the three ways if there is none.

    None is needed where the recipe `draws` its pictures. A zip is unpacked into a folder that is gone when `unpacked`
    is closed.
    """
    if given is not None:
        given = given.expanduser()
        packed = given if given.is_file() else None
        if not packed and not given.is_dir():
            raise InputError(f"--from {given}: no such folder or zip")
        folder = unpacked.enter_context(unzip.unpacked(packed)) if packed else given
        if not images.find_sources(folder):
            raise InputError(
                f"--from {given}: no picture in it (jpg, png, webp, ... are looked for, also in subfolders)"
            )
        return Origin("from", folder, packed)
    begun = place.images.is_dir() or bool(images.find_sources(place.source))
    if begun or (place.root.is_dir() and place.name != DEMO):
        return Origin("there", place.source)
    drop = space.inbox / place.name
    if not drop.is_dir() and (packed := space.inbox / f"{place.name}.zip").is_file():
        return replace(find_origin(space, place, packed, unpacked), how="zip")
    if drop.is_dir():
        if not images.find_sources(drop):
            raise InputError(f"{drop}: no picture in it")
        return Origin("drop", drop)
    if place.name == DEMO:
        return Origin("demo", place.source)
    if draws:
        return Origin("there", place.source)
    raise InputError(
        f"nothing to make {place.name} from. One of:\n"
        f"    lora make {place.name} --from FOLDER      a folder or zip of pictures; they are copied\n"
        f"    put the pictures into {drop}, or {drop}.zip\n"
        f"    put the pictures into {place.source}"
    )


def take_in(origin: Origin, place: LoraDir) -> int:
    """Bring the originals into source/; return how many are new. What is there already, by content, is left out."""
    place.source.mkdir(parents=True, exist_ok=True)
    if origin.how == "drop":
        shutil.move(str(origin.folder), str(place.source / "_drop"))
        for child in sorted((place.source / "_drop").iterdir()):
            child.replace(place.source / child.name)
        (place.source / "_drop").rmdir()
        return len(images.find_sources(place.source))
    if origin.how == "demo":
        return workspace.draw_demo(place.source)
    if origin.how not in ("from", "zip"):
        return 0
    new = copy_new(origin.folder, place)
    if origin.how == "zip" and origin.packed:
        shutil.move(str(origin.packed), str(free_path(place.source / origin.packed.name)))
    return new


def copy_new(folder: Path, place: LoraDir) -> int:
    """Copy the originals of a folder that source/ does not have, with what belongs to them; return how many."""
    have = {images.sha256(p) for p in images.find_sources(place.source)}
    new = [p for p in images.find_sources(folder) if images.sha256(p) not in have]
    for path in new:
        texts = beside(path, folder)
        target = free_path(place.source / path.relative_to(folder), texts)
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix, data in texts.items():  # first, as a picture that is there is not copied again
            write_whole(target.with_suffix(suffix), data)
        with whole(target) as part:
            shutil.copyfile(path, part)
    return len(new)


def beside(original: Path, folder: Path) -> dict[str, bytes]:
    """What belongs to an original, by suffix: the files beside it, and where no caption is its line in a list."""
    found = {s: p.read_bytes() for s in COMPANIONS if (p := original.with_suffix(s)).is_file()}
    listed = sidecars.listed(original, folder)  # a text beside is what stays with a picture that gets another name
    if listed and not found.keys() & set(sidecars.CAPTIONS):
        found[".txt"] = (listed + "\n").encode()
    return found


def free_path(path: Path, texts: Mapping[str, bytes] = MappingProxyType({})) -> Path:
    """The path, or one with ~2, ~3 ... where another file, or what belongs to one, has it already.

    Equal `texts` without a picture belong to nothing: a copy that broke off left them.
    """

    def taken(at: Path) -> bool:
        others = [p for s in COMPANIONS if (p := at.with_suffix(s)).exists()]
        alone = not any(at.with_suffix(s).exists() for s in images.SUFFIXES)
        left = alone and all(p.read_bytes() == texts.get(p.suffix) for p in others)
        return at.exists() or (bool(others) and not left)

    number, found = 2, path
    while taken(found):
        found = path.with_name(f"{path.stem}~{number}{path.suffix}")
        number += 1
    return found


def trigger_of(folder: Path) -> str:
    """The first word of a set's folder `12_4nna woman` if every caption in it has that word, else nothing.

    With no caption it may as well be `2_holidays`.
    """
    words, captions = set(), []
    for path in images.find_sources(folder):
        within = dataset.place_in_set(Path(folder.name) / path.relative_to(folder))
        if within is None or len(within.parts) > 1:  # loose, or for regularisation
            continue
        words |= {re.split(r"[\s,]", within.name.partition("_")[2].strip())[0]}
        with suppress(InputError):  # the import says so, with all else that is wrong
            captions.append(sidecars.caption_beside(path, folder))
    said = [text.lower() for text in captions if text]
    word = words.pop() if len(words) == 1 else ""
    alone = re.compile(rf"(?<!\w){re.escape(word.lower())}(?!\w)")
    return word if word and said and all(map(alone.search, said)) else ""
