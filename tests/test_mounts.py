"""Where a folder is: the record is refused on a network and nowhere else, and drops there settle longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from lorafactory import mounts
from lorafactory.errors import RecordError
from lorafactory.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a table of mounts is not asked there")


class Mount(NamedTuple):
    """As psutil tells of one."""

    device: str
    mountpoint: str
    fstype: str
    opts: str = "rw"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put file systems, the root first, under the folder that is returned."""

    def mount(*kinds: str) -> Path:
        parts = [Mount("/dev/a", "/", kinds[0]), *(Mount("x", str(tmp_path), kind) for kind in kinds[1:])]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
        return tmp_path

    return mount


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.rclone", "ceph", "fuse.glusterfs", "webdav"],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_record_on_a_network_is_refused_and_nothing_is_made(mounted: Any, kind: str, readonly: bool) -> None:
    folder = mounted("ext4", kind)
    with pytest.raises(RecordError) as refused:
        Store(folder / "space" / "lorafactory.db", readonly=readonly)
    assert str(refused.value) == (
        f"{folder}/space/lorafactory.db is on a network drive ({kind}), where SQLite loses what is written.\n"
        "    --workspace FOLDER    on a disk of this machine; models and originals may stay where they are"
    )
    assert list(folder.iterdir()) == []
    assert mounts.settle(folder / "inbox") == mounts.REMOTE_SETTLE


@pytest.mark.parametrize(
    "kind",
    ["ext4", "btrfs", "xfs", "zfs", "tmpfs", "overlay", "fuseblk", "ntfs3", "exfat", "apfs", "hfs", "f2fs", "bcachefs"],
)
def test_a_record_on_a_disk_is_taken(mounted: Any, kind: str) -> None:
    folder = mounted("ext4", kind)
    Store(folder / "lorafactory.db").close()
    assert mounts.settle(folder / "inbox") == mounts.LOCAL_SETTLE


def test_what_other_programs_write_settles_longer_and_may_hold_a_record(mounted: Any) -> None:
    for kind in ("fuse.mergerfs", "fuse.fuse-overlayfs", "virtiofs"):
        folder = mounted("ext4", kind)
        Store(folder / "lorafactory.db").close()
        assert mounts.settle(folder) == mounts.REMOTE_SETTLE


def test_a_machine_that_runs_from_a_network_keeps_its_own_record(mounted: Any) -> None:
    Store(mounted("nfs4") / "lorafactory.db").close()


def test_of_what_is_mounted_at_one_place_the_last_counts(mounted: Any) -> None:
    with pytest.raises(RecordError, match="nfs4"):
        Store(mounted("ext4", "autofs", "nfs4") / "lorafactory.db")
    Store(mounted("nfs4", "nfs4", "ext4") / "lorafactory.db").close()


def test_a_link_to_a_network_drive_is_followed(mounted: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("home") / "lorafactory"
    link.symlink_to(mounted("ext4", "nfs4"))
    with pytest.raises(RecordError, match="network drive"):
        Store(link / "lorafactory.db")


def test_where_no_mount_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    Store(tmp_path / "lorafactory.db").close()


def test_a_make_on_a_network_copies_nothing(mounted: Any, lora: Any, space: Path) -> None:
    photos = space.parent / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"")
    mounted("ext4", "nfs4")
    said = lora("make", "anna", "--from", photos)
    assert (said.code, said.out) == (3, "") and "network drive (nfs4)" in said.err
    assert not space.exists()
