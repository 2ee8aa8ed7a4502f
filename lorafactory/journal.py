"""What a run did to the files of a set, found by looking before and after; and the way back.

So no step has to tell: whatever it moved, wrote or took away is seen. Only pictures and texts in the set's folders and
in `set_aside/` count, and the texts BESIDE them; originals are never touched, and masks stay, as they go by the
picture's name.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lorafactory import crops, dataset, images
from lorafactory.dataset import ASIDE, Picture, Set
from lorafactory.files import write_whole
from lorafactory.recording import Change, Run, tidy

TEXTS = frozenset({".txt", ".caption"})
PICTURES = images.SUFFIXES | images.FOREIGN
BLIND = "txt2img-images/blind.json"
"""What a person found of the saves without knowing which is which."""
BESIDE = (crops.NAME, BLIND)
UNDONE = "undone"
"""Folder of `set_aside/` for pictures whose import was taken back."""


# ---------------------------------------------------------------- what a run did


@dataclass(frozen=True)
class Standing:
    """The files of a set at one moment, by their place under its root, as in `training_images/1_4nna/0001.png`."""

    files: Mapping[str, str]
    """Place to sha256."""
    texts: Mapping[str, bytes]
    """sha256 to bytes, of texts only."""


def look(found: Set) -> Standing:
    """Read what stands where: the folders of the set and of `set_aside/`, without their subfolders.

    A picture that may not be opened is left out: no step can do anything with it.
    """
    folders = {s.folder for s in found.subsets} | set((found.root / ASIDE).glob("*/"))
    inside = [path for folder in sorted(folders) if folder.is_dir() for path in sorted(folder.iterdir())]
    return look_at(found.root, [*inside, *(found.root / place for place in BESIDE)])


def look_near(root: Path, changes: Sequence[Change]) -> Standing:
    """The same of what a run changed, and of what is called like it: enough to take back one that tells all it did."""
    places = {PurePosixPath(place) for c in changes for place in (c.before, c.after) if place}
    stems = {place.with_suffix("") for place in places}
    folders = [root / folder for folder in sorted({place.parent for place in places})]
    found = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    return look_at(root, [p for p in found if PurePosixPath(p.relative_to(root).with_suffix("").as_posix()) in stems])


def look_at(root: Path, paths: Iterable[Path]) -> Standing:
    """The same of a few files, for a run that is known to touch no others."""
    files, texts = {}, {}
    for path in paths:
        place = path.relative_to(root).as_posix()
        if not (is_text(place) or path.suffix.lower() in PICTURES) or path.name.startswith("."):
            continue
        if not path.is_file() or path.with_suffix(".safetensors").exists():  # a LoRA's preview
            continue
        if is_text(place):
            data = path.read_bytes()
            files[place] = hashlib.sha256(data).hexdigest()
            texts[files[place]] = data
        elif (sha := dataset.hash_of(path)) is not None:
            files[place] = sha
    return Standing(files, texts)


def record(before: Standing, after: Standing, run: Run) -> None:
    """Write into the run's row how the files differ."""
    for change in differences(before, after):
        run.changed(change)


def differences(before: Standing, after: Standing) -> list[Change]:
    """Moves first, then texts rewritten, files taken away, files made; so the way back begins at the end.

    A picture keeps its bytes and so is followed to its new place; a text that changed in its place was rewritten.
    """
    lost = {p: sha for p, sha in before.files.items() if after.files.get(p) != sha}
    new = {p: sha for p, sha in after.files.items() if before.files.get(p) != sha}
    rewritten = [p for p in lost if p in new and is_text(p)]
    moved = pairs(without(lost, rewritten), without(new, rewritten))
    rewritten += [p for p in lost if p in new and not is_text(p) and p not in moved and p not in moved.values()]
    changes = [Change(p, moved[p], lost[p], lost[p]) for p in moved]
    changes += [Change(p, p, lost[p], new[p], before.texts.get(lost[p])) for p in rewritten]
    gone = [p for p in lost if p not in moved and p not in rewritten]
    changes += [Change(p, None, lost[p], None, before.texts.get(lost[p])) for p in gone]
    made = [p for p in new if p not in moved.values() and p not in rewritten]
    return changes + [Change(None, p, None, new[p]) for p in made]


def without(files: Mapping[str, str], places: Sequence[str]) -> dict[str, str]:
    return {place: sha for place, sha in files.items() if place not in places}


def is_text(place: str) -> bool:
    return Path(place).suffix.lower() in TEXTS or place in BESIDE


