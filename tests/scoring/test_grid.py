"""The grid: every cell in its place, what was not drawn, and the heads that scores.json gives."""

from __future__ import annotations

from typing import Any

from PIL import Image

from lorafactory.scoring import sheet
from lorafactory.scoring.grid import EMPTY, Head, Layout, fitted, font, grid, wrapped

SIDE = 64


def colours(image: Image.Image) -> dict[Any, int]:
    return {colour: count for count, colour in image.getcolors(2**20)}


def test_every_cell_is_in_its_place() -> None:
    told = [[(40 * r, 60 * c, 90) for c in range(3)] for r in range(4)]
    cells = [[Image.new("RGB", (96, 96), colour) for colour in row] for row in told]
    rows = [Head("first", ("seed 1",)), Head("", ("seed 2",)), Head("second", ("seed 1",)), Head("", ("seed 2",))]
    training = [Image.new("RGB", (30, 50), (250, 0, i)) for i in range(9)]
    drawn = grid(cells, [Head("baseline"), Head("epoch 1"), Head("epoch 2")], rows, training, side=SIDE)
    page = Layout(SIDE, 3, 13)
    assert drawn.width == page.width
    assert [drawn.getpixel((page.x(i) + 32, page.margin + 32)) for i in range(3)] == [(250, 0, i) for i in range(3)]
    for c in range(3):
        column = [drawn.getpixel((page.x(c) + 32, y)) for y in range(page.margin + SIDE, drawn.height)]
        for r in range(4):
            assert column.count(told[r][c]) == SIDE  # a whole cell, not overdrawn


def test_cells_are_cut_square_and_enlarged() -> None:
    wide = Image.new("RGB", (96, 48), "red")
    wide.paste("blue", (24, 0, 72, 48))
    assert fitted(wide, 96).getcolors() == [(96 * 96, (0, 0, 255))]


def test_a_cell_that_was_not_drawn_says_so_and_there_may_be_no_training_pictures() -> None:
    heads = [Head("baseline"), Head("epoch 1")], [Head("zqx")]
    empty = grid([[None, Image.new("RGB", (9, 9), "red")]], *heads, [], side=SIDE)
    page = Layout(SIDE, 2, 13)
    grey = tuple(int(EMPTY[i : i + 2], 16) for i in (1, 3, 5))
    found = colours(empty)
    assert SIDE**2 / 2 < found[grey] < SIDE**2  # some of it is letters
    assert found[255, 0, 0] == SIDE**2
    assert empty.width == page.width


def test_a_foot_is_below_everything() -> None:
    heads = [Head("baseline")], [Head("zqx")]
    cells = [[Image.new("RGB", (9, 9), "red")]]
    plain = grid(cells, *heads, [], side=SIDE)
    footed = grid(cells, *heads, [], side=SIDE, foot="3 of 4 cells are not drawn: lora compare anna --full")
    assert footed.height > plain.height
    above = (0, 0, plain.width, plain.height - 20)
    assert footed.crop(above).tobytes() == plain.crop(above).tobytes()
    assert len(colours(footed.crop((0, plain.height - 10, *footed.size)))) > 1


def test_long_heads_are_wrapped_within_their_width() -> None:
    face = font(13)
    lines = wrapped("a prompt of many words " * 9 + "andonewordthatismuchtoolongforanylineofthiswidth", face, 120)
    assert len(lines) == 6
    assert lines[-1].endswith(" ...")
    assert all(face.getlength(line.removesuffix(" ...")) <= 120 for line in lines)


# ---------------------------------------------------------------- heads


def column(save: str | None, drawn: list[tuple[int, int]], **told: Any) -> dict[str, Any]:
    spots = [(p, seed) for p in range(2) for seed in (7, 8)]
    cells = [{"prompt": p, "seed": s, "file": "x.png" if (p, s) in drawn else None} for p, s in spots]
    values = {"likeness": 0.5 if drawn else None, "likeness_error": 0.01, "fit": None, "diversity": None}
    about = {"label": save or "baseline", "strength": float(bool(save)), "base": "b", "copies": 0, "dropped": None}
    return {"save": save, "cells": cells, **values, **about, **told}


TOLD = {
    "prompts": [{"text": "zqx"}, {"text": "zqx, a dog"}],
    "seeds": [7, 8],
    "budget": {"planned": 12, "drawn": 4, "full_command": "lora compare anna --full"},
    "columns": [column(None, [(0, 8), (1, 7)]), column("a", [(0, 8)], dropped="it fell behind"), column("b", [])],
}


def test_rows_and_columns_of_which_nothing_was_drawn_are_left_out() -> None:
    assert [head.title for head in sheet.column_heads(TOLD)] == ["baseline", "a"]
    assert sheet.row_heads(TOLD) == [Head("zqx", ("seed 8",)), Head("zqx, a dog", ("seed 7",))]
    assert sheet.foot(TOLD) == "8 of 12 cells are not drawn: lora compare anna --full"
    assert sheet.foot({"budget": {**TOLD["budget"], "drawn": 12}}) == ""


def test_a_line_says_why_no_more_was_drawn() -> None:
    assert sheet.line(TOLD["columns"][1]).endswith("over 1 cells  no more of it was drawn: it fell behind")


def test_scores_over_different_cells_say_so() -> None:
    assert [head.lines[1] for head in sheet.column_heads(TOLD)] == ["over 2 of 2 cells", "over 1 of 2 cells"]
    even = {**TOLD, "columns": [column(None, [(0, 8)]), column("a", [(0, 7)])]}
    assert not any("over" in line for head in sheet.column_heads(even) for line in head.lines)


def test_a_column_elsewhere_says_where() -> None:
    other = {**TOLD, "columns": [*TOLD["columns"], column("a", [(0, 8)], base="other")]}
    assert [head.lines[1] for head in sheet.column_heads(other)] == ["on b", "on b", "on other"]
