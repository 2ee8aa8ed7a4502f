"""What the exports share: a set laid out in kohya's folders, its pictures and captions copied as they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lorafactory.dataset import REG, Subset


def place_of(subset: Subset) -> Path:
    """`12_4nna`, or `reg/1_woman`: the number is how often an epoch shows each picture."""
    own = Path(f"{subset.repeats}_{subset.word}")
    return Path(REG) / own if subset.reg else own


def lay_out(subsets: Sequence[Subset], target: Path, captions: bool = True) -> None:
    """Copy every subset into its folder below `target`; a picture has its text beside it, byte for byte."""
    for subset in subsets:
        folder = target / place_of(subset)
        folder.mkdir(parents=True)
        for picture in subset.pictures:
            shutil.copyfile(picture.path, folder / picture.path.name)
            if captions and picture.caption_path.is_file():
                shutil.copyfile(picture.caption_path, folder / picture.caption_path.name)
