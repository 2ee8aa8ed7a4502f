"""Bring the originals into the set as NNNN.png: upright, in sRGB, each one once.

Reads source/ with its subfolders and never changes it. Numbers go on after the highest one in use, so a picture
keeps its name when others come later; one that was imported once is not imported again, whatever became of it.
A text beside an original (`a.txt` or `a.caption`) becomes the picture's caption. Originals that cannot be read,
are too small, or equal another one are copied to set_aside/.

\b
For example:
  lora rename anna                         loras/anna/source -> its training_images
  lora rename photos --to set              from any folder into another; acts at once, as it only adds files
  lora rename photos --to set --trigger 4nna      into set/1_4nna, as kohya's tools want it
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from lorafactory import dataset, images
from lorafactory.dataset import ASIDE, Picture, Set
from lorafactory.errors import InputError, Problem, SettingsError
from lorafactory.files import whole
from lorafactory.past import BY_HAND
from lorafactory.step import Result, StepSettings, Work

VERSION = 1
HEADER = ("trigger",)
CAPTIONS = (".txt", ".caption")
TWIN = "duplicate"


class Settings(StepSettings):
    """What is imported, and to where."""

    min_side: int = Field(256, ge=1)
    """Shortest side, in pixels, that an original must have; smaller ones are set aside. From 1."""
    to: Path | None = None
    """Folder the pictures are written to. Needed for a folder that is not a LoRA's; must not lie inside it."""


# ---------------------------------------------------------------- where from, where to


def sources(work: Work) -> list[Path]:
    """The originals: all of source/, or of the folder itself; what was set aside there stays out."""
    folder = source_folder(work)
    return [p for p in images.find_sources(folder) if ASIDE not in p.relative_to(folder).parts]


def source_folder(work: Work) -> Path:
    return work.originals if work.place.owned else work.place.root


def target_set(work: Work, settings: Settings) -> Set:
    """The set that receives the pictures, as it is now."""
    if work.place.owned or settings.to is None:
        return work.set
    folder = settings.to.expanduser().absolute()
    return dataset.read_set(folder, folder, work.trigger)


def target_folder(work: Work, settings: Settings) -> Path:
    """Where the set's first pictures lie; if it has none, `1_TRIGGER`, or the folder itself without a trigger."""
    found = target_set(work, settings)
    home = work.place.images if work.place.owned else found.root
    used = [s.folder for s in found.subsets if s.folder != home or s.pictures]
    word = work.trigger or (work.place.name if work.place.owned else "")
    return used[0] if used else home / f"1_{word}" if word else home


def sees(work: Work, settings: Settings) -> dict[str, str]:
    """The originals by their place under source/."""
    folder = source_folder(work)
    return {p.relative_to(folder).as_posix(): images.sha256(p) for p in sources(work)}


def check(work: Work, settings: Settings) -> list[Problem]:
    """Where to write, and texts beside originals that cannot be read. An empty source/ is found when it is read."""
    problems = []
    if work.place.owned and settings.to is not None:
        message = f"rename: `to` is for other folders; {work.place.name}'s pictures go to {work.place.images}"
        problems.append(Problem(message, error=SettingsError))
    if not work.place.owned:
        root = work.place.root
        line = f"lora rename {root} --to {root.parent / (root.name + '_set')}"
        if settings.to is None:
            message = f"{root} is not a LoRA's folder, and its pictures stay as they are: say where the new ones go"
            problems.append(Problem(message, line, error=SettingsError))
        elif target_folder(work, settings).resolve().is_relative_to(root.resolve()):
            message = f"--to {settings.to} lies inside {root}, whose pictures stay as they are"
            problems.append(Problem(message, line, error=SettingsError))
    for path in sources(work):
        try:
            caption_beside(path)
        except InputError as error:
            problems.append(Problem(str(error)))
    return problems


def caption_beside(original: Path) -> str | None:
    """The text that lies beside an original, if there is one that says something."""
    for suffix in CAPTIONS:
        path = original.with_suffix(suffix)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{path} is not UTF-8 text: save it again as UTF-8") from error
            if text:
                return text
    return None


