"""What the record remembers of a set, and what a person changed since: the folder is the truth, so it is read anew.

A difference between the folder and how the last run left it was made by a person. It is recorded once, as a decision
`by hand`, and steps leave it as it is. But a set whose folder is gone begins anew: that is no decision about each of
its pictures, and what a person did in the folder went with it. A folder that was emptied is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorafactory import crops, journal
from lorafactory.dataset import Set, hash_of, subset_of
from lorafactory.store import ANEW, NO, Change, Run, Store, tidy

BY_HAND = "by hand"
BACK, STAYS = "put back", "stays"
"""A person put a picture back, or said that it stays: no opinion takes it out."""
CROPPED, WHOLE = "cropped", "whole again"
"""A person cut out what is trained on, or took that back; says nothing of whether a picture is in the set."""
SYNTHETIC = "synthetic: "
"""Begins the note of an imported picture that was generated; the prompt follows."""


@dataclass(frozen=True)
class Past:
    """What the record remembers of this set."""

    imported: Mapping[str, str] = field(default_factory=dict)
    """sha256 of an original to the name of its picture, whatever became of it."""
    hand: Mapping[str, str] = field(default_factory=dict)
    """Picture name to what a person last did with it: removed, put back, set aside, added, changed."""
    hand_captions: frozenset[str] = frozenset()
    """Pictures whose caption a person wrote, changed or took away."""
    captions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Picture name to (sha256 of the image, key of the settings) its caption was made for."""
    conversions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Picture name to (sha256 of the image as it was written, how it was converted)."""
    synthetic: Mapping[str, str] = field(default_factory=dict)
    """Picture name to the prompt it was generated from."""
    repeats: Mapping[str, int] = field(default_factory=dict)
    """Word of a folder of the set to the number that `repeats` last gave it."""
    revoked: Mapping[str, str] = field(default_factory=dict)
    """sha256 of what may not be trained on any more, to the reason."""
    undone: Mapping[str, str] = field(default_factory=dict)
    """As `imported`, for imports that were taken back and are to be brought in again."""

    def stays(self, name: str) -> bool:
        """A person wants this picture in the set, whatever is thought of it."""
        return self.hand.get(name) in (BACK, STAYS)


def snapshot(pictures: Set, run: Run) -> None:
    """Record the set as this run leaves it, to tell later what a person changed."""
    for name, sha in pictures.hashes().items():
        run.made("picture", name, sha)
    for name, text in pictures.captions().items():
        run.made("caption", name, text_hash(text))
    if (cut := crops_hash(pictures)) is not None:
        run.made("crops", crops.NAME, cut)


def snapshot_in_part(pictures: Set, changes: Sequence[Change], run: Run) -> None:
    """Record how the set's files that changed are left; the run says in its settings that it tells no more."""
    left_by = told_of(changes)
    folders = {s.folder for s in pictures.subsets}
    away = {Path(p).with_suffix("") for p, left in left_by.items() if left is None and not journal.is_text(p)}
    texts = [p for p in left_by if journal.is_text(p) and Path(p).with_suffix("") not in away]
    some = any((pictures.root / p).parent in folders for p in texts)  # else nobody's caption, and nothing to look for
    owners = {p.caption_path: p for p in pictures.pictures} if some else {}

    def tell(role: str, name: str, left: str | None) -> None:
        run.made(role if left else NO + role, name, left or text_hash(""))

    for place, left in left_by.items():
        path = pictures.root / place
        if place == crops.NAME:
            tell("crops", place, left)
        elif owner := owners.get(path):
            tell("caption", owner.name, None if (text := owner.caption) is None else text_hash(text))
        elif (name := pictures.called(path)) and not journal.is_text(place):
            tell("picture", name, left)


def told_of(changes: Sequence[Change]) -> dict[str, str | None]:
    """Place to sha256 of all that is in these changes, as they left it; None where nothing is any more."""
    found: dict[str, str | None] = {c.before: None for c in changes if c.before}
    return found | {c.after: c.sha256_after for c in changes if c.after}


