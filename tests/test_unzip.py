"""A zip from anywhere: its pictures and texts come out, nothing leaves the folder, nothing fills the disk."""

from __future__ import annotations

import io
import shutil
import stat
import tempfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lorafactory import unzip
from lorafactory.errors import InputError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


def zip_of(path: Path, files: dict[str, bytes], **info: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(entry, key, value)
            archive.writestr(entry, data)
    return path


def places(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_pictures_and_texts_come_out_and_the_rest_stays(tmp_path: Path):
    files = {
        "10_anna/a.png": png(), "10_anna/a.txt": b"anna", "metadata.jsonl": b"{}", "Größe 1.png": png(),
        "__MACOSX/a.png": b"x", ".hidden.png": b"x", "run.exe": b"MZ", "sub\\b.png": png(), "ab:c.png": png(),
    }  # fmt: skip
    with unzip.unpacked(zip_of(tmp_path / "x.zip", files)) as folder:
        wanted = ["10_anna/a.png", "10_anna/a.txt", "Größe 1.png", "ab_c.png", "metadata.jsonl", "sub/b.png"]
        assert places(folder) == wanted
        assert (folder / "10_anna" / "a.png").read_bytes() == png()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../a.png", "a/../../a.png", "/a.png", "C:/a.png", "..\\a.png", "C:a.png"])
def test_a_place_outside_the_folder_is_refused(tmp_path: Path, name: str):
    path = zip_of(tmp_path / "x.zip", {"good.png": png(), name: png()})
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="outside the folder"):
        unzip.unpack(path, tmp_path / "in")
    assert places(tmp_path) == ["x.zip"]


@pytest.mark.parametrize(
    ("info", "why"),
    [({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "a link"), ({"external_attr": stat.S_IFIFO << 16}, "a link")],
)
def test_links_and_pipes_are_refused(tmp_path: Path, info: dict[str, int], why: str):
    with (
        pytest.raises(InputError, match=why),
        unzip.unpacked(zip_of(tmp_path / "x.zip", {"a.png": b"/etc/passwd"}, **info)),
    ):
        pass


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unzip, "SLACK_MB", 1)
    path = zip_of(tmp_path / "x.zip", {"a.png": bytes(8 << 20)})
    with pytest.raises(InputError, match=r"unpacks to \d+ times its size, at most 200"), unzip.unpacked(path):
        pass
    for limit, why in (("MOST_FILE_MB", "8 MB, at most 4"), ("MOST_TOTAL_GB", "0 GB unpacked")):
        monkeypatch.setattr(unzip, limit, 4 if limit == "MOST_FILE_MB" else 0)
        with pytest.raises(InputError, match=why), unzip.unpacked(path):
            pass
    monkeypatch.setattr(unzip, "MOST_FILES", 1)
    with (
        pytest.raises(InputError, match="2 files, at most 1"),
        unzip.unpacked(zip_of(tmp_path / "y.zip", {"a.png": b"", "b.png": b""})),
    ):
        pass


def test_a_list_that_lies_about_a_size_is_found_out(tmp_path: Path):
    path = zip_of(tmp_path / "x.zip", {"a.png": bytes(1 << 20)})
    data = path.read_bytes()
    size = (1 << 20).to_bytes(4, "little")
    path.write_bytes(data.replace(size, (100).to_bytes(4, "little")))  # in the file's head and in the list
    with pytest.raises(InputError, match=r"cannot be unpacked|is not taken"), unzip.unpacked(path):
        pass


def test_what_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "no.zip").write_text("no zip")
    whole = zip_of(tmp_path / "x.zip", {"a.png": png() * 50}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    broken = bytearray(whole)
    broken[60] ^= 0xFF
    (tmp_path / "broken.zip").write_bytes(broken)
    for name in ("no.zip", "cut.zip", "broken.zip"):
        with pytest.raises(InputError, match=rf"{name} cannot be unpacked"), unzip.unpacked(tmp_path / name):
            pass
    locked = bytearray(whole)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.find(mark) + at] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    twice = zip_of(tmp_path / "twice.zip", {"a.png": png(), "A.PNG": png()})
    for path, why in ((tmp_path / "locked.zip", "password"), (twice, "there twice")):
        with pytest.raises(InputError, match=why), unzip.unpacked(path):
            pass


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.png", "inner.zip"], "an archive in the archive"),
        (["\u0061\u0308.png", "\u00e4.png"], "there twice"),
        (["a:b.png", "a?b.png"], "there twice"),
        (["x.png", "x.png/b.png"], "a file and a folder"),
        (["a" * 300 + ".png"], "a name that is too long"),
        (["a/" * 20 + "a.png"], "a name that is too long"),
    ],
)
def test_names_that_some_system_does_not_take_are_refused(tmp_path: Path, names: list[str], why: str):
    path = zip_of(tmp_path / "x.zip", dict.fromkeys(names, png()))
    with pytest.raises(unzip.NotTaken, match=why) as refused:
        unzip.unpack(path, tmp_path)
    assert refused.value.code == "archive_unsafe"


def test_names_of_windows_devices_are_changed_and_settings_come_out(tmp_path: Path):
    (tmp_path / "in").mkdir()
    files = {"con.png": png(), "aux/LPT1.txt": b"x", "consul.png": png(), "lora.toml": b"", "other.toml": b""}
    unzip.unpack(zip_of(tmp_path / "x.zip", files), tmp_path / "in")
    assert places(tmp_path / "in") == ["_aux/_LPT1.txt", "_con.png", "consul.png", "lora.toml"]


def test_a_disk_without_room_is_no_fault_of_the_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = zip_of(tmp_path / "x.zip", {"a.png": png()})
    monkeypatch.setattr(unzip.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(unzip.NoRoom, match="no room"):
        unzip.unpack(path, tmp_path)


@given(st.data())
def test_bytes_that_are_wrong_anywhere_are_refused_or_do_not_matter(data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        path = zip_of(Path(folder) / "x.zip", {"a.png": png(), "b/c.txt": b"text"})
        spoiled = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(spoiled[: data.draw(st.integers(0, len(spoiled)))])
        with suppress(unzip.NotTaken), warnings.catch_warnings(action="ignore"), unzip.unpacked(path) as out:
            assert sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) <= len(png()) + 4
