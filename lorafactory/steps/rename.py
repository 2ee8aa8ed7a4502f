"""Bring the originals into the set as NNNN.png: upright, in sRGB, each one once.

Reads source/ with its subfolders and never changes it. Numbers go on after the highest one in use, so a picture
keeps its name when others come later, and when it is converted again because settings changed; one that was imported
once is not imported again, whatever became of it. Longer sides than 2048 pixels are reduced, transparency is filled
with the background and kept in masks/, of animations the first frame is taken, and more than 64 megapixels are refused.
A text beside an original (`a.txt` or `a.caption`), or its line in a metadata.jsonl, becomes the picture's caption. A
set that came as a whole keeps its folders: 10_name with its number, and reg/. Originals that cannot be read,
are too small, or equal another one are copied to set_aside/.

\b
For example:
  lora rename anna                         loras/anna/source -> its training_images
  lora rename photos --to set              from any folder into another; acts at once
  lora rename photos --to set --trigger 4nna      into set/1_4nna, as kohya's tools want it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from lorafactory import dataset, images, sidecars
from lorafactory.colour import is_colour
from lorafactory.dataset import ASIDE, Picture, Set
from lorafactory.errors import InputError, Problem, SettingsError
from lorafactory.journal import UNDONE
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._conversion import LONGEST_PX, Conversion
from lorafactory.steps._import import MASKS, Import, copies_aside, masks_among

VERSION = 2
HEADER = ("trigger",)
AGAIN = f"brings the pictures back from {ASIDE}/{UNDONE}"


class Settings(StepSettings):
    """What is imported, and to where."""

    min_side: int = Field(256, ge=1)
    """Shortest side, in pixels, that an original must have; smaller ones are set aside. From 1."""
    full_size: bool = False
    """Keep pictures larger than 2048 pixels on their longer side, which are otherwise reduced to that."""
    background: str = "white"
    """What shows through where an original is transparent: a colour's name, or `#rrggbb`. The transparency itself is
    kept in masks/."""
    crop: Literal["none", "center"] = "none"
    """`center` cuts every picture to the square in its middle; buckets take other shapes as they are."""
    upscale_to: int = Field(0, ge=0, le=LONGEST_PX)
    """Enlarge pictures whose shorter side is smaller to so many pixels, up to 2048; 0 enlarges none. Guides disagree:
    it adds pixels, but no detail."""
    to: Path | None = None
    """Folder the pictures are written to. Needed for a folder that is not a LoRA's; must not lie inside it."""


# ---------------------------------------------------------------- where from, where to


def sources(work: Work) -> list[Path]:
    """The originals: all of source/, or of the folder itself; what was set aside there stays out."""
    folder = source_folder(work)
    found = [p for p in images.find_sources(folder) if ASIDE not in p.relative_to(folder).parts]
    masks = masks_among(found)
    return [p for p in found if p not in masks]


def source_folder(work: Work) -> Path:
    return work.originals if work.place.owned else work.place.root


def place_of(work: Work, path: Path) -> str:
    """A file's place under the source, as messages and the record name it."""
    return path.relative_to(source_folder(work)).as_posix()


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
    used = [s.folder for s in found.subsets if not s.reg and (s.folder != home or s.pictures)]
    word = work.trigger or (work.place.name if work.place.owned else "")
    return used[0] if used else home / f"1_{word}" if word else home


def sees(work: Work, settings: Settings) -> dict[str, str]:
    """The originals by their place under source/."""
    return {place_of(work, p): images.sha256(p) for p in sources(work)}


def check(work: Work, settings: Settings) -> list[Problem]:
    """Where to write, and lists of captions that cannot be read. An empty source/ is found when it is read."""
    problems = []
    if not is_colour(settings.background):
        message = f"rename.background = {settings.background!r}: no such colour"
        problems.append(Problem(message, 'background = "white", "gray" or "#808080"', error=SettingsError))
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
            sidecars.caption_beside(path, source_folder(work))
        except sidecars.NotText as error:
            message = f"{error.path} is not UTF-8 text, and {path.name} is imported without it"
            fix = "save it as UTF-8 before the import, or write it beside the picture in the set after it"
            problems.append(Problem(message, fix, fatal=False))
        except InputError as error:
            problems.append(Problem(str(error)))
    refused = images.find_refused(source_folder(work))
    return [*problems, *(Problem(f"{path}: not taken: {why}", fatal=False) for path, why in refused.items())]


