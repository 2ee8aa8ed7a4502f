"""Which folders are on a network: no events come from there, and copies arrive with longer pauses."""

from __future__ import annotations

from pathlib import Path

import psutil

LOCAL_SETTLE, REMOTE_SETTLE = 10.0, 60.0
"""Seconds without a change that make a drop complete."""
REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "drvfs",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "webdav",
    "davfs",
    "sshfs",
    "virtiofs",
)
"""How the file system types begin whose files other machines write; `fuse.sshfs` and the like count too."""


def remote(path: Path) -> bool:
    """True if the file system that holds `path` is one that other machines write to."""
    parts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    if not parts:
        return str(path).startswith("\\\\")
    nearest = max(parts, key=lambda p: len(Path(p.mountpoint).parts))
    kind = nearest.fstype.lower()
    return kind.startswith((*REMOTE, "fuse.")) or "remote" in nearest.opts.split(",")


def settle(path: Path) -> float:
    """Seconds without a change that make a drop at `path` complete."""
    return REMOTE_SETTLE if remote(path) else LOCAL_SETTLE
