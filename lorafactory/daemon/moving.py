"""Moving what somebody dropped: nothing is deleted before all of it is where it goes, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from lorafactory.files import sync_folder


def move(source: Path, target: Path) -> None:
    """Rename, or copy to another file system and then delete; begun and broken off, the same call goes on with it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if not os.path.lexists(target):
            copy(source, target)
        remove(source)
    sync(target.parent)
    sync(source.parent)


def sync(folder: Path) -> None:
    """Make a rename durable, where the file system knows how: those of networks may not."""
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise


def copy(source: Path, target: Path) -> None:
    """Copy a file, link or folder, whole or not at all; pipes and devices have nothing to copy."""
    part = target.with_name(f".{target.name}.part")
    remove(part)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, part, symlinks=True, ignore=_special, copy_function=_copy_file)
    else:
        _copy_file(source, part)
    part.rename(target)


def _copy_file(source: str | Path, target: str | Path) -> None:
    shutil.copy2(source, target, follow_symlinks=False)
    if not Path(target).is_symlink():
        with Path(target).open("rb") as file:
            os.fsync(file.fileno())


def _special(folder: str, names: list[str]) -> list[str]:
    modes = {name: Path(folder, name).lstat().st_mode for name in names}
    return [n for n, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]


def remove(path: Path) -> None:
    """Remove a copy: a file, or a folder with all in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
