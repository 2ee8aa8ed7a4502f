"""When a drop is complete, on a clock that only the test moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dropped import png, sha, write, zipped
from hypothesis import given
from hypothesis import strategies as st

from lorafactory.daemon import stability
from lorafactory.daemon.stability import DEADLINE, MANIFEST, PATIENCE, READY, Settling, look, temporary


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    write(tmp_path / "anna" / "a.png", png())
    return tmp_path / "anna"


def watched(drop: Path, *moments: float, **told: object) -> Settling:
    seen = Settling(10.0, **told)
    for moment in moments:
        seen.see(look(drop), moment)
    return seen


def test_ten_quiet_seconds_and_three_looks(drop: Path):
    assert watched(drop, 0).waits(drop) is not None
    assert watched(drop, 0, 5, 9.9).waits(drop) is not None
    assert watched(drop, 0, 10).waits(drop) is not None, "a machine that slept between two looks has seen nothing"
    assert watched(drop, 0, 5, 10).waits(drop) is None
    assert watched(drop, 0, -50, -45, -40).waits(drop) is None, "and no clock that goes back stops it for ever"


def test_every_change_counts_and_a_slow_copy_is_given_three_times_its_pauses(drop: Path):
    seen = watched(drop, 0)
    for moment in (8, 16, 24):
        write(drop / "b.png", png() + bytes(moment))
        seen.see(look(drop), moment)
    for moment in (34, 40, 47.9):
        seen.see(look(drop), moment)
        assert seen.waits(drop) is not None
    seen.see(look(drop), 48)
    assert seen.waits(drop) is None


@pytest.mark.parametrize("change", ["touch", "grow", "add", "rename", "take", "turn", "empty folder"])
def test_no_change_escapes(drop: Path, change: str):
    write(drop / "b.png", png())
    before = look(drop)
    if change == "touch":
        os.utime(drop / "b.png", ns=(1, 1))
    elif change == "grow":
        told = (drop / "b.png").stat()
        write(drop / "b.png", png() + b"x")
        os.utime(drop / "b.png", ns=(told.st_atime_ns, told.st_mtime_ns))
    elif change == "add":
        write(drop / "sub" / "c.png", png())
    elif change == "rename":
        (drop / "b.png").rename(drop / "c.png")
    elif change == "take":
        (drop / "b.png").unlink()
    elif change == "turn":
        (drop / "b.png").unlink()
        (drop / "b.png").symlink_to(drop / "a.png")
    else:
        (drop / "sub").mkdir()
    assert look(drop) != before


@pytest.mark.parametrize("sign", [READY, "renamed in"])
def test_who_says_that_it_is_complete_waits_for_two_equal_looks_only(drop: Path, sign: str):
    if sign == READY:
        write(drop / READY)
    seen = watched(drop, 0, renamed_in=sign != READY)
    assert seen.waits(drop) is not None
    seen.see(look(drop), 0.1)
    assert seen.waits(drop) is None
    write(drop / "late.png", png())
    seen.see(look(drop), 0.2)
    assert seen.waits(drop) is not None


def test_a_manifest_says_exactly_what_there_has_to_be(drop: Path):
    other = png(1)
    write(drop / MANIFEST, f"{sha(png())}  a.png\n{sha(other).upper()} *sub/b.png\n")
    seen = watched(drop, 0, 20, 40)
    assert "1 files of manifest.sha256" in seen.waits(drop)[0]
    write(drop / "sub" / "b.png", other[:-1])
    seen.see(look(drop), 60)
    seen.see(look(drop), 61)
    assert "1 files of manifest.sha256" in seen.waits(drop)[0]
    write(drop / "sub" / "b.png", other)
    seen.see(look(drop), 62)
    seen.see(look(drop), 62.1)
    assert seen.waits(drop) is None
    assert stability.missing(drop) == []


def test_a_manifest_is_not_waited_for_for_ever_and_reaches_for_nothing_outside(drop: Path, tmp_path: Path):
    write(tmp_path / "out.png", png())
    lines = [f"{sha(png())}  {name}" for name in ("../out.png", str(tmp_path / "out.png"), "gone.png")]
    write(drop / MANIFEST, "\n".join([*lines, "hello"]))
    assert len(stability.missing(drop)) == 4
    assert watched(drop, 0, 1, DEADLINE - 1).waits(drop) is not None
    assert watched(drop, 0, 1, DEADLINE).waits(drop) is None


@pytest.mark.parametrize(
    "unfinished", ["a.jpg.part", "b.CRDOWNLOAD", ".a.png.Xy12ab", ".syncthing.a.png.tmp", ".rsync-partial"]
)
def test_unfinished_files_are_waited_for(drop: Path, unfinished: str):
    write(drop / unfinished / "a.png" if unfinished == ".rsync-partial" else drop / unfinished, png())
    assert unfinished in watched(drop, 0, 50, 5000).waits(drop)[0]


@pytest.mark.parametrize("left_beside", [".DS_Store", "Thumbs.db", "._a.png", "__MACOSX/a.png", "@eaDir/a", "a.txt~"])
def test_what_systems_leave_beside_is_not_waited_for(drop: Path, left_beside: str):
    write(drop / left_beside, "x")
    assert watched(drop, 0, 5, 10).waits(drop) is None


def test_what_does_not_look_whole_is_given_time(tmp_path: Path):
    (tmp_path / "new").mkdir()
    half = write(tmp_path / "half" / "a.png", png()[:-30]).parent
    empty = write(tmp_path / "empty" / "a.png", png()).parent
    write(empty / "b.png")
    archive = zipped(tmp_path / "x.zip", {"a.png": png()})
    cut = write(tmp_path / "cut.zip", archive.read_bytes()[:-30])
    for drop in (tmp_path / "new", half, empty, cut):
        assert watched(drop, 0, 100, PATIENCE - 1).waits(drop) is not None
        assert watched(drop, 0, 100, PATIENCE).waits(drop) is None
    drawn = write(tmp_path / "drawn" / "lora.toml", "[generate]\n").parent
    for drop in (archive, drawn):
        assert watched(drop, 0, 5, 10).waits(drop) is None


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"PK", b"", b"MZ\x90\x00", bytes(4096)])
def test_the_beginning_of_a_zip_is_given_time(tmp_path: Path, head: bytes):
    drop = write(tmp_path / "x.zip", head)
    assert watched(drop, 0, 100, PATIENCE - 1).waits(drop) is not None


@pytest.mark.parametrize("head", [b"\x8b\x01\xfe\x7c of a random kind", b"<html>not found</html>", b"Rar!\x1a\x07"])
def test_what_begins_as_no_zip_does_is_not_waited_for_once_it_has_settled(tmp_path: Path, head: bytes):
    drop = write(tmp_path / "x.zip", head)
    seen = watched(drop, 0, 5, 9)
    assert seen.waits(drop) is not None
    write(drop, head + b"and more")
    seen.see(look(drop), 12)
    seen.see(look(drop), 20)
    assert seen.waits(drop) is not None, "it grows"
    seen.see(look(drop), 50)
    assert seen.waits(drop) is None


def test_a_drop_with_links_is_never_read(drop: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(drop / "b.png")
    os.mkfifo(drop / MANIFEST)
    (drop / "lora.toml").symlink_to("/etc/passwd")
    monkeypatch.setattr(stability, "sound", None)
    monkeypatch.setattr(stability, "missing", None)
    assert {e.kind for e in look(drop)} == {"file", "special_file", "symlink"}
    assert watched(drop, 0, 5, 10).waits(drop) is None


def test_a_link_to_a_folder_above_is_not_followed(drop: Path):
    (drop / "loop").symlink_to(drop.parent)
    assert [e.path for e in look(drop)] == ["a.png", "loop"]
    with pytest.raises(OSError, match=r"symbolic links|not a file"):
        stability.sha256(drop / "loop")


@given(st.text(max_size=12))
def test_plain_names_are_never_temporary(name: str):
    assert not temporary(f"IMG {name.replace('.', '')}.jpg")
