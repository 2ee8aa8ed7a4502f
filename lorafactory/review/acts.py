"""What a person does to a set on the page. Each act is a run of step `review`, which `why` tells and `undo` takes back.

With every act comes what the page showed of its files, by hash. A file that is another by now is not touched: the act
is refused as a whole, and the answer says how the files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lorafactory import crops, dataset, images, journal, past, step, steps, undoing
from lorafactory.crops import Box
from lorafactory.daemon import asking
from lorafactory.dataset import Picture
from lorafactory.errors import InputError
from lorafactory.files import write_whole
from lorafactory.note import Note
from lorafactory.past import BACK, BY_HAND, CROPPED, STAYS, WHOLE
from lorafactory.review import saves
from lorafactory.review.book import Book
from lorafactory.store import PART, Run, Store
from lorafactory.undoing import REVIEW
from lorafactory.workspace import safe_name

NAMED = 3
"""Pictures that the words for an act name."""


class Conflict(InputError):  # noqa: N818  (said of files, not of the program)
    """What the page showed is not what is on disk."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"changed on disk since it was shown: {some(names)}")
        self.names = list(names)


@dataclass(frozen=True)
class Shown:
    """A picture as the page showed it; what is None is not looked at."""

    name: str
    sha: str | None = None
    """Of the picture's bytes."""
    text: str | None = None
    """Of the caption's; empty where there was none."""


@dataclass
class Deed:
    """An act in progress."""

    run: Run
    note: Note
    paths: list[Path] = field(default_factory=list)
    """Every file that it touches, where it was and where it is."""

    def touches(self, picture: Picture) -> None:
        self.paths += [picture.path, picture.caption_path]


@contextmanager
def deed(book: Book, store: Store, act: str, said: str, pictures: Iterable[Picture], *more: Path) -> Iterator[Deed]:
    """Record an act on these pictures and files, with what it changed, also if it breaks off half-way."""
    root, recorded = book.place.root, book.place.recorded
    told = {"act": act, "said": said, **({PART: True} if store.last_of(recorded) else {})}
    with store.run(recorded, REVIEW, version=1, key="", settings=told) as run:
        found = Deed(run, Note(run), list(more))
        for picture in pictures:
            found.touches(picture)
        before = journal.look_at(root, found.paths)
        try:
            yield found
        finally:
            changes = journal.differences(before, journal.look_at(root, found.paths))
            for change in changes:
                run.changed(change)
            if told.get(PART):
                past.snapshot_in_part(book.work.set, changes, run)
            else:
                past.snapshot(book.work.set, run)
            book.settle(found.paths)


def fresh(book: Book, shown: Sequence[Shown]) -> list[Picture]:
    """The pictures, if all are as they were shown; Conflict names those that are not."""
    known, found = book.known(), []
    for one in shown:
        for picture, seen in book.see([known[one.name]] if one.name in known else []):  # another name is nobody's path
            if one.sha in (None, seen.sha256) and one.text in (None, seen.text_sha256):
                found.append(picture)
    if len(found) < len(shown):
        as_shown = {picture.name for picture in found}
        raise Conflict([one.name for one in shown if one.name not in as_shown])
    return found


