"""When a drop is complete: nothing but its own behaviour tells, seen at every scan on a clock that is passed in.

No file system says that a copy has ended. So the whole tree is compared from scan to scan, and what has not changed for
a while counts as complete; times in files say nothing, as copies and unpacked files bring old ones along. A person or
program that knows better says so: by a rename from a hidden or temporary name, by `_READY`, by `manifest.sha256`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar, cast

from lorafactory import images
from lorafactory.images import Unreadable

T = TypeVar("T")
READY = "_READY"
MANIFEST = "manifest.sha256"
"""As `sha256sum` writes it: complete is what has every file listed, with these bytes."""
SETTINGS = "lora.toml"
PATIENCE = 600.0
"""Seconds without a change after which also a drop counts as complete that does not look it: a folder that was just
made, no picture that decodes, an empty one, a zip that does not open. No gap makes it longer either."""
DEADLINE = 3600.0
"""Seconds without a change after which a manifest's files are not waited for any more."""
MOST_FILES = 50_000
_TEMPORARY = re.compile(
    r"\.(part|partial|crdownload|download|tmp|filepart|aria2|!qb|!ut)$|^\.syncthing\.|^\.rsync-partial$"
    r"|^\..+\.[a-z0-9]{6}$",  # rsync's own
    re.IGNORECASE,
)
_LISTED = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")


class Entry(NamedTuple):
    """What one look tells of a file or folder. `kind`: file, folder, symlink, hard_link or special_file."""

    path: str
    """Below the drop, with `/`; "" for a zip itself."""
    kind: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


Tree = tuple[Entry, ...]


def temporary(name: str) -> bool:
    """True for the names under which programs keep what they have not finished."""
    return bool(_TEMPORARY.search(name))


