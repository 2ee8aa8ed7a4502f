"""The only file that opens images: upright, in sRGB, whole or refused with a plain reason.

What `load` gives is what every step, trainer and report sees, so no two of them can disagree about rotation
or colour.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as TAGS  # noqa: N814  (its members are constants)

from lorafactory.colour import to_srgb
from lorafactory.errors import InputError
from lorafactory.files import write_whole
from lorafactory.png import told_after_pixels

LIMIT_MPX = 64
"""Larger pictures are refused before they are decoded."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""What Pillow may decode; MPO comes through JPEG, HEIF is added when one is met."""
# fmt: off
SUFFIXES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".tif",
    ".tiff", ".avif", ".avifs", ".heic", ".heif", ".hif",
))
FOREIGN = frozenset((
    ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".ico", ".tga", ".exr", ".hdr", ".xcf", ".eps",
    ".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".raw",
))
"""Pictures that are not read: camera raws would open as their tiny preview, others need a person's choice."""
# fmt: on
JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})

Image.MAX_IMAGE_PIXELS = LIMIT_MPX * 1_000_000
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_HEIF = "HEIF"
_T = Image.Transpose
# fmt: off
_TURNS = {
    2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE, 6: _T.ROTATE_270,
    7: _T.TRANSVERSE, 8: _T.ROTATE_90,
}
# fmt: on
_MAGIC = {b"%PDF": "PDF", b"8BPS": "Photoshop", b"PK\x03\x04": "zip", b"\xff\x0a": "JPEG XL"}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a]")
_CUT = re.compile("truncat|broken png|failed to read|unexpected end|unrecognized data|create decoder", re.I)
_OURS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_TIFF = (b"II*\x00", b"MM\x00*")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_hashes: dict[tuple[str, int, int, int], str] = {}


class Unreadable(InputError):  # noqa: N818  (said of a picture, not of the program)
    """A file that cannot become a picture; `reason` says why in a few plain words."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


# ---------------------------------------------------------------- finding


def find(folder: Path) -> list[Path]:
    """List the image files directly in `folder` in natural order (2 before 10), hidden ones left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # which knows what is a file: sets are listed often
        files = [folder / e.name for e in entries if not e.name.startswith(".") and e.is_file()]
    found = (p for p in files if p.suffix.lower() in SUFFIXES)
    return sorted(found, key=lambda p: (natural(p.stem), p.suffix))  # so that a copy comes after its original


def find_sources(folder: Path) -> list[Path]:
    """List every file under `folder` with a picture's suffix, also those `load` refuses, in natural order.

    Hidden files and folders, and what systems leave beside pictures (`._a.jpg`, `__MACOSX`), are left out, and
    so is what `find_refused` names.
    """
    return [path for path in _seen(folder) if _refusal(path) is None]


def find_refused(folder: Path) -> dict[Path, str]:
    """Find what `find_sources` leaves out although a person may take it for pictures, and say why.

    That is links, as they may lead anywhere; pipes and devices, whose reading may never end; and files and
    folders that cannot be opened.
    """
    return {path: why for path in _seen(folder) if (why := _refusal(path)) is not None}


def _seen(folder: Path) -> list[Path]:
    """What is called like a picture under `folder`, and the folders that are not looked into."""
    found: list[Path] = []
    closed: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in JUNK_FOLDERS]
        shown = [Path(root, name) for name in names if not name.startswith(".")]
        found += [p for p in shown if p.suffix.lower() in SUFFIXES | FOREIGN]
        found += [p for f in folders if (p := Path(root, f)).is_symlink()]
    found += [Path(error.filename) for error in closed if Path(error.filename) != folder]
    return sorted(found, key=lambda p: (natural(p.relative_to(folder).with_suffix("").as_posix()), p.suffix))


