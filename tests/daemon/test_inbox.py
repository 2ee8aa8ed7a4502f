"""The inbox: complete drops become sources and jobs, once each, and every other thing is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dropped import Desk, png, sha, write, zipped

from lorafactory import mounts, settings, step
from lorafactory.daemon import inbox as inboxes
from lorafactory.intake import copy_new


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "workspace")


def test_a_folder_becomes_a_source_and_one_job_and_the_inbox_is_empty(desk: Desk):
    drop = desk.put("anna", 1, 2)
    write(drop / "1.txt", "anna, smiling")
    write(drop / "notes.pdf", b"not of the set")
    assert desk.scan()[0].state == "settling"
    assert desk.settled()[-1].state == "taken"
    (kept,) = (desk.space.lora("anna").source / inboxes.KEPT).iterdir()
    assert desk.sources("anna") == [f".dropped/{kept.name}/anna/notes.pdf", "1.png", "1.txt", "2.png"]
    assert desk.jobs() == [("anna", "queued")]
    assert [p.name for p in desk.space.inbox.iterdir()] == [inboxes.CLAIMS]
    assert desk.claims() == []
    assert desk.settled() == []
    assert desk.jobs() == [("anna", "queued")]


def test_a_zip_is_unpacked_without_the_folder_around_and_kept(desk: Desk):
    files = {"set/10_4nna woman/a.png": png(1), "set/10_4nna woman/a.txt": b"4nna", "set/lora.toml": b"kind='object'"}
    zipped(desk.space.inbox / "anna.zip", files)
    desk.settled()
    assert desk.sources("anna")[1:] == ["10_4nna woman/a.png", "10_4nna woman/a.txt"]
    assert desk.sources("anna")[0].endswith("/anna.zip")
    assert 'kind = "object"' in desk.space.lora("anna").settings.read_text()
    zipped(desk.space.inbox / "bob.zip", {"10_b0b/a.png": png(2)})
    desk.settled()
    assert "10_b0b/a.png" in desk.sources("bob")


def test_more_pictures_the_next_day_come_to_the_same_lora_by_content(desk: Desk):
    desk.put("anna", 1, 2)
    desk.settled()
    with desk.store.transaction() as db:
        db.execute("UPDATE job SET state = 'done'")
    write(desk.put("anna", 2, 3) / "again.png", png(1))
    desk.settled()
    assert desk.sources("anna") == ["1.png", "2.png", "3.png"]
    assert desk.jobs() == [("anna", "done"), ("anna", "queued")]
    desk.put("anna", 4)
    desk.settled()
    assert desk.jobs() == [("anna", "done"), ("anna", "queued")], "one job trains them all"


def test_new_asks_for_another_lora(desk: Desk):
    desk.put("anna", 1)
    desk.settled()
    write(desk.put("anna", 2) / "lora.toml", "new = true")
    desk.settled()
    assert (desk.sources("anna"), desk.sources("anna-2")[1:]) == (["1.png"], ["2.png"])
    assert desk.jobs() == [("anna", "queued"), ("anna-2", "queued")]


def test_pictures_for_a_lora_that_is_being_trained_wait_for_its_end(desk: Desk):
    desk.put("anna", 1)
    desk.settled()
    with desk.store.transaction() as db:
        db.execute("UPDATE job SET state = 'running'")
    desk.put("anna", 2)
    with step.locked(desk.space.lora("anna")):
        assert desk.settled()[-1].state == "waiting"
    assert desk.scan(inboxes.PAUSE)[-1].why == "anna is being trained"
    with desk.store.transaction() as db:
        db.execute("UPDATE job SET state = 'done'")
    assert desk.scan(inboxes.PAUSE)[-1].state == "taken"
    assert desk.jobs() == [("anna", "done"), ("anna", "queued")]


def test_a_copier_that_pauses_too_long_and_makes_its_folder_anew_loses_nothing(desk: Desk):
    desk.put("anna", 1, 2, 3)
    desk.settled()
    desk.put("anna", 4, 5, 6)
    desk.settled()
    assert desk.sources("anna") == [f"{n}.png" for n in range(1, 7)]
    assert desk.jobs() == [("anna", "queued")]


@pytest.mark.parametrize("when", [631152000, 4070908800], ids=["1990", "2099"])
def test_times_in_files_say_nothing(desk: Desk, when: int):
    drop = desk.put("anna", 1)
    for path in (drop / "1.png", drop):
        os.utime(path, (when, when))
    desk.scan()
    assert desk.scan(3.0)[0].state == "settling"
    assert desk.settled()[-1].state == "taken"
    assert desk.sources("anna") == ["1.png"]


def test_a_drop_may_name_a_recipe_of_the_workspace(desk: Desk):
    write(desk.space.root / "recipes" / "soft.toml", "[train]\nrank = 8\n")
    write(desk.put("anna", 1) / "lora.toml", 'recipe = "soft"')
    assert desk.settled()[-1].state == "taken"
    told = settings.effective(desk.space, desk.space.lora("anna"))
    assert (told.header.recipe, told.table("train")["rank"]) == ("soft", 8)


def test_what_is_written_through_an_open_file_after_the_claim_settles_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    drop = desk.put("anna", 1)
    file = (drop / "2.png").open("wb")
    file.write(png(2)[:20])
    file.flush()
    read = inboxes.opening.read

    def slowly(*args: object):
        file.write(png(2)[20:])
        file.close()
        monkeypatch.setattr(inboxes.opening, "read", read)
        return read(*args)

    monkeypatch.setattr(inboxes.opening, "read", slowly)
    assert desk.settled()[-1].why == "it changed while it was read"
    assert desk.settled(60)[-1].state == "taken", "three times the pause that it made"
    assert (desk.space.lora("anna").source / "2.png").read_bytes() == png(2)


def test_what_is_written_while_it_is_copied_settles_again(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    drop = desk.put("anna", 1)
    with (drop / "2.png").open("wb", buffering=0) as file, monkeypatch.context() as patch:
        file.write(png(2)[:20])

        def slowly(folder: Path, place: object) -> int:
            new = copy_new(folder, place)
            file.write(png(2)[20:])
            return new

        patch.setattr(inboxes, "copy_new", slowly)
        assert desk.settled()[-1].why == "it changed while it was copied"
    assert desk.jobs() == []
    assert desk.settled(60)[-1].state == "taken"
    copies = [p.read_bytes() for p in desk.space.lora("anna").source.glob("2*.png")]
    assert sorted(copies, key=len) == [png(2)[:20], png(2)]


def test_names_are_made_safe_and_two_that_become_one_stay_two(desk: Desk):
    for number, name in enumerate(["con", "-rf", "a:b", "a?b", "Große Mädchen", "x" * 100]):
        desk.put(name, number)
    desk.settled()
    rows = desk.store.select("""SELECT name, lora FROM "drop" ORDER BY name""")
    assert dict(rows) == {
        "con": "_con", "-rf": "_-rf", "a:b": "a_b", "a?b": "a_b-2", "Große Mädchen": "Große Mädchen",
        "x" * 100: "x" * 64,
    }  # fmt: skip
    desk.put("a?b", 9)
    desk.settled()
    assert "9.png" in desk.sources("a_b-2")


def test_loose_things_are_told_and_stay(desk: Desk):
    write(desk.space.inbox / "me.jpg", png())
    write(desk.space.inbox / "notes.txt")
    write(desk.space.inbox / "Thumbs.db")
    os.mkfifo(desk.space.inbox / "pipe")
    assert {s.name: s.state for s in desk.settled()} == dict.fromkeys(("me.jpg", "notes.txt", "pipe"), "loose")
    assert len(list(desk.space.inbox.iterdir())) == 4
    assert desk.jobs() == []


def beside(first: Desk, root: Path) -> Desk:
    """Another workspace, whose inbox is the first one's."""
    root.mkdir()
    (root / "inbox").symlink_to(first.space.inbox)
    return Desk(root, first.clock)