def synthetic_prompt(original: Path) -> str | None:
    """The prompt of a generated original, from the `.json` that `generate` writes beside it."""
    path = original.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # some other tool's file
    return str(told["prompt"]) if isinstance(told, dict) and {"prompt", "seed", "base"} <= told.keys() else None


# ---------------------------------------------------------------- the import


@dataclass
class Import:
    """One run: what is known of the set and its past, and what has been done so far."""

    work: Work
    settings: Settings
    folder: Path
    target: Set
    """As it was before."""
    imported: dict[str, str]
    """sha256 of an original to its picture's name."""
    present: dict[str, Picture]
    """sha256 of a file to the picture that it is, for those in the set."""
    aside: Counter[tuple[str, str]]
    """Name and sha256 of the copies in set_aside/."""
    number: int
    """Of the next new picture."""
    seen: dict[str, Picture] = field(default_factory=dict)
    """sha256 of the originals passed in this run, to the picture that stands for each."""
    new: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @cached_property
    def pixels(self) -> dict[str, Picture]:
        """Pixel hash to picture, for the set and the numbered pictures set aside; decoded only if one is new."""
        numbered = [Picture(p) for p in self.target.aside.values() if p.stem.isdecimal()]
        found = {}
        for picture in (*numbered, *self.target.pictures):
            with suppress(images.Unreadable):
                found[images.pixel_hash(images.load(picture.path))] = picture
        return found

    def take(self, original: Path) -> None:
        """Import one original, recognise it, or set a copy of it aside."""
        sha = images.sha256(original)
        here, known = self.present.get(sha), self.imported.get(sha)
        if here and here.name not in self.imported.values():  # put back by hand, or the record is gone
            if known is None:
                self.remember(original, here, sha)
            self.seen.setdefault(sha, here)
        elif sha in self.seen:
            self.put_aside(original, TWIN, "same bytes", rival=self.seen[sha])
        elif known is not None:
            self.seen[sha] = self.picture_called(known) or Picture(original)
        else:
            self.seen[sha] = self.decode(original, sha) or Picture(original)

    def decode(self, original: Path, sha: str) -> Picture | None:
        """Import an original that was never seen; None if it is set aside."""
        try:
            image = images.load(original)
        except images.Unreadable as error:
            self.put_aside(original, "unreadable", "unreadable", why=error.reason)
            return None
        side, least = min(image.size), self.settings.min_side
        if side < least:
            why = f"{image.width} x {image.height} pixels"
            self.put_aside(original, "too_small", "too small", score=side, threshold=least, why=why)
            return None
        looks = images.pixel_hash(image)
        twin = self.pixels.get(looks)
        if twin and twin.name in self.imported.values():
            self.put_aside(original, TWIN, "same pixels", rival=twin)
            return twin
        picture = twin or self.write(original, image)
        self.pixels[looks] = picture
        self.remember(original, picture, sha)
        if twin is None:
            self.tell_rest(original, picture)
        return picture

    def write(self, original: Path, image: Image.Image) -> Picture:
        """Write the caption first, so that a picture is never there without the text that came with it."""
        picture = Picture(self.folder / f"{self.number:04d}.png")
        self.folder.mkdir(parents=True, exist_ok=True)
        if (text := caption_beside(original)) is not None:
            picture.write_caption(text)
        images.save_png(image, picture.path)
        self.number += 1
        self.new.append(picture.name)
        return picture

    def remember(self, original: Path, picture: Picture, sha: str) -> None:
        prompt = synthetic_prompt(original)
        why = f"synthetic: {prompt}" if prompt else original.relative_to(source_folder(self.work)).as_posix()
        self.work.note(picture, "imported", "rename", before=sha, after=picture.name, why=why)
        if picture.sha256 != sha:
            self.work.note.derived(picture.path, original, "png")
        self.imported[sha] = picture.name

    def tell_rest(self, original: Path, picture: Picture) -> None:
        """Record what else a person should know of a new picture: a text of their own, frames left out."""
        if (text := picture.caption) is not None:
            told = "came beside the original"
            self.work.note(picture, "caption changed", BY_HAND, after=text, why=told)
        if (count := images.frames(original)) > 1:
            told = f"the first of {count} frames"
            self.work.note(picture, "flagged", "animated", score=count, threshold=1, why=told)
            self.lines.append(f"{original.name}: {told} is used")

    def put_aside(self, original: Path, reason: str, rule: str, **told: Any) -> None:
        """Copy an original to set_aside/ and record why, unless the copy is there from an earlier run."""
        rival: Picture | None = told.get("rival")
        why = told.get("why") or f"{rule} as {rival.name if rival else 'another'}"
        self.reasons[reason] += 1
        self.lines.append(f"{original.name}: set aside, {reason.replace('_', ' ')}: {why}")
        key = (original.name, images.sha256(original))
        if self.aside[key] > 0:
            self.aside[key] -= 1
            return
        self.work.note(Picture(original), "set aside", rule, **told)
        folder = self.target.root / ASIDE / reason
        folder.mkdir(parents=True, exist_ok=True)
        taken, stem, number = {p.stem for p in folder.iterdir()}, original.stem, 2
        while stem in taken:
            stem, number = f"{original.stem}~{number}", number + 1
        for suffix in (*CAPTIONS, original.suffix):
            if (beside := original.with_suffix(suffix)).is_file():
                with whole(folder / (stem + suffix)) as part:
                    shutil.copyfile(beside, part)

    def picture_called(self, name: str) -> Picture | None:
        return next((p for p in self.present.values() if p.name == name), None)


