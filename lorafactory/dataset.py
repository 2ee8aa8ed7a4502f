"""The folder contract: a set is a list of subsets, a subset is a folder of NNNN.png with NNNN.txt beside.

A set that somebody else made is read as it stands, as kohya's trainers read it: several folders `10_name` with their
own repeats, regularisation pictures in `reg/1_class`, all of it in the folder itself or in its `img/`.

The folder is the truth. Nothing here knows the record: a person may delete a picture, mend a caption or put a picture
back with any tool, and the next command takes the folder as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lorafactory import crops, images
from lorafactory.crops import Box
from lorafactory.errors import InputError
from lorafactory.files import write_whole

ASIDE = "set_aside"
REG = "reg"
"""Folder of the regularisation pictures: what the class looks like without the LoRA."""
IMG = "img"
"""Where kohya's interface puts the folders of a set, beside `reg`, `log` and `model`."""
MOST_REPEATS = 1000
"""`2023_summer` is a folder of somebody's photographs; so many repeats are none."""
_REPEATS = re.compile(r"^(\d+)_(.+)$")
_NUMBER = re.compile(r"^(\d{4,})$")


@dataclass(frozen=True)
class Picture:
    """One image of a set. Its name within the set (`0001.png`) stays when its folder is renamed."""

    path: Path
    within: str = ""
    """What goes before the file's name where two folders of a set have files of one name."""

    @property
    def name(self) -> str:
        return f"{self.within}/{self.path.name}" if self.within else self.path.name

    @property
    def sha256(self) -> str:
        return images.sha256(self.path)

    @property
    def caption_path(self) -> Path:
        return self.path.with_suffix(".txt")

    @property
    def caption(self) -> str | None:
        """The caption, or None where there is no file. A byte order mark and outer white space do not count.

        Bytes that are not UTF-8 come as `\\xe4`: what does not need the words goes on, the rest asks `garbled` first.
        """
        if not self.caption_path.exists():
            return None
        return self.caption_path.read_text(encoding="utf-8-sig", errors="backslashreplace").strip()

    @property
    def garbled(self) -> bool:
        """True if there is a caption, and it is not UTF-8 text."""
        try:
            self.caption_path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            return True
        except FileNotFoundError:
            pass
        return False

    def write_caption(self, text: str) -> None:
        write_whole(self.caption_path, (text + "\n").encode())


@dataclass(frozen=True)
class Subset:
    """A folder whose pictures share repeats and a trigger (or class word); `reg` marks regularisation pictures."""

    folder: Path
    repeats: int
    word: str
    reg: bool = False
    within: str = ""
    """What tells its pictures' names from another folder's."""
    shared: frozenset[str] | None = frozenset()
    """File names that need telling apart, so that the others keep theirs whatever comes; None: all of them."""

    @property
    def pictures(self) -> list[Picture]:
        """What is in the folder, except a LoRA's preview, which bears the LoRA's name."""
        loras = {p.stem for p in self.folder.glob("*.safetensors")}
        found = (p for p in images.find(self.folder) if p.stem not in loras)
        return [Picture(p, self.within if self.shared is None or p.name in self.shared else "") for p in found]


@dataclass(frozen=True)
class Set:
    """The images being trained on."""

    root: Path
    """The folder that holds `set_aside/`."""
    subsets: tuple[Subset, ...]
    """All of them; those marked `reg` come last."""

    @property
    def pictures(self) -> list[Picture]:
        """What the LoRA learns from. Regularisation pictures stay as their person chose them: no step touches them."""
        return [p for s in self.subsets if not s.reg for p in s.pictures]

    def hashes(self) -> dict[str, str]:
        """Name within the set to sha256 of the image file; files that cannot be opened are left out."""
        return {p.name: sha for p in self.pictures if (sha := hash_of(p.path)) is not None}

    def captions(self) -> dict[str, str]:
        """Name within the set to caption, for the pictures that have one."""
        return {p.name: c for p in self.pictures if (c := p.caption) is not None}

    def called(self, path: Path) -> str | None:
        """The name within the set of the picture at a place, or that was there; None outside of what is learned."""
        for s in self.subsets:
            if s.folder == path.parent and not s.reg:
                return Picture(path, s.within if s.shared is None or path.name in s.shared else "").name
        return None

    @property
    def garbled(self) -> list[Path]:
        """The captions that are not UTF-8 text, also those of regularisation pictures."""
        return [p.caption_path for s in self.subsets for p in s.pictures if p.garbled]

    @property
    def crops(self) -> dict[str, Box]:
        """Name within the set to the part of a picture that is trained on, where that is not all of it."""
        return crops.read(self.root)

    @property
    def aside(self) -> dict[str, Path]:
        """Name to path of the pictures that were taken out; the newest place wins if a name is there twice."""
        folder = self.root / ASIDE
        return {p.name: p for reason in sorted(folder.glob("*/")) for p in images.find(reason)}

    def next_number(self) -> int:
        """One more than the highest NNNN in use, set-aside pictures included."""
        stems = [Path(name).stem for name in (*(p.name for s in self.subsets for p in s.pictures), *self.aside)]
        return max((int(s) for s in stems if _NUMBER.match(s)), default=0) + 1


