"""The folder contract: a set is a list of subsets, a subset is a folder of NNNN.png with NNNN.txt beside.

The folder is the truth. Nothing here knows the record: a person may delete a picture, mend a caption or put a picture
back with any tool, and the next command takes the folder as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lorafactory import images
from lorafactory.errors import InputError
from lorafactory.files import write_whole

ASIDE = "set_aside"
_REPEATS = re.compile(r"^(\d+)_(.+)$")
_NUMBER = re.compile(r"^(\d{4,})$")


@dataclass(frozen=True)
class Picture:
    """One image of a set. Its name within the set (`0001.png`) stays when its folder is renamed."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def sha256(self) -> str:
        return images.sha256(self.path)

    @property
    def caption_path(self) -> Path:
        return self.path.with_suffix(".txt")

    @property
    def caption(self) -> str | None:
        """The caption, or None where there is no file. A byte order mark and outer white space do not count."""
        if not self.caption_path.exists():
            return None
        try:
            return self.caption_path.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.caption_path} is not UTF-8 text: save it again as UTF-8") from error

    def write_caption(self, text: str) -> None:
        write_whole(self.caption_path, (text + "\n").encode())


@dataclass(frozen=True)
class Subset:
    """A folder whose pictures share repeats and a trigger (or class word); `reg` marks regularisation pictures."""

    folder: Path
    repeats: int
    word: str
    reg: bool = False

    @property
    def pictures(self) -> list[Picture]:
        """What is in the folder, except a LoRA's preview, which bears the LoRA's name."""
        return [Picture(p) for p in images.find(self.folder) if not p.with_suffix(".safetensors").exists()]


@dataclass(frozen=True)
class Set:
    """The images being trained on."""

    root: Path
    """The folder that holds `set_aside/`."""
    subsets: tuple[Subset, ...]

    @property
    def pictures(self) -> list[Picture]:
        return [p for s in self.subsets for p in s.pictures]

    def hashes(self) -> dict[str, str]:
        """Name within the set to sha256 of the image file."""
        return {p.name: p.sha256 for p in self.pictures}

    def captions(self) -> dict[str, str]:
        """Name within the set to caption, for the pictures that have one."""
        return {p.name: c for p in self.pictures if (c := p.caption) is not None}

    @property
    def aside(self) -> dict[str, Path]:
        """Name to path of the pictures that were taken out; the newest place wins if a name is there twice."""
        folder = self.root / ASIDE
        return {p.name: p for reason in sorted(folder.glob("*/")) for p in images.find(reason)}

    def next_number(self) -> int:
        """One more than the highest NNNN in use, set-aside pictures included."""
        stems = [Path(name).stem for name in (*(p.name for p in self.pictures), *self.aside)]
        return max((int(s) for s in stems if _NUMBER.match(s)), default=0) + 1


def read_set(root: Path, folder: Path, word: str = "") -> Set:
    """Read the set at `folder`: its subfolders `N_word` if it has any, else the folder itself as one subset."""
    subsets = [s for child in sorted(folder.glob("*/")) if (s := subset_of(child)) is not None]
    if not subsets and folder.is_dir():
        subsets = [subset_of(folder) or Subset(folder, 1, word or folder.name)]
    return Set(root, tuple(subsets))


def subset_of(folder: Path) -> Subset | None:
    """Read repeats and word from a folder name as kohya does (`12_anna woman`); None if it is named otherwise."""
    match = _REPEATS.match(folder.name)
    return Subset(folder, int(match[1]), match[2]) if match else None


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
    target = folder / picture.name
    number = 2
    while target.exists() or target.with_suffix(".txt").exists():
        target = folder / f"{picture.path.stem}~{number}{picture.path.suffix}"
        number += 1
    if picture.caption_path.exists():
        picture.caption_path.replace(target.with_suffix(".txt"))
    picture.path.replace(target)
    return target
