"""A zip that somebody made, unpacked with care: pictures and their texts only, within limits, never outside.

Everything is read from the zip's list before a byte is unpacked, and counted again while unpacking, as the list may
lie. What is wrong with a zip is said all at once, and then nothing of it is taken.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lorafactory import images
from lorafactory.errors import InputError

MOST_FILES = 20_000
MOST_FILE_MB = 512
"""Of one file, unpacked."""
MOST_TOTAL_GB = 20
MOST_RATIO = 200
"""Unpacked to packed, of the whole zip and of each file: pictures are packed already, so more is a bomb."""
SLACK_MB = 64
"""Unpacked size below which the ratio does not matter."""
LONGEST_NAME, DEEPEST = 200, 16
"""Bytes of a folder's or file's name, and folders in each other, that every file system takes."""
TAKEN = images.SUFFIXES | images.FOREIGN | {".txt", ".caption", ".json", ".jsonl"}
SETTINGS = "lora.toml"
ARCHIVES = frozenset((".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".cbz", ".cbr"))
_CHUNK = 1 << 20
_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]+$')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.IGNORECASE)
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, IndexError,
)  # fmt: skip
"""What Python's reader raises on bytes that are no zip; the last few for lengths and flags that make no sense."""


class NotTaken(InputError):  # noqa: N818  (said of a zip, not of the program)
    """A zip that is not unpacked. `code`: archive_broken, archive_encrypted, archive_unsafe or bomb."""

    def __init__(self, path: Path, code: str, wrong: list[str]) -> None:
        told = "".join(f"\n  - {line[:200]}" for line in wrong[:10])
        hint = "if you trust it, unpack it yourself, then --from FOLDER"
        if code == "archive_broken":
            super().__init__(f"{path} cannot be unpacked: {wrong[0]}; pack it again as a plain zip")
        else:
            super().__init__(f"{path} is not taken:{told}\n    {hint}")
        self.code = code
        self.wrong = wrong


class NoRoom(InputError):  # noqa: N818
    """The disk has no room for what a zip holds; once there is, the same can be tried again."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a temporary folder with a zip's pictures and texts; it is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="lorafactory-zip-") as folder:
        unpack(path, Path(folder))
        yield Path(folder)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip's pictures, texts and lora.toml below `folder`.

    NotTaken if it is broken, locked, too large or unsafe, NoRoom if the disk is too small, OSError from the disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = wanted(path, archive)
            size = sum(e.file_size for e in entries.values())
            if size > shutil.disk_usage(folder).free:
                raise NoRoom(f"{path}: {size >> 20} MB unpacked, and {folder} has no room for it")
            for place, entry in entries.items():
                target = folder.joinpath(*PurePosixPath(place).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(archive, entry, target)
    except _BROKEN as error:
        raise NotTaken(path, "archive_broken", [str(error) or type(error).__name__]) from error


def wanted(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Place in the folder to entry; NotTaken with all that is wrong with the zip."""
    found = {why: code for e in archive.infolist() for code, why in unsafe(e)} | whole(path, archive)
    places: dict[str, zipfile.ZipInfo] = {}
    taken: dict[str, str] = {}
    for entry in (e for e in archive.infolist() if not e.is_dir()):
        place = place_of(entry.filename)
        if place is None:
            continue
        key = same(place)
        if key in taken:
            found[f"{entry.filename!r}: there twice"] = "archive_unsafe"
        places[place] = entry
        taken[key] = place
    for key, place in taken.items():
        for folder in PurePosixPath(key).parents:
            if str(folder) in taken:
                found[f"{place!r}: {taken[str(folder)]!r} is a file and a folder"] = "archive_unsafe"
    if found:
        code = next(c for c in ("bomb", "archive_encrypted", "archive_unsafe") if c in found.values())
        raise NotTaken(path, code, list(found))
    return places


def whole(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """What is wrong with a zip as a whole, to its code."""
    entries = archive.infolist()
    total, packed = sum(e.file_size for e in entries), max(path.stat().st_size, 1)
    if len(entries) > MOST_FILES:
        return {f"{len(entries)} files, at most {MOST_FILES}": "bomb"}
    if total > MOST_TOTAL_GB << 30:
        return {f"{total >> 30} GB unpacked, at most {MOST_TOTAL_GB}": "bomb"}
    if total > (SLACK_MB << 20) and total > MOST_RATIO * packed:
        return {f"unpacks to {total // packed} times its size, at most {MOST_RATIO}: pictures do not": "bomb"}
    return {}


def unsafe(entry: zipfile.ZipInfo) -> Iterator[tuple[str, str]]:
    """Why an entry is not to be unpacked, each with its code: it leads outside, is no plain file, is locked ..."""
    name = entry.filename.replace("\\", "/")
    told, parts = f"{entry.filename[:150]!r}: ", name.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in entry.orig_filename:
        yield "archive_unsafe", told + "its place is outside the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield "archive_unsafe", told + "a link or a device, not a file"
    if any(len(p.encode(errors="replace")) > LONGEST_NAME for p in parts) or len(parts) > DEEPEST:
        yield "archive_unsafe", told + "a name that is too long"
    if not entry.is_dir() and Path(name).suffix.lower() in ARCHIVES:
        yield "archive_unsafe", told + "an archive in the archive"
    if entry.flag_bits & 1:
        yield "archive_encrypted", told + "locked with a password"
    if entry.file_size > MOST_FILE_MB << 20:
        yield "bomb", told + f"{entry.file_size >> 20} MB, at most {MOST_FILE_MB}"
    elif entry.file_size > (SLACK_MB << 20) and entry.file_size > MOST_RATIO * entry.compress_size:
        yield "bomb", told + f"unpacks to more than {MOST_RATIO} times its size"


def place_of(name: str) -> str | None:
    """Where an entry goes, with a name that every system takes; None for what is no picture and no text of one."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    hidden = any(p.startswith(".") or p in images.JUNK_FOLDERS for p in parts)
    if not parts or hidden or not (Path(parts[-1]).suffix.lower() in TAKEN or parts[-1] == SETTINGS):
        return None
    return "/".join(
        re.sub(_DEVICE, r"_\g<0>", _UNSAFE.sub("_", p)) if _DEVICE.match(p) else _UNSAFE.sub("_", p) for p in parts
    )


def same(place: str) -> str:
    """What two places have in common that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())


def copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one file, and no more bytes of it than the list said."""
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{entry.filename!r} holds more than it says")
            out.write(chunk)