def crops_hash(pictures: Set) -> str | None:
    path = pictures.root / crops.NAME
    return hash_of(path) if path.is_file() else None


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def see_hand(pictures: Set, recorded: str, store: Store) -> list[str]:
    """Record once, as `by hand`, how the set differs from what the last run left; return it in words."""
    row = store.last_of(recorded)
    if row is None or row.id < store.begun(recorded):
        return []
    if is_gone(pictures) and store.edges(row.id, "out", "picture"):
        with store.run(recorded, ANEW, version=1, key="", settings={}):
            return [f"{pictures.root.name}: the folder of its set is gone, so the set begins anew"]
    left, texts, cut = (store.left(recorded, role) for role in ("picture", "caption", "crops"))
    now = {str(tidy(p.name)): p for p in pictures.pictures}
    aside = {str(tidy(name)) for name in pictures.aside}
    changes: list[tuple[str, str, str, str]] = []
    for name, was in left.items():
        if name not in now:
            changes.append((name, was, "set aside" if Path(name).name in aside else "removed", ""))
    for name, picture in now.items():
        if (sha := hash_of(picture.path)) is None:  # it may not be opened, so nothing can be said of it
            continue
        if name not in left:
            was_out = [d for d in store.decisions(lora=recorded, sha256=sha) if d.verdict in OUT]
            changes.append((name, sha, BACK if was_out else "added", ""))
        elif left[name] != sha:
            changes.append((name, sha, "changed", ""))
        text = picture.caption
        if name in left and (text_hash(text) if text is not None else None) != texts.get(name):
            changes.append((name, sha, "caption changed" if text is not None else "caption removed", text or ""))
    if (crop := crops_hash(pictures)) != cut.get(crops.NAME):
        changes.append((crops.NAME, crop or cut[crops.NAME], "changed", ""))
    if not changes:
        return []
    broke = any(run.status == "interrupted" and run.id > row.id for run in store.runs(recorded, limit=10))
    with store.run(recorded, BY_HAND, version=1, key="", settings={}) as run:
        for name, sha, verdict, text in changes:
            run.note(name, sha, verdict, whose(verdict, broke), after=text or None)
        snapshot(pictures, run)
    return [f"{name}: {verdict} {whose(verdict, broke)}" for name, _, verdict, _ in changes]


def is_gone(pictures: Set) -> bool:
    """True if no folder of the set is there, neither `12_word` nor pictures without one."""
    own = [s for s in pictures.subsets if not s.reg]
    return not any(s.pictures or s.folder == pictures.root or subset_of(s.folder) for s in own)


def whose(verdict: str, broke: bool) -> str:
    """Who did it: a person, unless a run broke off that may have moved pictures without a word."""
    return "by a run that broke off" if broke and verdict in ("set aside", "added", "changed") else BY_HAND


OUT = ("set aside", "removed")
_CAPTION = ("caption changed", "caption removed")


def remember(recorded: str, store: Store, *, again: bool = False) -> Past:
    """Read from the record what steps need to know of this set's past.

    Of a run that was taken back only this remains: what it imported is not imported again, unless `again` is true.
    """
    hand: dict[str, str] = {}
    hand_captions: set[str] = set()
    captions: dict[str, tuple[str, str]] = {}
    imported: dict[str, str] = {}
    taken_back: dict[str, str] = {}
    conversions: dict[str, tuple[str, str]] = {}
    synthetic: dict[str, str] = {}
    repeats: dict[str, int] = {}
    undone = store.undone(recorded)
    begun = store.begun(recorded)
    for d in store.decisions(lora=recorded):
        if d.run_id < begun or (d.run in undone and d.verdict != "imported") or d.verdict in (CROPPED, WHOLE):
            continue
        if again and d.run in undone and d.verdict == "imported":
            taken_back[d.before or ""] = d.image
        elif d.verdict in _CAPTION:  # by hand, or by edits that a person asked for
            hand_captions.add(d.image)
        elif d.rule == BY_HAND and d.verdict != "kept":  # steps say `kept` of what a person did
            hand[d.image] = d.verdict
        elif d.verdict == "captioned":
            captions[d.image] = (d.sha256, d.note or "")
            hand_captions.discard(d.image)
        elif d.verdict == "imported" and d.before:
            imported[d.before] = d.image
            conversions[d.image] = (d.sha256, "")
            if (d.note or "").startswith(SYNTHETIC):
                synthetic[d.image] = (d.note or "").removeprefix(SYNTHETIC)
        elif d.verdict == "converted":
            conversions[d.image] = (d.sha256, d.note or "")
        elif d.verdict == "repeated" and d.after:
            number, _, word = d.after.partition("_")
            repeats[word] = int(number)
    words = frozenset(hand_captions)
    return Past(imported, hand, words, captions, conversions, synthetic, repeats, store.revoked(), taken_back)
