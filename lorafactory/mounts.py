"""Which folders are on a network: copies arrive there with longer pauses, and SQLite's record may break there."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from lorafactory.errors import RecordError

LOCAL_SETTLE, REMOTE_SETTLE = 10.0, 60.0
"""Seconds without a change that make a drop complete."""
UNC = "unc"
NETWORK = (
    UNC, "nfs", "cifs", "smb", "9p", "drvfs", "afs", "afpfs", "ceph", "glusterfs", "lustre", "beegfs", "webdav",
    "davfs", "sshfs", "curlftpfs", "rclone", "s3fs", "gcsfuse", "gvfsd",
)  # fmt: skip
"""How the types of file systems begin whose locks and shared memory do not reach from one machine to the next."""


def mount(path: Path) -> tuple[str, str]:
    """Where the file system that holds `path` is mounted, and its type, as `ext4` or `fuse.sshfs`.

    Of what is mounted at one place the last counts. Windows resolves the letter of a network drive to its UNC path;
    there nothing else is asked, as a drive that is away answers after seconds.
    """
    here = path.resolve()
    if os.name == "nt":
        return here.drive, UNC if here.drive.startswith("\\\\") else ""
    parts = [(p.mountpoint, p.fstype.lower()) for p in psutil.disk_partitions(all=True)]
    inside = [part for part in reversed(parts) if here.is_relative_to(part[0])]
    return max(inside, key=lambda part: len(Path(part[0]).parts), default=("", ""))


def remote(path: Path) -> bool:
    """True if other machines, or other programs, may write to the file system that holds `path`."""
    return mount(path)[1].startswith(("fuse.", "virtiofs", *NETWORK))


def refuse_network(record: Path) -> None:
    """RecordError if SQLite would keep its file on a network. What a machine runs from is its own, whatever it is."""
    place, kind = mount(record)
    if place != "/" and kind.removeprefix("fuse.").startswith(NETWORK):
        hint = "--workspace FOLDER    on a disk of this machine; models and originals may stay where they are"
        raise RecordError(f"{record} is on a network drive ({kind}), where SQLite loses what is written.\n    {hint}")


def settle(path: Path) -> float:
    """Seconds without a change that make a drop at `path` complete."""
    return REMOTE_SETTLE if remote(path) else LOCAL_SETTLE
