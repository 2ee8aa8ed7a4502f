"""A LoRA's set as the page shows it: every picture with its caption, its crop, and what steps and check think of it.

The folder is the truth, so each answer is read from it; only what a file says is remembered, by its time and size.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafactory import crops, images, past, settings, step, steps
from lorafactory.crops import Box
from lorafactory.dataset import ASIDE, Picture, hash_of
from lorafactory.errors import InputError, LoraError, SettingsError
from lorafactory.index import write_index
from lorafactory.journal import BLIND, TEXTS
from lorafactory.past import BY_HAND, STAYS
from lorafactory.report import refresh, why
from lorafactory.review import captions
from lorafactory.review.checking import Checking
from lorafactory.setcheck.pictures import outside
from lorafactory.step import Work
from lorafactory.store import Decision, Store
from lorafactory.training import buckets
from lorafactory.training.buckets import Fit
from lorafactory.workspace import LoraDir, Workspace

Json = dict[str, Any]
Stamp = tuple[int, int, int]
"""Time, size and inode of a file."""
JUDGES = ("dedupe", "filter")
"""Steps whose flags are proposals to take a picture out."""
TOLD = (crops.NAME, BLIND, "txt2img-images/scores.json", "txt2img-images/verdict.json")
"""Files outside of the set that the page shows something of."""


@dataclass(frozen=True)
class Seen:
    """What a picture's files say."""

    sha256: str
    size: tuple[int, int] | None
    """None: it cannot be read, `broken` says why."""
    broken: str
    text: str | None
    """The caption; None without a file."""
    text_sha256: str
    """Of the file's bytes; empty without a file."""
    garbled: bool


