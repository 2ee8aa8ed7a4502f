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
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from lorafactory.errors import InputError
from lorafactory.files import write_whole

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
_OURS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")
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
    shown = (p for p in folder.iterdir() if not p.name.startswith("."))
    found = [p for p in shown if p.suffix.lower() in SUFFIXES and p.is_file()]
    return sorted(found, key=lambda p: (natural(p.stem), p.suffix))  # so that a copy comes after its original


def find_sources(folder: Path) -> list[Path]:
    """List every file under `folder` with a picture's suffix, also those `load` refuses, in natural order.

    Hidden files and folders, and what systems leave beside pictures (`._a.jpg`, `__MACOSX`), are left out;
    links to folders are not followed.
    """
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in JUNK_FOLDERS]
        shown = [Path(root, name) for name in names if not name.startswith(".")]
        found += [p for p in shown if p.suffix.lower() in SUFFIXES | FOREIGN and p.is_file()]
    return sorted(found, key=lambda p: (natural(p.relative_to(folder).with_suffix("").as_posix()), p.suffix))


def natural(name: str) -> tuple[list[int | str], str]:
    """Sort key in which numbers count as numbers, and case and composition of letters do not."""
    plain = unicodedata.normalize("NFC", name).casefold()
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", plain)], name


# ---------------------------------------------------------------- reading


def load(path: Path) -> Image.Image:
    """Decode a picture as RGB: upright, in sRGB, the first frame if it moves, transparency on white.

    Transparent pictures are composited, because otherwise the colours hidden under transparent pixels would
    show. Nothing of the file's metadata is kept. Raise Unreadable if the file is not a whole picture.
    """
    with _opened(path) as image:
        image.load()
        upright = _upright(image)
    return to_srgb(upright)


def size(path: Path) -> tuple[int, int]:
    """Read width and height of the upright picture, without decoding it where the format allows."""
    with _opened(path) as image:
        width, height = image.size
        # TIFF and HEIF tell their size upright already
        turned = image.format not in {"TIFF", _HEIF} and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def frames(path: Path) -> int:
    """Count the frames of an animation or the pages of a file; only the first is used."""
    with _opened(path) as image:
        return int(getattr(image, "n_frames", 1))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture within the limits; whatever goes wrong while it is open becomes Unreadable."""
    try:
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


def _too_large(megapixels: float) -> str:
    return f"too large: {megapixels:.0f} Mpx, at most {LIMIT_MPX}"


def _what(head: bytes) -> str:
    """Say what a file is whose first bytes are no picture that is read."""
    boxed = head[4:8] == b"ftyp"
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


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image.transpose(turn) if turn is not None else image


# ---------------------------------------------------------------- colour


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert any mode and profile to a plain RGB picture in sRGB; transparency is composited on white."""
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    if image.has_transparency_data:
        gray = image.mode in {"LA", "La"}
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.getchannel("R") if gray else image.convert("RGB")
    rgb = _with_profile(_eight_bits(image), profile)
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    rgb = rgb.copy()
    rgb.info.clear()
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring any mode to L, RGB, CMYK or LAB. Deep pictures are scaled: Pillow would clip them."""
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = values.max(initial=0)
        if image.mode.startswith("I;16"):
            scale = 257.0
        elif image.mode == "F" and top <= 1:
            scale = 1 / 255
        else:  # 32 bits say nothing about their range: 8, 16 or full
            scale = 1.0 if top <= 255 else 257.0 if top <= 65535 else top / 255
        return Image.fromarray(np.clip(values / scale + 0.5, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _with_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB through the profile that came with the picture, else as its mode is usually meant."""
    try:
        transform = _transform(profile or b"", image.mode)
        if transform is not None:
            return transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass  # a broken profile, or one for another colour space, is as good as none
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the way to sRGB; None if there is nothing to convert: sRGB pictures keep their exact values."""
    target = ImageCms.createProfile("sRGB")
    if mode == "LAB":
        return ImageCms.buildTransform(ImageCms.createProfile("LAB"), target, mode, "RGB")
    if not profile:
        return None
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        target,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    probe = Image.fromarray(cube if mode == "RGB" else cube[..., 0].copy())
    moved = np.asarray(transform.apply(probe), dtype=int) - np.asarray(probe.convert("RGB"), dtype=int)
    return transform if np.abs(moved).max() > 1 else None


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


def thumbnail_data_url(path: Path, side: int) -> str:
    """Encode a picture, no larger than `side` pixels, as a `data:` address for a page that stands alone."""
    image = load(path)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