def _refusal(path: Path) -> str | None:
    """Why something is not read as a file; looks at its kind first, as opening a pipe would wait for a writer."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return "a link, which is not followed: put the file itself there"
        if stat.S_ISDIR(mode):
            return "a folder that cannot be opened"
        if not stat.S_ISREG(mode):
            return "not a file but a pipe" if stat.S_ISFIFO(mode) else "not a file but a device or socket"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return None


@lru_cache(maxsize=1 << 16)
def natural(name: str) -> tuple[list[int | str], str]:
    """Sort key in which numbers count as numbers, and case and composition of letters do not."""
    plain = unicodedata.normalize("NFC", name).casefold()
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", plain)], name


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Decoded:
    """What a file shows."""

    image: Image.Image
    """RGB, upright, in sRGB."""
    mask: Image.Image | None
    """L, as large as the picture: 255 where it is opaque, 0 where it is transparent; None if all of it is opaque."""
    frames: int
    """How many the file has, of which this is the first."""
    kind: str
    """Pillow's name of the file's format."""


def decode(path: Path, background: str = "white", least: int | None = None) -> Decoded:
    """Decode a picture: upright, in sRGB, the first frame if it moves, transparent places on `background`.

    Transparent pictures are composited, because otherwise the colours hidden under transparent pixels would
    show. Nothing of the file's metadata is kept. Raise Unreadable if the file is not a whole picture.
    """
    with _opened(path) as image:
        count = int(getattr(image, "n_frames", 1))
        if least is not None:
            image.draft(None, (least, least))
        return Decoded(*_shown(image, background), count, str(image.format))


def load(path: Path) -> Image.Image:
    """Decode a picture as RGB, as `decode` does, transparent places on white."""
    return decode(path).image


def load_reduced(path: Path, side: int) -> Image.Image:
    """Decode as `load` does; a large JPEG is read at a half or less, its shorter side at least `side`: much faster."""
    return decode(path, least=side).image


def size(path: Path) -> tuple[int, int]:
    """Read width and height of the upright picture, without decoding it where the format allows."""
    with _opened(path) as image:
        width, height = image.size
        # TIFF and HEIF tell their size upright already
        early = image.format == "PNG" and not told_after_pixels(path)
        turned = image.format not in {"TIFF", _HEIF} and _orientation(image, early=early) >= 5
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture within the limits; whatever goes wrong while it is open becomes Unreadable."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise Unreadable(path, "not a file but a pipe, device or socket")  # opening it might wait for ever
        with path.open("rb") as handle:
            head = handle.read(4096)
        if not head:
            raise Unreadable(path, "empty file")
        if path.suffix.lower() in FOREIGN:
            raise Unreadable(path, f"{path.suffix.lower()} is not read: export it as PNG or JPEG")
        with Image.open(path, formats=_formats(head)) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > LIMIT_MPX:
                raise Unreadable(path, _too_large(megapixels))
            if _scrambled(image):
                raise Unreadable(path, "a TIFF with deep colours in separate planes is not read: save it as PNG")
            yield image
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(path, _what(head)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise Unreadable(path, _too_large(int(pixels[0]) / 1e6 if pixels else LIMIT_MPX)) from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise Unreadable(path, f"cannot be opened: {error.strerror}") from error
    except Exception as error:  # decoders raise whatever they like on broken bytes
        raise Unreadable(path, _broken(error)) from error


def _formats(head: bytes) -> list[str]:
    """The kinds that may be decoded; HEIF's decoder is imported only for a file that says it is one."""
    if head[4:8] != b"ftyp" or b"avif" in head[8:64] or b"avis" in head[8:64]:
        return list(FORMATS)
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return [_HEIF]


def _scrambled(image: Image.Image) -> bool:
    """True for the TIFFs whose samples Pillow would take for bytes: more than 8 bits, and a plane per colour."""
    tags = getattr(image, "tag_v2", {})
    separate = tags.get(TAGS.PlanarConfiguration) == 2 and tags.get(TAGS.SamplesPerPixel, 1) > 1
    return separate and max(tags.get(TAGS.BitsPerSample, (8,))) > 8


def _too_large(megapixels: float) -> str:
    return f"too large: {megapixels:.0f} Mpx, at most {LIMIT_MPX}"


def _what(head: bytes) -> str:
    """Say what a file is whose first bytes are no picture that is read."""
    boxed = head[4:8] == b"ftyp"
    if head.startswith(_TIFF):
        return "broken, or a kind of TIFF that is not read: save it as PNG"
    if head.startswith(_OURS) or (boxed and head[8:12] in _BRANDS):
        return "truncated or broken from its first bytes"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return f"not an image: {kind}"
    if boxed:
        return "not an image: video"
    text = _CONTROL.search(head) is None and "\ufffd" not in head[:2048].decode(errors="replace")[:-1]
    return "not an image: text" if text else "not an image"


def _broken(error: Exception) -> str:
    said = str(error)
    if _CUT.search(said):
        return "truncated"
    return f"broken: {said or type(error).__name__}"


def _shown(image: Image.Image, background: str = "white") -> tuple[Image.Image, Image.Image | None]:
    """Decode an open picture into what is seen of it and its opacity, both upright."""
    image.load()
    rgb, mask = to_srgb(image, background)
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return rgb, mask
    return rgb.transpose(turn), mask and mask.transpose(turn)


def _orientation(image: Image.Image, *, early: bool = False) -> int:
    """How it is to be turned; `early`: as far as what stands before the pixels tells."""
    try:
        told = Image.Image.getexif(image) if early else image.getexif()
        return int(told.get(TAGS.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the picture
        return 1


# ---------------------------------------------------------------- identity


def sha256(path: Path) -> str:
    """Hash a file's bytes; remembered in this process by place, inode, size and modification time."""
    stat = path.stat()
    key = (os.fspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as handle:
            _hashes[key] = hashlib.file_digest(handle, "sha256").hexdigest()
    return _hashes[key]


def pixel_hash(image: Image.Image) -> str:
    """Hash what is seen: size and RGB values, whatever file they came from."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


# ---------------------------------------------------------------- out


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG without metadata: whole or not at all."""
    write_whole(path, png(image))


def png(image: Image.Image) -> bytes:
    """Encode losslessly and without metadata; level 2, as 9 takes twenty times as long for a tenth less."""
    plain = image.copy()
    plain.info.clear()
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()


def opaque(size: tuple[int, int]) -> Image.Image:
    """The mask of a picture without transparency."""
    return Image.new("L", size, 255)


def webp(image: Image.Image, side: int) -> bytes:
    """Encode as WebP, reduced in place where it is larger than `side` pixels."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=84)
    return buffer.getvalue()


def thumbnail_data_url(path: Path, side: int, most: int = 100_000) -> str:
    """Encode a picture as a WebP `data:` address for a page that stands alone.

    It is no larger than `side` pixels, and smaller where it would take more than `most` bytes of the page.
    """
    image = load(path)
    while True:
        data = base64.b64encode(webp(image, side))
        if len(data) <= most or side <= 48:
            return "data:image/webp;base64," + data.decode()
        side = max(image.size) * 3 // 4