@dataclass
class Book:
    """One set, and what is known of it between two answers. Acts on it are one after the other."""

    space: Workspace
    place: LoraDir
    apply: bool
    cache: Path
    checking: Checking = field(default_factory=Checking)
    acting: threading.Lock = field(default_factory=threading.Lock)
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _seen: dict[Path, tuple[object, Seen]] = field(default_factory=dict)
    _settled: dict[str, Stamp] = field(default_factory=dict)
    """The files as they were when a person's changes were last recorded."""

    @property
    def work(self) -> Work:
        return Work(self.space, self.place, settings.effective(self.space, self.place), self.apply)

    @property
    def train(self) -> Any:
        """The settings of the training."""
        return step.settings_of(steps.get("train"), self.work.recipe)

    def check(self, stamps: object) -> None:
        """Let the check-up be done anew, in the background, if files are others than at the last one."""
        self.checking.begin(self.work, self.cache, stamps)

    # ------------------------------------------------------------ under the lock

    @contextmanager
    def held(self) -> Iterator[Store]:
        """Hold the LoRA's lock and the record, with all that a person did elsewhere recorded first."""
        if not self.apply:
            raise SettingsError(f"{self.place.root} is no LoRA's folder: `lora review {self.place.root} --apply` acts")
        self.space.root.mkdir(parents=True, exist_ok=True)
        with self.acting, step.locked(self.place), Store(self.space.record) as store:
            store.interrupt(self.place.recorded)
            if (now := self.stamps()) != self._settled:
                past.see_hand(self.work.set, self.place.recorded, store)
                self._settled = now
            yield store

    def settle(self, paths: Iterable[Path]) -> None:
        """These files are as an act left them; whatever else changed meanwhile was somebody else."""
        for path in paths:
            place, stamp = path.relative_to(self.place.root).as_posix(), stamp_of(path)
            self._settled.pop(place, None)
            if stamp:
                self._settled[place] = stamp

    def settle_all(self) -> None:
        self._settled = self.stamps()

    def stamps(self) -> dict[str, Stamp]:
        """Every file that the page shows something of, by its place: what tells that a folder was changed."""
        root, found = self.place.root, self.work.set
        folders = {s.folder for s in found.subsets} | set((root / ASIDE).glob("*/"))
        paths = [p for folder in folders if folder.is_dir() for p in folder.iterdir() if shown(p)]
        named = ((p, stamp_of(p)) for p in (*paths, *(root / name for name in TOLD)))
        return {p.relative_to(root).as_posix(): stamp for p, stamp in named if stamp}

    def stamps_and_acts(self) -> tuple[dict[str, Stamp], dict[str, Stamp]]:
        """The files as they are, and as acts have left them; never in the middle of one."""
        with self.acting:
            return self.stamps(), dict(self._settled)

    def write_pages(self) -> None:
        """Write the report and the index after a choice, in the background: the charts take seconds."""

        def write() -> None:
            with self._writing, suppress(LoraError, OSError):  # the next command writes them again
                refresh(self.work, anew=True)
                write_index(self.space)

        threading.Thread(target=write, name="pages", daemon=True).start()

    # ------------------------------------------------------------ what is shown

    def told(self, names: Iterable[str] | None = None) -> Json:
        """The whole set, with `as_of` what files it was read; or some of its pictures."""
        since = as_of(self.stamps()) if names is None else None  # before they are read: a later change is seen as one
        work, wanted = self.work, None if names is None else set(names)
        found, cut = work.set, self.crops(work)
        flags, phrases = self.flags(), captions.flagged(self.space, self.place)
        edits, train = captions.edits(work), step.settings_of(steps.get("train"), work.recipe)
        pictures = []
        every = [(p, s.repeats) for s in found.subsets if not s.reg for p in s.pictures]
        repeats = {p: number for p, number in every if wanted is None or p.name in wanted}
        for picture, seen in self.see(list(repeats)):
            box = cut.get(picture.name)
            told = as_json(picture, seen) | {"repeats": repeats[picture], "flags": flags.get(picture.name, [])}
            told |= trained(seen.size, box, train) | {"findings": self.checking.of.get(picture.name, [])}
            told |= captions.shown(seen.text, edits, phrases.get(picture.name, []))
            pictures.append(told)
        head = {"name": self.place.name, "trigger": work.trigger, "acts": self.apply, "limit": train.max_tokens}
        return head | {"as_of": since, "pictures": pictures, "aside": self.aside(found.aside, wanted)}

    def aside(self, found: Mapping[str, Path], wanted: set[str] | None) -> list[Json]:
        """What was taken out, with the decision that did it."""
        told = {d["image"]: d for d in self.asked("excluded", lora=self.place.recorded)}
        pictures = [Picture(p) for name, p in found.items() if wanted is None or name in wanted]
        return [
            as_json(p, seen) | {"reason": p.path.parent.name, "why": out_of(told.get(p.name))}
            for p, seen in self.see(pictures)
        ]

    def picture(self, name: str) -> Picture:
        """A picture of the set by its name, or one that was set aside; InputError if it is not there any more."""
        known = self.known()
        if name not in known:
            raise InputError(f"{name} is not there any more")
        return known[name]

    def known(self) -> dict[str, Picture]:
        """Every picture that an act may be about, by its name: those of the set first, then those set aside."""
        found = self.work.set
        return {name: Picture(path) for name, path in found.aside.items()} | {p.name: p for p in found.pictures}

    def by_sha(self, sha256: str) -> Path | None:
        """Where a file with these bytes lies that the page has shown, also if it was moved since."""

        def find() -> Path | None:
            return next((p for p, (_, seen) in list(self._seen.items()) if seen.sha256 == sha256 and p.is_file()), None)

        if (path := find()) is None:
            with self.acting:  # an act is moving it, or has just done so
                self.see(list(self.known().values()))
                path = find()
        return path

    def see(self, pictures: Sequence[Picture]) -> list[tuple[Picture, Seen]]:
        """Read many at once, and return those that are still there; who asks for the same meanwhile finds them read."""

        def read_one(picture: Picture) -> Seen | None:
            try:
                return self.seen(picture)
            except FileNotFoundError:  # taken out since the folder was listed
                return None

        with self._reading, ThreadPoolExecutor(os.cpu_count()) as pool:
            return [(p, seen) for p, seen in zip(pictures, pool.map(read_one, pictures), strict=True) if seen]

    def seen(self, picture: Picture) -> Seen:
        """What its files say, read again where one of them changed."""
        key = (stamp_of(picture.path), stamp_of(picture.caption_path))
        known = self._seen.get(picture.path)
        if known is None or known[0] != key:
            known = self._seen[picture.path] = (key, read(picture))
        return known[1]

    def crops(self, work: Work) -> dict[str, Box]:
        """The rectangles; none of a file that cannot be read, which `check` says."""
        try:
            return work.set.crops
        except InputError:
            return {}

    def flags(self) -> dict[str, list[Json]]:
        """Picture to what dedupe and filter propose, unless a person has answered."""
        if not self.space.record.is_file():
            return {}
        found: dict[str, list[Json]] = {}
        with Store(self.space.record, readonly=True) as store:
            recorded = self.place.recorded
            undone, last = store.undone(recorded), {name: store.last(recorded, name) for name in JUDGES}
            answers = [d for d in store.decisions(lora=recorded, rule=BY_HAND) if d.run not in undone]
            stays = {d.image: d.verdict in (past.BACK, STAYS) for d in answers if d.verdict != "kept"}
            for name, row in last.items():
                for d in store.decisions(run_id=row.id, verdict="flagged") if row and row.ulid not in undone else ():
                    if not stays.get(d.image):
                        found.setdefault(d.image, []).append(flag(name, d))
        return found

    def asked(self, question: str, **values: object) -> list[Json]:
        """The answer of the record; none where there is none."""
        if not self.space.record.is_file():
            return []
        with Store(self.space.record, readonly=True) as store:
            return store.ask(question, **values)