def test_what_another_daemon_claimed_is_told_and_left_to_it(tmp_path: Path):
    first = Desk(tmp_path / "one")
    second = beside(first, tmp_path / "two")
    first.put("anna", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inboxes.opening, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            first.settled()
    assert second.settled(60)[-1].why.startswith("claimed by another record's lorafactory")
    assert second.jobs() == []
    first.start()
    assert first.settled()[-1].state == "taken"
    assert first.sources("anna") == ["1.png"]


def test_two_daemons_with_records_of_their_own_share_an_inbox(tmp_path: Path):
    first = Desk(tmp_path / "one")
    second = beside(first, tmp_path / "two")
    first.put("anna", 1)
    first.put("bob", 2)
    for _ in range(4):
        first.clock.now += 5
        first.inbox.settle, kept = one_only(first, "anna"), first.inbox.settle
        first.inbox.scan()
        first.inbox.settle = kept
        second.inbox.scan()
    assert first.jobs() == [("anna", "queued")]
    assert second.jobs() == [("bob", "queued")]


def one_only(desk: Desk, name: str):
    """The daemon was too slow for all other drops."""
    settle = desk.inbox.settle
    return lambda key, path, inode: settle(key, path, inode) if path.name == name else []


def test_the_inbox_in_use_by_another_process_of_the_workspace_is_left_alone(desk: Desk):
    desk.put("anna", 1)
    desk.settled(3.0)
    with inboxes.FileLock(desk.space.root / inboxes.LOCK).acquire():
        assert [s.state for s in desk.scan(20)] == ["waiting"]
    assert desk.sources("anna") == []


def test_a_full_disk_waits_and_heals(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    desk.put("anna", 1, 2)
    copied = shutil.copyfile

    def full(source: Path, target: Path):
        if source.name == "2.png":
            raise OSError(28, "No space left on device")
        return copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    assert desk.settled()[-1].why == "No space left on device"
    assert desk.quarantined() == {}
    monkeypatch.setattr(shutil, "copyfile", copied)
    assert desk.scan(inboxes.PAUSE)[-1].state == "taken"
    assert desk.sources("anna") == ["1.png", "2.png"]


def test_a_full_tmpfs_waits_and_heals(small_disk: Callable[[int], Path]):
    root = small_disk(1)
    desk = Desk(root)
    try:
        noise = png(1) + os.urandom(200_000)  # what follows a PNG's end does not matter to its reader
        write(desk.space.inbox / "anna" / "a.png", noise)
        with (root / "filler").open("wb", buffering=0) as filled, pytest.raises(OSError, match="No space"):
            while True:
                filled.write(bytes(4096))
        assert {s.state for s in desk.settled()} <= {"settling", "waiting"}
        assert not any((desk.space.loras).rglob("*.png"))
        (root / "filler").unlink()
        assert desk.settled(100)[-1].state == "taken"
        assert sha((desk.space.lora("anna").source / "a.png").read_bytes()) == sha(noise)
    finally:
        desk.store.close()


def test_where_the_inbox_is_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    partitions = [("/dev/vda", "/", "ext4", "rw"), ("nas:/pics", str(tmp_path), "nfs4", "rw")]
    made = [type("Part", (), dict(zip(("device", "mountpoint", "fstype", "opts"), p, strict=True))) for p in partitions]
    monkeypatch.setattr(mounts.psutil, "disk_partitions", lambda all: made)
    assert mounts.settle(tmp_path / "inbox") == mounts.REMOTE_SETTLE
    assert mounts.settle(Path("/somewhere")) == mounts.LOCAL_SETTLE


def test_nothing_of_it_imports_torch():
    code = (
        "import sys, lorafactory.daemon.inbox; print([m for m in ('torch', 'scipy', 'diffusers') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