def pairs(lost: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Old place to new place of equal bytes; files of one name first, as many texts may be equal."""
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    for place, sha in new.items():
        waiting[sha].append(place)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for place, sha in lost.items():
            fits = [q for q in waiting[sha] if not same_name or Path(q).name == Path(place).name]
            if place not in found and fits:
                found[place] = fits[0]
                waiting[sha].remove(fits[0])
    return found


# ---------------------------------------------------------------- the way back


@dataclass(frozen=True)
class Act:
    """One thing that taking back does."""

    kind: str
    """`move` a file or a `folder`, `write` or `remove` a text, set a picture `aside`."""
    place: str
    to: str = ""
    text: bytes = b""


@dataclass
class WayBack:
    """What takes a run's changes back, planned on paper first: nothing is touched if anything is in the way."""

    root: Path
    files: dict[str, str]
    """Place to sha256, as things will stand after the acts so far."""
    acts: list[Act] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """What a person did since and would be overwritten, or what cannot be found."""

    def plan(self, changes: Sequence[Change]) -> None:
        """Go through a run's changes backwards."""
        for now, was in renamed_folders(self.root, changes).items():
            self.acts.append(Act("folder", now, was))
            self.files = {moved_under(place, now, was): sha for place, sha in self.files.items()}
        made = {c.after for c in changes if c.before is None and c.after}
        left = {c.before for c in changes if c.before and c.after != c.before}
        for change in reversed(changes):
            if change.before is None and change.after in left:
                self.unreplace(change)
            elif change.before is None:
                self.unmake(change, made)
            elif change.after is None or change.after == change.before:
                self.rewrite(change)
            else:
                self.move_back(change)

    def unmake(self, change: Change, made: set[str]) -> None:
        """A picture goes to set_aside/undone with the text that came with it; a text that we alone wrote is removed."""
        place = change.after or ""
        if place not in self.files:
            return
        if not is_text(place):
            self.acts.append(Act("aside", place))
            self.files = without(self.files, [place, str(PurePosixPath(place).with_suffix(".txt"))])
        elif self.files[place] != change.sha256_after:
            self.conflicts.append(f"{place}: changed since")
        elif not (place.endswith(".txt") and any(same_stem(place, other) for other in made - {place})):
            self.acts.append(Act("remove", place))
            del self.files[place]

    def unreplace(self, change: Change) -> None:
        """What was made in the place of a file that is kept elsewhere, and comes back, is removed."""
        place = change.after or ""
        if self.files.get(place, change.sha256_after) != change.sha256_after:
            self.conflicts.append(f"{place}: changed since")
        elif place in self.files:
            self.acts.append(Act("remove", place))
            del self.files[place]

    def rewrite(self, change: Change) -> None:
        """Give a text its earlier words again."""
        place, here = change.before or "", self.files.get(change.before or "")
        if here == change.sha256_before or (here is None and not self.picture_of(place)):
            return
        if change.text is None:
            self.conflicts.append(f"{place}: its earlier bytes were not kept")
        elif here != change.sha256_after:
            self.conflicts.append(f"{place}: {'changed' if here else 'taken away'} since")
        else:
            self.acts.append(Act("write", place, text=change.text))
            self.files[place] = change.sha256_before or ""

    def move_back(self, change: Change) -> None:
        """Move a file to where it was. One that a person changed since keeps the change."""
        was, now = change.before or "", change.after or ""
        if now not in self.files:
            if self.files.get(was) != change.sha256_before and not is_text(now):
                self.conflicts.append(f"{now}: not there any more")
        elif self.files.get(was, change.sha256_before) != change.sha256_before:
            self.conflicts.append(f"{was}: another file is there now")
        elif was not in self.files:
            self.acts.append(Act("move", now, was))
            self.files[was] = self.files.pop(now)

    def picture_of(self, text: str) -> str | None:
        """The place of the picture that a text belongs to, where things stand."""
        return next((p for p in self.files if not is_text(p) and same_stem(p, text)), None)


def same_stem(place: str, other: str) -> bool:
    return PurePosixPath(place).with_suffix("") == PurePosixPath(other).with_suffix("")


def way_back(root: Path, changes: Sequence[Change], standing: Standing) -> WayBack:
    """Plan how to take a run back from how things stand."""
    found = WayBack(root, {str(tidy(place)): sha for place, sha in standing.files.items()})
    found.plan(changes)
    return found


def renamed_folders(root: Path, changes: Sequence[Change]) -> dict[str, str]:
    """New name to old of the folders a run renamed: all that is in one now goes back, also what a person added."""
    found: dict[str, str] = {}
    for change in changes:
        now, was = PurePosixPath(change.after or ""), PurePosixPath(change.before or "")
        same = change.before and change.after and now.name == was.name and now.parent != was.parent
        within = ASIDE not in (*now.parts, *was.parts)  # what was put back came out of a folder, and renamed none
        if same and within and (root / now.parent).is_dir() and not (root / was.parent).exists():
            found[str(now.parent)] = str(was.parent)
    return found


def moved_under(place: str, now: str, was: str) -> str:
    return was + place.removeprefix(now) if place.startswith(now + "/") else place


def apply(root: Path, acts: Sequence[Act]) -> None:
    """Do what was planned, then remove the folders that it left empty."""
    left: set[Path] = set()
    for act in acts:
        here, there = root / act.place, root / act.to
        if act.kind == "write":
            write_whole(here, act.text)
        elif act.kind == "remove":
            here.unlink()
        elif act.kind == "aside":
            dataset.set_aside(root, Picture(here), UNDONE)
            left.add(here.parent)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
            left |= {here.parent} if act.kind == "move" else set()
    for folder in sorted(left - {root}, key=lambda p: -len(p.parts)):
        for empty in (folder, folder.parent):
            with suppress(OSError):  # not empty, or gone
                if empty != root and empty.is_relative_to(root):
                    empty.rmdir()
