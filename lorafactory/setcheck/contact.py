"""The contact sheet: every picture with the crop that training will see, grouped by its bucket.

What falls outside the crop is dimmed. Bucket, resize and crop are the trainer's own (`training.buckets.fit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from lorafactory.crops import Box
from lorafactory.scoring.grid import INK, LINE, PAPER, SOFT, font, wrapped
from lorafactory.setcheck import count
from lorafactory.setcheck.looks import THUMB, Look
from lorafactory.setcheck.pictures import CUT, Fits, outside
from lorafactory.training.buckets import Fit
from lorafactory.training.settings import TrainSettings

GAP, MARGIN, TEXT = 14, 32, 13
"""Pixels: between cells, around all, and of the letters' height."""
COLUMNS = 8
LABEL = 3
"""Lines below a picture."""
MOST = 1000
"""Pictures on a sheet; of larger sets the first."""
BOX, WARN = "#d1495b", "#b3261e"


@dataclass(frozen=True)
class Group:
    """Pictures of one bucket."""

    title: str
    warning: str
    looks: list[Look]

    @property
    def tall(self) -> int:
        """Height of its tallest picture."""
        return max(look.thumb.height for look in self.looks)

    @property
    def row(self) -> int:
        """Height of a row of pictures with what is said below them."""
        return self.tall + LABEL * (TEXT + 4) + GAP


def sheet(looks: Sequence[Look], fits: Fits, s: TrainSettings, *, name: str) -> Image.Image:
    """Draw all pictures; each look's fit is found by its path."""
    shown = looks[:MOST]
    groups = grouped(shown, fits)
    columns = max(3, min(COLUMNS, max((len(g.looks) for g in groups), default=1)))
    tops, height = laid_out(groups, columns)
    page = Image.new("RGB", (2 * MARGIN + columns * (THUMB + GAP) - GAP, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN), f"{name}: what training at {s.resolution} sees", INK, font(TEXT * 2))
    more = f"; the first {MOST} are shown" if len(looks) > MOST else ""
    buckets = len({fit.bucket for look in shown if (fit := fits[str(look.picture.path)])})
    told = f"{count(len(looks))}, {count(buckets, 'bucket')}; inside the red line is what is trained on{more}"
    pen.text((MARGIN, MARGIN + TEXT * 3), told, SOFT, font(TEXT))
    for group, top in zip(groups, tops, strict=True):
        pen.line((MARGIN, top, page.width - MARGIN, top), fill=LINE)
        pen.text((MARGIN, top + GAP // 2), group.title, INK, font(TEXT + 3))
        indent = MARGIN + int(font(TEXT + 3).getlength(group.title)) + GAP
        pen.text((indent, top + GAP // 2 + 3), group.warning, WARN, font(TEXT))
        for i, look in enumerate(group.looks):
            at = (MARGIN + i % columns * (THUMB + GAP), top + TEXT * 3 + i // columns * group.row)
            draw(page, pen, look, fits[str(look.picture.path)], at, group.tall)
    return page


def grouped(looks: Sequence[Look], fits: Fits) -> list[Group]:
    """By bucket, narrow ones first; pictures that none takes come at the head."""
    by_bucket: dict[tuple[int, int], list[Look]] = {}
    for look in looks:
        fit = fits[str(look.picture.path)]
        by_bucket.setdefault(fit.bucket if fit else (0, 0), []).append(look)
    groups = []
    for (width, height), found in sorted(by_bucket.items()):
        if not width:
            groups.append(Group("no bucket", "too thin or too small: crop them, or take them out", found))
            continue
        alone = "its only picture" if len(found) == 1 and len(by_bucket) > 1 else ""
        groups.append(Group(f"{width} x {height}: {len(found)}", alone, found))
    return groups


def laid_out(groups: Sequence[Group], columns: int) -> tuple[list[int], int]:
    """Upper edge of each group, and the height of the page."""
    tops, top = [], MARGIN + TEXT * 5
    for group in groups:
        tops.append(top)
        top += TEXT * 3 + -(-len(group.looks) // columns) * group.row
    return tops, top + MARGIN // 2


def draw(
    page: Image.Image, pen: ImageDraw.ImageDraw, look: Look, fit: Fit | None, at: tuple[int, int], tall: int
) -> None:
    """One picture in its cell, which is as high as the group's tallest, and what is said below it."""
    image = look.thumb.copy()
    box = crop_box(look, fit) if fit else (0, 0, 0, 0)
    shade(image, box)
    if fit:
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=BOX, width=2)
    page.paste(image, (at[0] + (THUMB - image.width) // 2, at[1] + tall - image.height))
    title = wrapped(look.name, font(TEXT), THUMB - GAP, 1)[0]
    for i, (line, colour) in enumerate([(title, INK), *said(look, fit)]):
        pen.text((at[0], at[1] + tall + 4 + i * (TEXT + 4)), line, colour, font(TEXT))


def crop_box(look: Look, fit: Fit) -> Box:
    """The crop in the pixels of the picture as it is shown."""
    left, top, right, bottom = fit.within(look.part)
    across, down = look.thumb.width / look.size[0], look.thumb.height / look.size[1]
    return round(left * across), round(top * down), round(right * across), round(bottom * down)


def shade(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Fade what lies outside the box."""
    inside = image.crop(box) if box[2] > box[0] else None
    image.paste(Image.blend(image, Image.new("RGB", image.size, PAPER), 0.7))
    if inside is not None:
        image.paste(inside, box[:2])


def said(look: Look, fit: Fit | None) -> list[tuple[str, str]]:
    """How large it is and becomes, and how much of it is lost."""
    width, height = look.trained
    if fit is None:
        return [(f"{width} x {height}", SOFT), ("no bucket takes it", WARN)]
    scale = fit.resized[0] / width
    how = (
        "as it is"
        if fit.resized == look.trained
        else f"enlarged {scale:.2f}"
        if scale > 1
        else f"shrunk to {scale:.0%}"
    )
    lost, by_hand = outside(fit), ", cut by hand" if look.crop else ""
    return [
        (f"{width} x {height}, {how}", WARN if scale > 1 else SOFT),
        (f"{f'{lost:.0%} cropped away' if lost >= 0.005 else 'whole'}{by_hand}", WARN if lost > CUT else SOFT),
    ]