# ---------------------------------------------------------------- the import


def run(work: Work, settings: Settings) -> Result:
    """Take every original in natural order of its place under the source."""
    originals, found, refused = sources(work), target_set(work, settings), images.find_refused(source_folder(work))
    if not originals and not found.pictures:
        way = f"lora make {work.place.name} --from FOLDER" if work.place.owned else "lora rename FOLDER --to SET"
        told = "".join(f"\n    {path.name}: {why}" for path, why in list(refused.items())[:20])
        raise InputError(f"{source_folder(work)}: no pictures there; put some in, or: {way}{told}")
    job = prepared(work, settings, found)
    job.go(originals)
    if job.reasons and not target_set(work, settings).pictures:
        told = "\n".join(f"    {line}" for line in job.lines[:20])
        raise InputError(f"{source_folder(work)}: none of the {len(originals)} files can be used:\n{told}")
    data = {
        "imported": job.new,
        "brought_back": job.back,
        "converted_again": job.renewed,
        "set_aside": dict(job.reasons),
        "refused": {place_of(work, path): why for path, why in refused.items()},
        "folder": str(job.folder),
    }
    return Result(f"rename: {', '.join(said(job, len(originals), len(refused)))}", data, job.lines)


def prepared(work: Work, settings: Settings, found: Set) -> Import:
    """Gather what is known before the first original is taken."""
    folder = target_folder(work, settings)
    numbered = {p.sha256: p for p in map(Picture, found.aside.values()) if p.path.stem.isdecimal()}
    present = {p.sha256: p for s in found.subsets for p in s.pictures}
    known = imported(work, present)
    return Import(
        work,
        source_folder(work),
        Conversion(settings.background, settings.full_size, settings.crop == "center", settings.upscale_to),
        settings.min_side,
        found,
        folder,
        root=work.place.images if work.place.owned else found.root,
        imported=known,
        present=present,
        content=numbered | present,
        aside=Counter(copies_aside(found.root)),
        number=next_number(known.values(), found, folder),
    )


def imported(work: Work, present: Mapping[str, Picture]) -> dict[str, str]:
    """sha256 of the originals that were imported, to names; of another folder's, those whose pictures are still there.

    Another folder may have been brought into several sets, so names alone say nothing.
    """
    if work.place.owned:
        return dict(work.past.imported)
    there = {p.name: sha for sha, p in present.items()}
    wrote = {name: sha for name, (sha, _) in work.past.conversions.items()}
    return {o: name for o, name in work.past.imported.items() if name in there and there[name] == wrote.get(name)}


def next_number(names: Iterable[str], found: Set, folder: Path) -> int:
    """One more than any number in use, also by a picture that was removed or a text or mask that was left behind."""
    stems = [Path(name).stem for name in names]
    stems += [p.stem for p in (*folder.glob("*.txt"), *(found.root / MASKS).glob("*.png"))]
    return max(found.next_number(), 1 + max((int(s) for s in stems if s.isdecimal()), default=0))


def said(job: Import, originals: int, refused: int) -> list[str]:
    """The parts of the summary."""
    out = sum(job.reasons.values())
    there = originals - len(job.new) - len(job.back) - len(job.gone) - out
    parts = [f"{len(job.new)} imported", f"{there} there already"]
    if job.renewed:
        parts[-1] += f" ({len(job.renewed)} converted again)"
    if job.back:
        parts.append(f"{len(job.back)} brought back from {ASIDE}/{UNDONE}")
    if job.gone:
        parts.append(f"{len(job.gone)} taken out since they were imported")
    if out:
        reasons = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in job.reasons.items())
        parts.append(f"{out} set aside ({reasons})")
    return [*parts, f"{refused} refused"] if refused else parts
