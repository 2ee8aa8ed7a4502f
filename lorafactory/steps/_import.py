"""One run of `rename`: tells originals that are known from new ones, and brings the new ones into the set."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafactory import dataset, images, sidecars
from lorafactory.dataset import ASIDE, Picture, Set
from lorafactory.files import whole, write_whole
from lorafactory.journal import UNDONE
from lorafactory.past import BY_HAND, SYNTHETIC
from lorafactory.step import Work
from lorafactory.steps._conversion import Conversion, Converted, converted

MASKS = "masks"
"""Folder of the pictures' opacity, `masks/0001.png` for `0001.png`: white where the original is opaque."""
TWIN = "duplicate"
REPLACED = "replaced"
"""Folder of `set_aside/` with pictures as they were before they were converted again."""
HERE, DOUBLE, KNOWN, NEW, REVOKED = "here", "double", "known", "new", "revoked"
"""What hashes tell of an original: the set has the very file; it came twice; it was imported; nothing; it may not."""


@dataclass
class Import:
    """What is known of the set and its past, and what has been done so far."""

    work: Work
    source: Path
    how: Conversion
    min_side: int
    target: Set
    """The set as it was before."""
    folder: Path
    """Where pictures go whose place under the source names no folder of the set."""
    root: Path
    """Holds the folders of the set."""
    imported: dict[str, str]
    """sha256 of an original to its picture's name."""
    present: dict[str, Picture]
    """sha256 of a file to the picture that it is, for those in the set."""
    content: dict[str, Picture]
    """The same, and for the numbered pictures set aside: equal pixels make equal files, as one encoder wrote them."""
    aside: Counter[tuple[str, str, str]]
    """Reason, name and sha256 of the copies in set_aside/."""
    number: int
    """Of the next new picture."""
    seen: dict[str, Picture] = field(default_factory=dict)
    """sha256 of the originals passed in this run, to the picture that stands for each."""
    new: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    """Pictures whose import had been taken back, brought in again."""
    gone: list[str] = field(default_factory=list)
    """Pictures that were imported once and are not in the set any more."""
    renewed: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def go(self, originals: list[Path]) -> None:
        """Take the originals in their order."""
        self.renew(originals)
        told = self.told_by_hash(originals)
        made = converted([path for path in originals if told[path] == NEW], self.how)
        for original in self.work.track(originals, "rename"):
            self.take(original, told[original], made)

    # ------------------------------------------------ pictures that are there

    def renew(self, originals: Iterable[Path]) -> None:
        """Convert again, under the same names, what was converted otherwise and is still as it was written."""
        wrote = self.work.past.conversions
        stale: dict[str, Path] = {}
        for original in originals:
            sha = images.sha256(original)
            picture = self.called(self.imported.get(sha, ""))
            if picture is not None:
                written, how = wrote.get(picture.name) or wrote.get(picture.path.name, ("", ""))
                if picture.sha256 == written != sha and how != str(self.how):
                    stale.setdefault(picture.path.name, original)
        results = converted(stale.values(), self.how)
        for name in self.work.track(list(stale), "converting again"):
            result, picture = next(results), self.called(name)
            if picture is not None and isinstance(result, Converted):
                self.rewrite(picture, result)

    def rewrite(self, picture: Picture, result: Converted) -> None:
        if hashlib.sha256(result.png).hexdigest() != picture.sha256:
            self.keep(picture)
            self.write_mask(picture, result)
            write_whole(picture.path, result.png)
            self.renewed.append(picture.name)
            self.present[picture.sha256] = self.content[picture.sha256] = picture
        self.note_conversion(picture, result)

    def keep(self, picture: Picture) -> None:
        """Copy a picture that is about to be written over, so that `undo` finds it."""
        folder = self.target.root / ASIDE / REPLACED
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / f"{picture.path.stem}~{picture.sha256[:8]}.png") as part:
            shutil.copyfile(picture.path, part)

    def called(self, name: str) -> Picture | None:
        """The picture of the set that has this number, wherever its folder is."""
        return self._named.get(Path(name).name)

    def __post_init__(self) -> None:
        self._named: Mapping[str, Picture] = {p.path.name: p for p in self.present.values()}
        self._names = set(self.imported.values())

    # ------------------------------------------------ originals that come in

    def told_by_hash(self, originals: Iterable[Path]) -> dict[Path, str]:
        """What is known of each original without a look at it."""
        told, passed = {}, set()
        for path in originals:
            sha = images.sha256(path)
            here = self.present.get(sha)
            if sha in self.work.past.revoked:
                told[path] = REVOKED
            elif here is not None and here.name not in self._names:  # put back by hand, or the record is gone
                told[path] = HERE
            elif sha in passed:
                told[path] = DOUBLE
            elif sha in self.imported:
                told[path] = KNOWN
            else:
                told[path] = DOUBLE if self.imported and self.aside[TWIN, path.name, sha] else NEW
            passed.add(sha)
        return told

    def take(self, original: Path, told: str, made: Iterator[Converted | images.Unreadable]) -> None:
        """Import one original, recognise it, or set a copy of it aside."""
        sha = images.sha256(original)
        stands: Picture | None
        if told == REVOKED:
            self.refuse(original, sha)
            stands = None
        elif told == HERE:
            stands = self.present[sha]
            if sha not in self.imported:
                self.remember(original, stands, sha)
        elif told == DOUBLE:
            stands = self.seen.get(sha)
            rule = "same bytes" if stands else "same pixels"
            self.put_aside(original, TWIN, rule, rival=stands)
        elif told == KNOWN:
            stands = self.called(self.imported[sha])
            self.gone += [self.imported[sha]] if stands is None else []
        else:
            stands = self.bring_in(original, sha, next(made))
        self.seen.setdefault(sha, stands or Picture(original))

    def bring_in(self, original: Path, sha: str, result: Converted | images.Unreadable) -> Picture | None:
        """Import an original that was never seen; None if it is set aside."""
        if isinstance(result, images.Unreadable):
            self.put_aside(original, "unreadable", "unreadable", why=result.reason)
            return None
        side, least = result.least_px, self.min_side
        if side < least:
            why = "{} x {} pixels".format(*result.original_px)
            if side < min(result.original_px):
                why += f", {side} on the shorter side once the longer one fits; --full-size leaves it"
            self.put_aside(original, "too_small", "too small", score=side, threshold=least, why=why)
            return None
        looks = hashlib.sha256(result.png).hexdigest()
        if looks in self.work.past.revoked:
            self.refuse(original, looks)
            return None
        twin = self.content.get(looks)
        if twin and twin.name in self._names:
            self.put_aside(original, TWIN, "same pixels", rival=twin)
            self.work.note.derived(twin.path, original, "png")  # it is another original of the same picture
            return twin
        if twin and sha in self.work.past.undone and twin.path.parent == self.target.root / ASIDE / UNDONE:
            picture = self.bring_back(original, twin)
        else:
            picture = twin or self.write(original, result)
        self.content[looks] = picture
        self.remember(original, picture, sha)
        self.note_conversion(picture, result)
        if twin is None:
            self.tell_rest(original, picture, result)
        return picture

    def refuse(self, original: Path, sha256: str) -> None:
        """Leave a revoked original where it is."""
        why = self.work.past.revoked[sha256]
        self.work.note(Picture(original), "refused", "revoked", why=why)
        self.lines.append(f"{original.name}: refused, it is revoked: {why}")
        self.reasons["revoked"] += 1

    def bring_back(self, original: Path, undone: Picture) -> Picture:
        """Move a picture whose import was taken back, and its caption, to where the original belongs."""
        folder = self.home(original)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Picture(dataset.move(undone, folder))
        self.back.append(picture.name)
        return picture

    def write(self, original: Path, result: Converted) -> Picture:
        """Write the caption and the mask first, so that a picture is never there without what came with it."""
        folder = self.home(original)
        picture = Picture(folder / f"{self.number:04d}.png")
        folder.mkdir(parents=True, exist_ok=True)
        if (text := self.text_of(original)) is not None:
            picture.write_caption(text)
        self.write_mask(picture, result)
        write_whole(picture.path, result.png)
        self.number += 1
        self.new.append(picture.name)
        return picture

    def text_of(self, original: Path) -> str | None:
        """The caption that came with an original; one that is not UTF-8 is left out, and said."""
        try:
            return sidecars.caption_beside(original, self.source)
        except sidecars.NotText as error:
            way = f"is not UTF-8 text; write it as {self.number:04d}.txt"
            self.lines.append(f"{original.name}: imported without its caption: {error.path} {way}")
            return None

    def home(self, original: Path) -> Path:
        """The folder a new picture goes to: that of the set it came in, as `10_name`, else the set's first."""
        place = dataset.place_in_set(original.relative_to(self.source))
        came = place and dataset.subset_of(place)
        if not place or not came:
            return self.folder
        same = (s.folder for s in self.target.subsets if s.word == came.word and s.reg == (len(place.parts) > 1))
        return next(same, self.root / place)

    def write_mask(self, picture: Picture, result: Converted) -> None:
        """Keep the opacity; a mask that is there already is replaced also where all is opaque now."""
        path = self.target.root / MASKS / picture.path.name
        if result.mask is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, result.mask)
        elif path.exists():
            images.save_png(images.opaque(result.px), path)

    # ------------------------------------------------ what is recorded

    def remember(self, original: Path, picture: Picture, sha: str) -> None:
        prompt = synthetic_prompt(original)
        why = f"{SYNTHETIC}{prompt}" if prompt else original.relative_to(self.source).as_posix()
        self.work.note(picture, "imported", "rename", before=sha, after=picture.name, why=why)
        if picture.sha256 != sha:
            self.work.note.derived(picture.path, original, "png")
        self.imported[sha] = picture.name
        self._names.add(picture.name)

    def note_conversion(self, picture: Picture, result: Converted) -> None:
        was, now = ("{} x {}".format(*px) for px in (result.original_px, result.px))
        self.work.note(picture, "converted", "rename", before=was, after=now, why=str(self.how))

    def tell_rest(self, original: Path, picture: Picture, result: Converted) -> None:
        """Record what else a person should know of a new picture: a text of their own, frames left out."""
        if (text := picture.caption) is not None:
            told = "came beside the original"
            self.work.note(picture, "caption changed", BY_HAND, after=text, why=told)
        if result.left_out:
            self.lines.append(f"{original.name}: {result.left_out} is used")
        if result.left_out and result.moving:
            self.work.note(picture, "flagged", "animated", why=result.left_out)

    def put_aside(self, original: Path, reason: str, rule: str, **told: Any) -> None:
        """Copy an original to set_aside/ and record why, unless the copy is there from an earlier run."""
        rival: Picture | None = told.get("rival")
        why = told.get("why") or f"{rule} as {rival.name if rival else 'another'}"
        self.reasons[reason] += 1
        self.lines.append(f"{original.name}: set aside, {reason.replace('_', ' ')}: {why}")
        key = (reason, original.name, images.sha256(original))
        if self.aside[key] > 0:
            self.aside[key] -= 1
            return
        self.work.note(Picture(original), "set aside", rule, **told)
        if reason == TWIN and rival:
            self.keep_text(original, rival)
        folder = self.target.root / ASIDE / reason
        folder.mkdir(parents=True, exist_ok=True)
        taken, stem, number = {p.stem for p in folder.iterdir()}, original.stem, 2
        while stem in taken:
            stem, number = f"{original.stem}~{number}", number + 1
        for suffix in (*sidecars.CAPTIONS, original.suffix):
            if (beside := original.with_suffix(suffix)).is_file() and not beside.is_symlink():
                with whole(folder / (stem + suffix)) as part:
                    shutil.copyfile(beside, part)

    def keep_text(self, original: Path, rival: Picture) -> None:
        """Give the picture that stays the text of its double, where it has none of its own."""
        if not rival.path.is_relative_to(self.root) or rival.caption_path.exists():
            return
        if text := self.text_of(original):
            rival.write_caption(text)
            self.work.note(rival, "caption changed", BY_HAND, after=text, why=f"came beside {original.name}")


def copies_aside(root: Path) -> Iterator[tuple[str, str, str]]:
    """Reason, name and sha256 of every file in set_aside/, under the name it had before it gave way to another."""
    for path in sorted((root / ASIDE).glob("*/*")):
        if path.is_file() and not path.name.startswith("."):
            stem, tilde, number = path.stem.rpartition("~")
            yield path.parent.name, path.name, images.sha256(path)
            if tilde and number.isdecimal():
                yield path.parent.name, stem + path.suffix, images.sha256(path)


def synthetic_prompt(original: Path) -> str | None:
    """The prompt of a generated original, from the `.json` that `generate` writes beside it."""
    path = original.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None  # some other tool's file
    return str(told["prompt"]) if isinstance(told, dict) and {"prompt", "seed", "base"} <= told.keys() else None


def masks_among(paths: list[Path]) -> set[Path]:
    """Those that are masks: `masks/0001.png` where a picture 0001 lies beside the folder, or below it elsewhere."""
    pictures = {(folder, p.stem) for p in paths if p.parent.name != MASKS for folder in p.parents}
    return {p for p in paths if p.parent.name == MASKS and (p.parent.parent, p.stem) in pictures}