def entry(path: Path, within: str) -> Entry:
    """Look at one place, never through a link and without opening it."""
    told = path.lstat()
    kind = "special_file"
    if stat.S_ISDIR(told.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(told.st_mode) or getattr(told, "st_reparse_tag", 0) == getattr(
        stat, "IO_REPARSE_TAG_MOUNT_POINT", -1
    ):
        kind = "symlink"
    elif stat.S_ISREG(told.st_mode):
        kind = "hard_link" if told.st_nlink > 1 else "file"
    size = told.st_size if kind != "folder" else 0
    return Entry(within, kind, size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)


def look(root: Path) -> Tree:
    """The whole tree of a drop, sorted; at most MOST_FILES + 1 entries. What vanishes while looking is left out."""
    top = entry(root, "")
    if top.kind != "folder":
        return (top,)
    found: list[Entry] = []
    folders = [(root, "")]
    while folders and len(found) <= MOST_FILES:
        folder, within = folders.pop()
        for name in sorted(os.listdir(folder)):  # noqa: PTH208  (Path.iterdir is several times slower)
            try:
                seen = entry(folder / name, f"{within}{name}")
            except FileNotFoundError:
                continue
            found.append(seen)
            if seen.kind == "folder":
                folders.append((folder / name, f"{seen.path}/"))
    return tuple(sorted(found[: MOST_FILES + 1]))


def renamed(before: Tree, after: Tree) -> bool:
    """True if two looks differ by no more than a rename of the whole leaves behind."""
    return [e._replace(ctime_ns=0) for e in before] == [e._replace(ctime_ns=0) for e in after]


def sha256(path: Path) -> str:
    """Hash a file of a drop; OSError if it is no plain file, or a link where the system can tell while opening."""
    flags = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is not a file")
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(root: Path) -> list[str]:
    """What a drop's manifest lists and the drop does not have, or has with other bytes."""
    wrong = []
    for line in (root / MANIFEST).read_text(encoding="utf-8-sig", errors="replace").splitlines():
        match = _LISTED.fullmatch(line.strip())
        if match is None:
            wrong += [f"{MANIFEST}: {line[:80]!r} is no line of sha256sum"] if line.strip() else []
            continue
        listed = PurePosixPath(match[2].replace("\\", "/"))
        path = root.joinpath(*listed.parts)
        outside = listed.is_absolute() or ".." in listed.parts
        if outside or not path.is_file() or path.is_symlink() or sha256(path) != match[1].lower():
            wrong.append(match[2])
    return wrong


def refused(tree: Tree) -> list[Entry]:
    """What a drop may not have: links, pipes, devices. They are never opened, so no file of such a drop is."""
    return [e for e in tree if e.kind not in ("file", "folder")]


def sound(root: Path, tree: Tree) -> bool:
    """True if a drop looks whole: no picture is empty and one decodes, a zip opens, or there are settings alone.

    Also if it never can: what does not begin as a zip does is refused when it is read, so why wait.
    """
    if any(not e.size and Path(e.path).suffix.lower() in images.SUFFIXES for e in tree if e.kind == "file"):
        return False
    if not root.is_dir():
        return zipfile.is_zipfile(root) or no_zip(root)
    pictures = images.find_sources(root)
    if not pictures and not (root / SETTINGS).is_file():
        return False
    return not pictures or any(decodes(path) for path in pictures)


def no_zip(path: Path) -> bool:
    """True if a file begins as no zip does, however much of it is still to come.

    Zeros may be room that a download takes before it fills it, and a zip that unpacks itself begins with a program.
    """
    with path.open("rb") as file:
        head = file.read(4)
    return len(head) == 4 and any(head) and not head.startswith((b"PK", b"MZ", b"#!", b"\x7fELF"))


def decodes(path: Path) -> bool:
    """True if a picture can be read to its last pixel: half a JPEG passes every cheaper test."""
    try:
        images.load(path)
    except Unreadable:
        return False
    return True


@dataclass
class Settling:
    """How one drop behaved so far. `see` it at every scan, then ask what it `waits` for."""

    settle: float
    """Seconds without a change that make it complete."""
    renamed_in: bool = False
    """It came by a rename from a name that says unfinished, so it is complete."""
    tree: Tree | None = None
    looks: int = 0
    """Equal ones in a row."""
    quiet: float = 0.0
    """Seconds in which it was seen not to change."""
    gap: float = 0.0
    """The longest pause after which it went on growing, in seconds."""
    seen: float = 0.0
    _judged: dict[str, object] = field(default_factory=dict)
    """What is costly to find out, for the tree as it stands."""

    def see(self, tree: Tree, now: float) -> None:
        """Take a look into account; `now` is in seconds of a clock that nobody sets."""
        passed = max(0.0, now - self.seen) if self.tree is not None else 0.0
        if tree == self.tree:
            self.looks += 1
            self.quiet += passed
        else:
            self.renamed_in = self.renamed_in and self.tree is None
            self.gap = max(self.gap, self.quiet + passed) if self.tree else self.gap
            self.tree, self.looks, self.quiet, self._judged = tree, 1, 0.0, {}
        self.seen = now

    def follow(self, tree: Tree) -> None:
        """Go on with the same drop after it was claimed, or begin anew if it changed meanwhile."""
        if self.tree is not None and renamed(self.tree, tree):
            self.tree = tree
        else:
            self.see(tree, self.seen)

    def waits(self, root: Path) -> tuple[str, float] | None:
        """What it waits for, in words, and for how many seconds at least; None if it is complete."""
        tree = self.tree or ()
        names = {e.path for e in tree if e.kind == "file"}
        if self.looks < 2:
            return "new, or changed a moment ago", self.needs(root, 0.0)
        if self.renamed_in or READY in names:
            return None
        unfinished = next((e.path for e in tree if any(map(temporary, e.path.split("/")))), None)
        if unfinished:
            return f"{unfinished} is not finished; delete it if it was broken off", self.settle
        if MANIFEST in names and self.quiet < DEADLINE and not refused(tree):
            lacks = self._once("lacks", lambda: missing(root))
            return (f"{len(lacks)} files of {MANIFEST} are not there yet", DEADLINE - self.quiet) if lacks else None
        left = self.needs(root, self.quiet) - self.quiet
        if self._judged.get("sound") is False and left > 0:
            return "no whole picture in it yet, or an empty one", left
        if left > 0 or self.looks < 3:  # a machine that slept between two looks has seen nothing
            return "copied, as it seems; waiting for it to stay as it is", max(left, 0.0)
        return None

    def needs(self, root: Path, quiet: float) -> float:
        """Seconds without a change that make it complete; looks into files only once the shortest time is over."""
        least = max(self.settle, min(3 * self.gap, PATIENCE))
        if quiet < least or refused(self.tree or ()):
            return least
        return least if self._once("sound", lambda: sound(root, self.tree or ())) else max(least, PATIENCE)

    def _once(self, what: str, find: Callable[[], T]) -> T:
        if what not in self._judged:
            self._judged[what] = find()
        return cast(T, self._judged[what])