def hash_of(path: Path) -> str | None:
    """sha256 of a file's bytes; None if it may not be opened."""
    try:
        return images.sha256(path)
    except PermissionError:
        return None


def read_set(root: Path, folder: Path, word: str = "") -> Set:
    """Read the set at `folder`: its subfolders `N_word` if it has any, else the folder itself as one subset."""
    home = folder if subsets_in(folder) or not subsets_in(folder / IMG) else folder / IMG
    subsets = subsets_in(home)
    if not subsets and folder.is_dir():
        subsets = [subset_of(folder) or Subset(folder, 1, word or folder.name)]
    reg = subsets_in(folder / REG) or ([Subset(folder / REG, 1, REG)] if images.find(folder / REG) else [])
    marked = (replace(s, reg=True, within=f"{REG}/{s.word}", shared=None) for s in reg)
    return Set(root, (*told_apart(subsets, Set(root, ()).aside), *marked))


def subsets_in(folder: Path) -> list[Subset]:
    return [s for child in sorted(folder.glob("*/")) if (s := subset_of(child)) is not None]


def told_apart(subsets: list[Subset], aside: Iterable[str]) -> list[Subset]:
    """Names that folders share, also with set_aside/, get the folder's word, or its whole name where words are equal.

    A picture that was set aside counts, or its namesake would be called otherwise from then on.
    """
    if len(subsets) < 2:
        return subsets
    counted = Counter([*aside, *(p.name for s in subsets for p in images.find(s.folder))])
    shared = frozenset(name for name, count in counted.items() if count > 1)
    words = [s.word for s in subsets]
    return [replace(s, within=s.word if words.count(s.word) == 1 else s.folder.name, shared=shared) for s in subsets]


def subset_of(folder: Path) -> Subset | None:
    """Read repeats and word from a folder name as kohya does (`12_anna woman`); None if it is named otherwise."""
    match = _REPEATS.match(folder.name)
    return Subset(folder, int(match[1]), match[2]) if match else None


def place_in_set(original: Path) -> Path | None:
    """The subset that an original's place under its source names, as `10_name` or `reg/1_woman`; None if none does.

    So a set that came as a whole keeps its folders. Numbers from MOST_REPEATS up are years and dates.
    """
    folders = original.parts[:-1]
    for depth, name in enumerate(folders):
        match = _REPEATS.match(name)
        if match and 0 < int(match[1]) < MOST_REPEATS:
            return Path(REG, name) if REG in folders[:depth] else Path(name)
    return Path(REG, f"1_{REG}") if REG in folders else None


def with_repeats(subset: Subset, repeats: int) -> Subset:
    """Rename the subset's folder to carry `repeats`."""
    folder = subset.folder.with_name(f"{repeats}_{subset.word}")
    if folder != subset.folder:
        if folder.exists():
            raise InputError(f"{folder} is in the way of renaming {subset.folder}: merge the two by hand")
        subset.folder.rename(folder)
    return replace(subset, folder=folder, repeats=repeats)


def set_aside(root: Path, picture: Picture, reason: str) -> Path:
    """Move a picture and its caption to `root/set_aside/<reason>/`; never overwrite, never delete."""
    folder = root / ASIDE / reason
    folder.mkdir(parents=True, exist_ok=True)
    return move(picture, folder)


def move(picture: Picture, folder: Path) -> Path:
    """Move a picture and its caption into `folder` under a free name; return the picture's new path."""
    target = folder / picture.path.name
    number = 2
    while target.exists() or target.with_suffix(".txt").exists():
        target = folder / f"{picture.path.stem}~{number}{picture.path.suffix}"
        number += 1
    if picture.caption_path.exists():
        picture.caption_path.replace(target.with_suffix(".txt"))
    picture.path.replace(target)
    return target