def some(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


# ---------------------------------------------------------------- in the set, and out


def set_aside(book: Book, shown: Sequence[Shown], reason: str) -> str:
    """Move pictures with their captions to set_aside/<reason>/."""
    with book.held() as store:
        pictures, folder = fresh(book, shown), safe_name(reason)
        said = f"set aside {some([p.name for p in pictures])}: {reason}"
        with deed(book, store, "set aside", said, pictures) as done:
            for picture in pictures:
                done.note(picture, "set aside", BY_HAND, why=reason)
                done.touches(Picture(dataset.set_aside(book.place.root, picture, folder)))
    return said


def put_back(book: Book, shown: Sequence[Shown]) -> str:
    """Move pictures that were set aside to where they were in the set."""
    with book.held() as store:
        pictures = fresh(book, shown)
        said = f"put back {some([p.name for p in pictures])}"
        with deed(book, store, "put back", said, pictures) as done:
            for picture in pictures:
                folder = home(book, store, picture)
                folder.mkdir(parents=True, exist_ok=True)
                moved = Picture(dataset.move(picture, folder))
                done.touches(moved)
                name = book.work.set.called(moved.path) or moved.name
                done.run.note(name, moved.sha256, BACK, BY_HAND)
    return said


def home(book: Book, store: Store, picture: Picture) -> Path:
    """The set's folder that a picture was taken out of, by its word if its repeats are others now; else the first."""
    place = picture.path.relative_to(book.place.root).as_posix()
    folders = [s.folder for s in book.work.set.subsets if not s.reg]
    for row in store.ask("moved", lora=book.place.recorded, place=place):
        was = (book.place.root / row["place"]).parent
        word = was.name.partition("_")[2]
        for folder in folders:
            if folder == was or (word and folder.name.partition("_")[2] == word):
                return folder
    return folders[0] if folders else book.place.images / f"1_{book.work.trigger or book.place.name}"


def keep(book: Book, shown: Sequence[Shown]) -> str:
    """Refuse what dedupe and filter propose: these pictures stay, whatever is thought of them from now on."""
    with book.held() as store:
        pictures, flags = fresh(book, shown), book.flags()
        said = f"keep {some([p.name for p in pictures])}"
        with deed(book, store, "keep", said, pictures) as done:
            for picture in pictures:
                why = "; ".join(flag["why"] for flag in flags.get(picture.name, []))
                done.note(picture, STAYS, BY_HAND, why=why or None)
    return said


# ---------------------------------------------------------------- crops


def crop(book: Book, shown: Shown, was: Box | None, box: Box | None) -> str:
    """Cut out what is trained on, or take that back; the picture itself stays as it is."""
    with book.held() as store:
        (picture,) = fresh(book, [shown])
        size, now = images.size(picture.path), book.work.set.crops.get(picture.name)
        if now != was:
            raise Conflict([picture.name])
        box = None if box == (0, 0, *size) else box
        if box and (crops.outside(box, size) or min(*box, box[2] - box[0] - 1, box[3] - box[1] - 1) < 0):
            raise InputError(f"{list(box)} is no part of {picture.name}, which has {size[0]}x{size[1]} pixels")
        said = f"{'crop' if box else 'crop taken off'} {picture.name}"
        with deed(book, store, "crop", said, [], book.place.root / crops.NAME) as done:
            crops.write(book.place.root, {picture.name: box})
            before, after = (str(list(b)) if b else None for b in (was, box))
            done.note(picture, CROPPED if box else WHOLE, BY_HAND, before=before, after=after)
    return said


# ---------------------------------------------------------------- captions


def write_captions(book: Book, texts: Mapping[str, tuple[str, str]], said: str) -> str:
    """Write captions as typed: picture to the hash of what was shown and the new text. Equal ones are left alone."""
    with book.held() as store:
        pictures = fresh(book, [Shown(name, text=sha) for name, (sha, _) in texts.items()])
        unread = [p.name for p in pictures if p.garbled]
        if unread:
            raise InputError(f"{some(unread)}: the caption is not UTF-8 text; save it as UTF-8 first")
        changed = [p for p in pictures if p.caption != texts[p.name][1].strip()]
        if not changed:
            return "nothing to change"
        with deed(book, store, "caption", said, changed) as done:
            for picture in changed:
                before, after = picture.caption, texts[picture.name][1].strip()
                picture.write_caption(after)
                done.note(picture, "caption changed", BY_HAND, before=before, after=after)
    return said


# ---------------------------------------------------------------- saves


def choose(book: Book, save: str, sha256: str) -> str:
    """Choose a save by hand, as `lora pick NAME SAVE` does; it must be the one that was shown."""
    with book.held() as store:
        work = book.work
        settings = saves.settings_for(work, save, sha256)
        # forced: a choice that was taken back may be made anew
        result = step.perform(steps.get("pick"), work, settings, store, force=True)
        book.settle_all()
    book.write_pages()
    return result.summary.removeprefix("pick: ")


def keep_ranking(book: Book, document: bytes, said: str, numbers: Mapping[str, float]) -> str:
    """Write down what a person found of the saves without knowing which is which."""
    path = book.place.root / journal.BLIND
    with book.held() as store, deed(book, store, "blind", said, [], path) as done:
        write_whole(path, document)
        for order, (name, strength) in enumerate(numbers.items()):
            done.run.metric(order, f"blind {name}", strength)
    return said


# ---------------------------------------------------------------- the way back


def undo(book: Book) -> tuple[str, list[str]]:
    """Take back the last act of the page, and say of which pictures; what a command did since is for `lora undo`."""
    with book.held() as store:
        work = book.work
        rows = undoing.standing(work, store)
        ours = [r for r in rows[:1] if r.step in (REVIEW, "pick", asking.STEP)]
        if not ours:
            last = f"the last thing done was {rows[0].step}; lora undo {book.place.name} takes it back" if rows else ""
            raise InputError(last or "nothing was done here that could be taken back")
        result = undoing.undo(work, store)
        names = sorted({d.image for d in store.decisions(run_id=ours[0].id)})
        book.settle_all()
    if result.data["step"] == "pick":
        book.write_pages()
    return result.summary.removeprefix("undo: ").partition(";")[0], names