# ---------------------------------------------------------------- files


def shown(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (suffix in images.SUFFIXES or suffix in TEXTS) and not path.name.startswith(".")


def stamp_of(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def as_of(stamps: Mapping[str, Stamp]) -> str:
    """All of them in a word: another where any file came, went or was changed."""
    return hashlib.sha256(repr(sorted(stamps.items())).encode()).hexdigest()


def read(picture: Picture) -> Seen:
    size, broken = None, ""
    try:
        size = images.size(picture.path)
    except images.Unreadable as error:
        broken = error.reason
    data = picture.caption_path.read_bytes() if picture.caption_path.is_file() else None
    text_sha256 = hashlib.sha256(data).hexdigest() if data is not None else ""
    return Seen(hash_of(picture.path) or "", size, broken, picture.caption, text_sha256, picture.garbled)


# ---------------------------------------------------------------- as JSON


def as_json(picture: Picture, seen: Seen) -> Json:
    return {
        "name": picture.name,
        "sha": seen.sha256,
        "size": seen.size,
        "broken": seen.broken,
        "caption": seen.text,
        "text": seen.text_sha256,
        "garbled": seen.garbled,
    }


def trained(size: tuple[int, int] | None, box: Box | None, s: Any) -> Json:
    """The crop of a person, and the part of the picture that its bucket takes."""
    told: Json = {"crop": box, "fit": None}
    if size is None or (box and crops.outside(box, size)):
        return told
    part = box or (0, 0, *size)
    try:
        fit = buckets.fit(crops.size_of(part), s.resolution, s.min_bucket, s.max_bucket, s.bucket_step,
                          upscale=s.bucket_upscale)  # fmt: skip
    except InputError as error:
        return told | {"unfit": str(error).partition(": ")[2]}
    return told | {"fit": fit_json(fit, part)}


def fit_json(fit: Fit, part: Box) -> Json:
    return {
        "bucket": fit.bucket,
        "part": [round(x, 2) for x in fit.within(part)],
        "scale": fit.resized[0] / crops.size_of(part)[0],
        "lost": outside(fit),
    }


def flag(step_name: str, d: Decision) -> Json:
    return {
        "step": step_name,
        "rule": d.rule,
        "why": d.note or d.rule,
        "score": d.score,
        "threshold": d.threshold,
        "rival": d.rival,
    }


def out_of(row: Json | None) -> str:
    """Why a picture is out, in a line."""
    return why(Decision(**row)) if row else ""