def next_number(work: Work, found: Set, folder: Path) -> int:
    """One more than any number in use, also by a picture that was removed or a caption that was left behind."""
    stems = [Path(name).stem for name in work.past.imported.values()] + [p.stem for p in folder.glob("*.txt")]
    return max(found.next_number(), 1 + max((int(s) for s in stems if s.isdecimal()), default=0))


def run(work: Work, settings: Settings) -> Result:
    """Take every original in natural order of its place under the source."""
    originals, found = sources(work), target_set(work, settings)
    if not originals and not found.pictures:
        way = f"lora make {work.place.name} --from FOLDER" if work.place.owned else "lora rename FOLDER --to SET"
        raise InputError(f"{source_folder(work)}: no pictures there; put some in, or: {way}")
    folder = target_folder(work, settings)
    job = Import(
        work,
        settings,
        folder,
        found,
        imported=dict(work.past.imported) if work.place.owned else {},
        present={p.sha256: p for p in found.pictures},
        aside=Counter(copies_aside(found.root)),
        number=next_number(work, found, folder),
    )
    for original in work.track(originals, "rename"):
        job.take(original)
    if job.reasons and not target_set(work, settings).pictures:
        told = "\n".join(f"    {line}" for line in job.lines[:20])
        raise InputError(f"{source_folder(work)}: none of the {len(originals)} files can be used:\n{told}")
    out = sum(job.reasons.values())
    said = [f"{len(job.new)} imported", f"{len(originals) - len(job.new) - out} there already"]
    if out:
        reasons = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in job.reasons.items())
        said.append(f"{out} set aside ({reasons})")
    data = {"imported": job.new, "set_aside": dict(job.reasons), "folder": str(folder)}
    return Result(f"rename: {', '.join(said)}", data, job.lines)


def copies_aside(root: Path) -> Iterator[tuple[str, str]]:
    """Name and sha256 of every file in set_aside/, under the name it had before it gave way to another."""
    for path in sorted((root / ASIDE).glob("*/*")):
        if path.is_file() and not path.name.startswith("."):
            stem, tilde, number = path.stem.rpartition("~")
            yield path.name, images.sha256(path)
            if tilde and number.isdecimal():
                yield stem + path.suffix, images.sha256(path)
