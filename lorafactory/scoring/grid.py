"""The grid: one picture of all cells. Rows are prompts and seeds, columns the baseline and the saves."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, LINE, EMPTY = "#fbfaf8", "#22201d", "#7a756d", "#e2ded7", "#efece6"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Cells = Sequence[Sequence[Image.Image | None]]


@dataclass(frozen=True)
class Head:
    """What stands over a column or beside a row: a title, and quieter lines below it."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where everything is, in pixels."""

    side: int
    """Width and height of a cell."""
    columns: int
    text: int
    """Height of the quieter text."""

    @property
    def gap(self) -> int:
        return max(6, self.side // 16)

    @property
    def margin(self) -> int:
        return self.side // 5

    @property
    def heads(self) -> int:
        """Width of the row heads."""
        return max(160, round(self.side * 1.15))

    @property
    def title(self) -> int:
        return round(self.text * 1.25)

    @property
    def line(self) -> int:
        return round(self.text * 1.45)

    @property
    def width(self) -> int:
        return self.x(self.columns) - self.gap + self.margin

    def x(self, column: int) -> int:
        """Left edge of a column. The baseline stands a little apart."""
        return self.margin + self.heads + column * (self.side + self.gap) + (2 * self.gap if column else 0)


def grid(
    cells: Cells,
    column_heads: Sequence[Head],
    row_heads: Sequence[Head],
    training: Sequence[Image.Image],
    *,
    side: int = 192,
    foot: str = "",
) -> Image.Image:
    """Draw the cells with their heads, above them a strip of training pictures, below them a line of text.

    A row whose head has a title begins a group; rows below it without one belong to it.
    """
    page = Layout(side, len(column_heads), max(13, side // 12))
    shown = [fitted(image, page.side) for image in training[: len(column_heads)]]
    strip = page.margin + (page.side + page.margin if shown else 0)
    head = page.title + page.line * max(len(h.lines) for h in column_heads) + page.gap * 2
    tops, height = _rows(row_heads, strip + head, page)
    below = wrapped(foot, font(page.text), page.width - 2 * page.margin) if foot else []
    bottom = height + page.margin
    sheet = Image.new("RGB", (page.width, bottom + (page.line * len(below) + page.gap if below else 0)), PAPER)
    pen = ImageDraw.Draw(sheet)
    if shown:
        note = f"{len(shown)} of {len(training)}" if len(training) > len(shown) else f"all {len(training)}"
        _head(pen, Head("training pictures", (note,)), (page.margin, page.margin), page)
        for i, image in enumerate(shown):
            _cell(sheet, pen, image, page.x(i), page.margin)
    for i, column in enumerate(column_heads):
        _head(pen, column, (page.x(i), strip), page, page.side)
    for row, top, values in zip(row_heads, tops, cells, strict=True):
        if row.title:
            y = top - page.gap * 2
            pen.line((page.margin, y, page.width - page.margin, y), fill=LINE)
        _head(pen, row, (page.margin, top), page)
        for i, cell in enumerate(values):
            if cell is None:
                _empty(pen, page.x(i), top, page)
            else:
                _cell(sheet, pen, fitted(cell, page.side), page.x(i), top)
    for i, text in enumerate(below):
        pen.text((page.margin, bottom - page.gap + i * page.line), text, SOFT, font(page.text))
    return sheet


def _empty(pen: ImageDraw.ImageDraw, x: int, y: int, page: Layout) -> None:
    """A cell that was not drawn says so."""
    pen.rectangle((x, y, x + page.side - 1, y + page.side - 1), fill=EMPTY)
    middle = (x + page.side // 2, y + page.side // 2)
    pen.text(middle, "not drawn", SOFT, font(page.text), anchor="mm")


def _cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, image: Image.Image, x: int, y: int) -> None:
    """Paste with a hairline around, so that a white picture has edges too."""
    pen.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=LINE)
    sheet.paste(image, (x, y))


def _rows(heads: Sequence[Head], top: int, page: Layout) -> tuple[list[int], int]:
    """Upper edge of each row, and where the last one ends."""
    tops = []
    for head in heads:
        top += page.gap * 3 if head.title else 0
        tops.append(top)
        top += page.side + page.gap
    return tops, top - page.gap


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture's middle square at the given side; small drawings are enlarged without ringing."""
    square = min(image.size)
    left, top = (image.width - square) // 2, (image.height - square) // 2
    cut = image.convert("RGB").crop((left, top, left + square, top + square))
    how = Image.Resampling.BICUBIC if square < side else Image.Resampling.LANCZOS
    return cut if square == side else cut.resize((side, side), how)


def _head(pen: ImageDraw.ImageDraw, head: Head, at: tuple[int, int], page: Layout, width: int = 0) -> None:
    (x, y), width = at, width or page.heads - page.gap * 2
    for line in wrapped(head.title, font(page.title), width) if head.title else []:
        pen.text((x, y), line, INK, font(page.title))
        y += page.line
    y += page.gap // 2 if head.title else 0
    for line in head.lines:
        pen.text((x, y), line, SOFT, font(page.text))
        y += page.line


@lru_cache(maxsize=8)
def font(height: int) -> Font:
    return ImageFont.load_default(height)


def plain(text: str) -> str:
    """The text without its accents: Pillow's font, the only one that is there everywhere, draws them as boxes."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def wrapped(text: str, face: Font, width: int, lines: int = 6) -> list[str]:
    """Break a text at spaces, inside a word only where it is wider than a line; what does not fit ends in `...`."""
    found, line = [], ""
    for word in plain(text).split():
        candidate = f"{line} {word}".strip()
        if line and face.getlength(candidate) > width:
            found.append(line)
            candidate = word
        while face.getlength(candidate) > width and len(candidate) > 1:
            fits = next(n for n in range(len(candidate) - 1, 0, -1) if n == 1 or face.getlength(candidate[:n]) <= width)
            found.append(candidate[:fits])
            candidate = candidate[fits:]
        line = candidate
    found.append(line)
    return found if len(found) <= lines else [*found[: lines - 1], found[lines - 1].rstrip() + " ..."]
