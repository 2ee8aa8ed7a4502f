"""Any mode, depth and profile to plain RGB in sRGB, and the transparency that came with it."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor
from PIL.ExifTags import Base as TAGS  # noqa: N814  (its members are constants)


def is_colour(text: str) -> bool:
    """True for what `background` may be: a name that CSS knows, or `#rgb` and `#rrggbb`."""
    try:
        return len(ImageColor.getrgb(text)) == 3
    except ValueError:
        return False


def to_srgb(image: Image.Image, background: str = "white") -> tuple[Image.Image, Image.Image | None]:
    """Convert any mode and profile to a plain RGB picture in sRGB, transparent places composited on `background`.

    Also return the opacity, as L with 255 for opaque; None if everything is opaque.
    """
    profile = image.info.get("icc_profile")
    plain, alpha = _parted(image)
    rgb = _with_profile(_eight_bits(plain), profile)
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, background)
        ground.paste(rgb, mask=alpha)
        rgb = ground
    rgb.info.clear()
    return rgb, alpha


def _parted(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Part colours and opacity; the latter is None if everything is opaque."""
    if not image.has_transparency_data:
        return image, None
    if image.mode.startswith("I"):  # one level of grey is transparent; Pillow's conversion would clip the others
        opaque = np.asarray(image) != image.info["transparency"]
        plain, alpha = image, Image.fromarray(opaque.astype(np.uint8) * 255)
    else:
        gray = image.mode in {"L", "LA", "La", "1"}
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        plain = image.getchannel("R") if gray else image.convert("RGB")
    return plain, alpha if alpha.getextrema() != (255, 255) else None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring any mode to L, RGB, CMYK or LAB. Deep pictures are scaled: Pillow would clip them."""
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        values, white = _levels(image)
        fine: NDArray[np.floating] = values.astype(np.float32 if white <= 0xFFFF else np.float64)
        return Image.fromarray(np.clip(fine * (255 / white) + 0.5, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _levels(image: Image.Image) -> tuple[NDArray[Any], float]:
    """The grey levels of a deep picture, black being 0, and the level that is white.

    A TIFF says how many of 16 bits it uses, whether they are signed and whether 0 is white. 32 bits and floating
    point say nothing about their range: the smallest usual one that holds all levels is taken.
    """
    tags = getattr(image, "tag_v2", {})
    values: NDArray[Any] = np.asarray(image)
    bits = int(tags.get(TAGS.BitsPerSample, (16,))[0])
    white = float(2**bits - 1)
    if image.mode == "F":
        values = np.nan_to_num(values, posinf=0, neginf=0)
        white = _white(values, (1, 255, 65535))
    elif image.mode == "I":
        if bits == 32 and tags.get(TAGS.SampleFormat, (1,))[0] == 1:
            values = values.view(np.uint32)
        if values.min(initial=0) < 0:
            values = values.astype(np.int64) + 2 ** (bits - 1)
        else:
            white = _white(values, (255, 65535))
    if tags.get(TAGS.PhotometricInterpretation) == 0:
        values = white - values
    return values, white


def _white(values: NDArray[Any], usual: tuple[int, ...]) -> float:
    top = float(values.max(initial=0))
    return next((float(level) for level in usual if top <= level), top)


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
