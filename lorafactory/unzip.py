"""A zip that somebody made, unpacked with care: pictures and their texts only, within limits, never outside.

Everything is read from the zip's list before a byte is unpacked, and counted again while unpacking, as the list may
lie. What is wrong with a zip is said all at once, and then nothing of it is taken.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
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
"""Unpacked to packed, of the whole zip: pictures are packed already, so more is a bomb."""
SLACK_MB = 64
"""Unpacked size below which the ratio does not matter."""
TAKEN = images.SUFFIXES | images.FOREIGN | {".txt", ".caption", ".json", ".jsonl"}
_CHUNK = 1 << 20
_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]+$')


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a temporary folder with a zip's pictures and texts; it is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="lorafactory-zip-") as folder:
        unpack(path, Path(folder))
        yield Path(folder)


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip's pictures and texts below `folder`; InputError if it is broken, locked, too large or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = wanted(path, archive)
            for place, entry in entries.items():
                target = folder.joinpath(*PurePosixPath(place).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(archive, entry, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be unpacked: {error}; pack it again as a plain zip") from error


def wanted(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Place in the folder to entry; InputError that lists all that is wrong with the zip."""
    entries = [e for e in archive.infolist() if not e.is_dir()]
    wrong = [f"{e.filename!r}: {why}" for e in archive.infolist() if (why := unsafe(e))]
    if len(entries) > MOST_FILES:
        wrong.append(f"{len(entries)} files, at most {MOST_FILES}")
    total, packed = sum(e.file_size for e in entries), max(path.stat().st_size, 1)
    if total > MOST_TOTAL_GB << 30:
        wrong.append(f"{total >> 30} GB unpacked, at most {MOST_TOTAL_GB}")
    elif total > (SLACK_MB << 20) and total > MOST_RATIO * packed:
        wrong.append(f"unpacks to {total // packed} times its size, at most {MOST_RATIO}: pictures do not")
    elif total > shutil.disk_usage(tempfile.gettempdir()).free:
        wrong.append(f"{total >> 20} MB unpacked, and {tempfile.gettempdir()} has no room for it")
    found: dict[str, zipfile.ZipInfo] = {}
    taken: set[str] = set()
    for entry in entries:
        place = place_of(entry.filename)
        if place and place.casefold() in taken:
            wrong.append(f"{entry.filename!r}: there twice")
        elif place:
            found[place] = entry
            taken.add(place.casefold())
    if wrong:
        told = "".join(f"\n  - {line[:200]}" for line in wrong[:10])
        raise InputError(f"{path} is not taken:{told}\n    if you trust it, unpack it yourself, then --from FOLDER")
    return found


def unsafe(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry is not to be unpacked: it leads outside, is no plain file, is locked or too large."""
    name = entry.filename.replace("\\", "/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\0" in entry.orig_filename:
        return "its place is outside the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device, not a file"
    if entry.flag_bits & 1:
        return "locked with a password"
    if entry.file_size > MOST_FILE_MB << 20:
        return f"{entry.file_size >> 20} MB, at most {MOST_FILE_MB}"
    return None


def place_of(name: str) -> str | None:
    """Where an entry goes, with a name that every system takes; None for what is no picture and no text of one."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    hidden = any(p.startswith(".") or p in images.JUNK_FOLDERS for p in parts)
    if not parts or hidden or Path(parts[-1]).suffix.lower() not in TAKEN:
        return None
    return "/".join(_UNSAFE.sub("_", p) for p in parts)


def copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one file, and no more bytes of it than the list said."""
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{entry.filename!r} holds more than it says")
            out.write(chunk)
