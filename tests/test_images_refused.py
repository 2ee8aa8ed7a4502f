"""What cannot become a picture is refused by name and reason, before it costs anything, and never hangs the rest."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile
from test_images import drawn

from lorafactory import images


def reason(path: Path) -> str:
    with pytest.raises(images.Unreadable) as caught:
        images.load(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


# ---------------------------------------------------------------- no files


@pytest.mark.skipif(os.name == "nt", reason="needs pipes, and the right to make links")
def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path):
    folder, outside = tmp_path / "photos", tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    drawn().save(folder / "a.png")
    drawn().save(outside / "b.png")
    (folder / "link.png").symlink_to(outside / "b.png")
    (folder / "nowhere.png").symlink_to(outside / "missing.png")
    (folder / "albums").symlink_to(outside)
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as plug:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path must be short
        plug.bind("plug.png")
        os.chdir(before)
        refused = {p.name: why for p, why in images.find_refused(folder).items()}
        assert [p.name for p in images.find_sources(folder)] == ["a.png"]
    link = "a link, which is not followed: put the file itself there"
    assert refused == {
        "albums": link,
        "link.png": link,
        "nowhere.png": link,
        "pipe.jpg": "not a file but a pipe",
        "plug.png": "not a file but a device or socket",
    }
    assert "pipe" in reason(folder / "pipe.jpg")


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without chmod, which stops neither root nor Windows."""
    for name in ("a.png", "locked.png", "closed/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        drawn().save(tmp_path / name)

    def scandir(path: object) -> object:
        if Path(str(path)).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)  # type: ignore[arg-type]

    def opening(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)  # type: ignore[arg-type]

    real_scandir, real_open = os.scandir, Path.open
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "open", opening)
    assert [p.name for p in images.find_sources(tmp_path)] == ["a.png"]
    assert {p.name: why for p, why in images.find_refused(tmp_path).items()} == {
        "closed": "a folder that cannot be opened",
        "locked.png": "cannot be opened: Permission denied",
    }


# ---------------------------------------------------------------- no pictures


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "avif", "mpo", "tiff", "heic"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float):
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        from pillow_heif import from_pillow

        from_pillow(drawn(64, 64)).save(path)
    else:
        drawn(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert "truncated" in reason(path) or (suffix == "tiff" and "broken" in reason(path))


def test_what_is_no_picture_says_what_it_is(tmp_path: Path):
    cases = {
        "text.png": (b"just some words\n", "not an image: text"),
        "umlaut.jpg": ("Grüße, große Straße ".encode() * 500, "not an image: text"),
        "empty.png": (b"", "empty file"),
        "paper.jpg": (b"%PDF-1.7 ...", "not an image: PDF"),
        "film.jpg": (b"\0\0\0\x18ftypisom" + bytes(64), "not an image: video"),
        "noise.png": (bytes(range(256)) * 4, "not an image"),
        "stub.png": (b"\x89PNG\r\n\x1a\n", "truncated"),
        "raw.nef": (b"II*\0" + bytes(64), ".nef is not read: export it as PNG or JPEG"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert reason(tmp_path / name).startswith(said), name
    assert "cannot be opened" in reason(tmp_path / "missing.png")


def png_head(side: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    head = b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + struct.pack(">I", zlib.crc32(chunk))
    return head + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def claiming(name: str, side: int) -> bytes:
    """A small file of a format, whose header claims `side` pixels each way."""
    buffer, picture = io.BytesIO(), Image.new("RGB", (76, 78), "red")
    if name == "HEIF":
        from pillow_heif import from_pillow

        from_pillow(picture).save(buffer)
    else:
        picture.save(buffer, name)
    data = buffer.getvalue()
    small, large = {
        "JPEG": (struct.pack(">HH", 78, 76), struct.pack(">HH", side, side)),
        "GIF": (struct.pack("<HH", 76, 78), struct.pack("<HH", side, side)),
        "BMP": (struct.pack("<II", 76, 78), struct.pack("<II", side, side)),
        "TIFF": (struct.pack("<HII", 4, 1, 76), struct.pack("<HII", 4, 1, side)),
        "WEBP": (struct.pack("<HH", 76, 78), struct.pack("<HH", side, side)),
        "AVIF": (struct.pack(">II", 76, 78), struct.pack(">II", side, side)),
        "HEIF": (struct.pack(">II", 76, 78), struct.pack(">II", side, side)),
    }[name]
    if name == "TIFF":  # width and height are entries of their own
        data = data.replace(struct.pack("<HHII", 256, 4, 1, 76), struct.pack("<HHII", 256, 4, 1, side))
        return data.replace(struct.pack("<HHII", 257, 4, 1, 78), struct.pack("<HHII", 257, 4, 1, side))
    assert small in data, name
    return data.replace(small, large, 1)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    def decoding(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    for side, said in ((9_000, "too large: 81 Mpx, at most 64"), (16_000, "too large: 256 Mpx, at most 64")):
        path = tmp_path / f"{side}.{name.lower()}"
        path.write_bytes(png_head(side) if name == "PNG" else claiming(name, side))
        assert reason(path) == said
