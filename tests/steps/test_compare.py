"""compare: what is drawn and what is kept, what the files say, where everything is in the grid."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from lorafactory import images
from lorafactory.errors import InputError, SettingsError
from lorafactory.recipe import Header, Recipe
from lorafactory.scoring.grid import Head, Layout, fitted, font, grid, wrapped
from lorafactory.scoring.prompts import prompts_for, tidy
from lorafactory.step import Work
from lorafactory.steps import compare
from lorafactory.workspace import LoraDir, Workspace

SIDE = 24
STUDIO = compare.Studio


def write_save(path: Path, content: str, **metadata: str) -> Path:
    """A whole safetensors file without torch; `content` is its tensor's bytes."""
    body = content.encode().ljust(16)
    tensor = {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}
    header = json.dumps({"t": tensor, "__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def picture(*seed: object, side: int = SIDE) -> Image.Image:
    number = int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:8], "big")
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


class FakeStudio:
    """Draws a pattern from what it is asked for, and counts."""

    drawn: ClassVar[list[tuple[str | None, float, str, int]]] = []

    def __init__(self, work: Work, s: compare.Settings) -> None:
        pass

    def draw(
        self, column: compare.Column, prompts: list[str], seeds: list[int], canvas: compare.Canvas
    ) -> list[Image.Image]:
        name = column.save.path.name if column.save else None
        FakeStudio.drawn += [(name, column.strength, p, seed) for p, seed in zip(prompts, seeds, strict=True)]
        pairs = zip(prompts, seeds, strict=True)
        return [picture(column.tensors, column.strength, p, seed, side=canvas.side) for p, seed in pairs]


class FakeEyes:
    """Sees coarse colours; reads a text as a hash."""

    def encode_images(self, pictures: Sequence[Image.Image]) -> Any:
        rows = np.stack([np.asarray(p.resize((2, 2), Image.Resampling.BOX), float).ravel() for p in pictures])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self.encode_images([picture(text) for text in texts])


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Five pictures, two saves; nothing draws or looks but the fakes."""
    place = LoraDir("anna", tmp_path / "loras" / "anna", owned=True)
    subset = place.images / "12_4nna"
    subset.mkdir(parents=True)
    for i in range(5):
        images.save_png(picture("training", i), subset / f"{i + 1:04}.png")
    for epoch in (1, 2):
        papers = {"ss_epoch": str(epoch), "ss_resolution": f"({SIDE + 3}, {SIDE + 3})", "ss_clip_skip": "2"}
        write_save(place.result / f"anna-{epoch:06}.safetensors", f"epoch {epoch}", **papers)
    header = Header(kind="person", **{"class": "woman"}, trigger="4nna", base="pocket")
    FakeStudio.drawn = []
    monkeypatch.setattr(compare, "Studio", FakeStudio)
    monkeypatch.setattr(compare, "eyes", lambda work: FakeEyes())
    monkeypatch.setattr(compare, "blind", lambda work: None)
    monkeypatch.setattr(compare, "base_identity", lambda space, models: "base 1")
    return Work(Workspace(tmp_path, "test"), place, Recipe(header, {}, {}))


SETTINGS = compare.Settings(prompts=("{trigger}", "{trigger}, a dog", "a {class}"), seeds=(1, 2), thumb=64)
CELLS = 3 * 2  # per column


def told(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.place.comparison / "scores.json").read_text(encoding="utf-8"))
    return found


def test_every_save_and_the_baseline_are_drawn_from_the_same_prompts_and_seeds(work: Work) -> None:
    result = compare.run(work, SETTINGS)
    assert (result.data["drawn"], result.data["kept"]) == (3 * CELLS, 0)
    asked = [(p, seed) for p in ("4nna", "4nna, a dog", "a woman") for seed in (1, 2)]
    for name in (None, "anna-000001.safetensors", "anna-000002.safetensors"):
        assert [(p, seed) for save, _, p, seed in FakeStudio.drawn if save == name] == asked


def test_only_what_is_new_is_drawn(work: Work) -> None:
    compare.run(work, SETTINGS)
    again = compare.run(work, SETTINGS)
    assert (again.data["drawn"], again.data["kept"]) == (0, 3 * CELLS)
    write_save(
        work.place.result / "anna-000003.safetensors", "epoch 3", ss_resolution=f"({SIDE}, {SIDE})", ss_clip_skip="2"
    )
    third = compare.run(work, SETTINGS)
    assert (third.data["drawn"], third.data["kept"]) == (CELLS, 3 * CELLS)
    assert {save for save, *_ in FakeStudio.drawn[3 * CELLS :]} == {"anna-000003.safetensors"}
    seed = compare.run(work, SETTINGS.model_copy(update={"seeds": (1, 2, 5)}))
    assert seed.data["drawn"] == 4 * 3


def test_equal_tensors_are_one_cell_whatever_the_file_is_called(work: Work) -> None:
    write_save(
        work.place.result / "anna-000003.safetensors",
        "epoch 2",
        ss_epoch="3",
        ss_resolution="(24, 24)",
        ss_clip_skip="2",
    )
    assert compare.run(work, SETTINGS).data["drawn"] == 3 * CELLS
    columns = told(work)["columns"]
    assert [c["likeness"] for c in columns[3]["cells"]] == [c["likeness"] for c in columns[2]["cells"]]
    assert columns[3]["likeness_error"] == columns[2]["likeness_error"]


def test_a_lost_cell_is_drawn_again_and_another_base_draws_all(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    compare.run(work, SETTINGS)
    next((work.place.comparison / "cells").glob("*.png")).unlink()
    assert compare.run(work, SETTINGS).data["drawn"] == 1
    monkeypatch.setattr(compare, "base_identity", lambda space, models: "base 2")
    assert compare.run(work, SETTINGS).data["drawn"] == 3 * CELLS


def test_scores_are_whole_and_the_same_every_time(work: Work) -> None:
    compare.run(work, SETTINGS)
    first = told(work)
    compare.run(work, SETTINGS)
    assert told(work) == first
    assert [(c["save"], c["label"], c["epoch"], c["strength"]) for c in first["columns"]] == [
        (None, "baseline", 0, 0.0),
        ("anna-000001.safetensors", "epoch 1", 1, 1.0),
        ("anna-000002.safetensors", "epoch 2", 2, 1.0),
    ]
    assert first["set"]["floor"] == first["columns"][0]["likeness"]
    assert first["set"]["pictures"] == [f"{i:04}.png" for i in range(1, 6)]
    assert first["resolution"] == SIDE  # 27 in the papers, rounded down to a multiple of 8
    for column in first["columns"]:
        asked = [c["likeness"] for c in column["cells"] if c["prompt"] < 2]
        assert column["likeness"] == pytest.approx(np.mean(asked))
        assert column["fit"] == pytest.approx(np.mean([c["fit"] for c in column["cells"] if c["prompt"] == 1]))
        assert [c["fit"] is None for c in column["cells"]] == [True, True, False, False, False, False]
        assert all((work.place.comparison / c["file"]).is_file() for c in column["cells"])
    assert first["columns"][0]["leak"] == 0


def test_the_csv_has_a_row_per_cell_and_no_formula(work: Work) -> None:
    hostile = SETTINGS.model_copy(update={"prompts": ("{trigger}", "=1+1, {trigger}, é")})
    compare.run(work, hostile)
    text = (work.place.comparison / "scores.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 3 * 2 * 2
    assert {r["prompt"] for r in rows} == {"4nna", "'=1+1, 4nna, é"}
    assert rows[0]["save"] == "baseline"


def test_strengths_are_columns_and_the_one_nearest_to_1_is_judged(work: Work) -> None:
    result = compare.run(work, SETTINGS.model_copy(update={"strengths": (0.6, 0.9)}))
    assert result.data["drawn"] == 5 * CELLS
    assert [c["strength"] for c in told(work)["columns"]] == [0.0, 0.6, 0.9, 0.6, 0.9]
    assert told(work)["strength"] == 0.9


def test_the_saves_are_in_the_order_of_training(work: Work) -> None:
    write_save(work.place.result / "anna-000010.safetensors", "ten")
    write_save(work.place.result / ".anna-000011.safetensors", "in the making")
    assert [(s.epoch, s.label) for s in compare.find_saves(work)] == [(1, "epoch 1"), (2, "epoch 2"), (10, "epoch 10")]


def test_saves_by_step_are_columns_of_their_own(work: Work) -> None:
    """Also where the file says nothing but its name, and between the ends of epochs."""
    said = {"ss_resolution": f"({SIDE}, {SIDE})", "ss_clip_skip": "2"}
    result = work.place.result
    write_save(result / "anna-step00000015.safetensors", "15", ss_epoch="2", ss_steps="15", **said)
    write_save(result / "anna-000001.safetensors", "epoch 1", ss_epoch="1", ss_steps="10", **said)
    write_save(result / "anna-000002.safetensors", "epoch 2", ss_epoch="2", ss_steps="20", **said)
    compare.run(work, SETTINGS)
    found = [(c["label"], c["epoch"], c["step"]) for c in told(work)["columns"]]
    assert found == [("baseline", 0, 0), ("epoch 1", 1, 10), ("step 15", 2, 15), ("epoch 2", 2, 20)]
    rows = list(csv.DictReader((work.place.comparison / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert {(r["save"], r["step"]) for r in rows} >= {("anna-step00000015.safetensors", "15"), ("baseline", "0")}
    bare = write_save(result / "anna-step00000100.safetensors", "bare")
    assert next((s.epoch, s.step, s.label) for s in compare.find_saves(work) if s.path == bare) == (0, 100, "step 100")


def test_what_is_missing_is_said(work: Work) -> None:
    for path in work.place.result.glob("*"):
        path.unlink()
    with pytest.raises(InputError, match="lora train anna"):
        compare.run(work, SETTINGS)
    (work.place.result / "anna-000001.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="not a whole"):
        compare.run(work, SETTINGS)


def test_a_foreign_folder_is_only_reported(work: Work) -> None:
    looking = Work(work.workspace, work.place, work.recipe, apply=False)
    assert "18 cells" in compare.run(looking, SETTINGS).summary
    assert not work.place.comparison.exists()


def test_check_lists_all_that_is_wrong(work: Work) -> None:
    assert compare.check(work, SETTINGS) == []
    bad = compare.Settings(prompts=("a dog",), seeds=(1, 1), strengths=(3.0,))
    found = compare.check(work, bad)
    assert [p.message.split(" = ")[0].split(":")[0] for p in found] == [
        "compare.prompts",
        "compare.seeds",
        "compare.strengths",
    ]
    assert all(p.fatal and p.error is SettingsError for p in found)
    assert not compare.check(work, compare.Settings(seeds=(1,)))[0].fatal


def test_what_it_sees_are_the_saves_and_the_pictures(work: Work) -> None:
    saves = {f"anna-{i:06}.safetensors" for i in (1, 2)}
    assert set(compare.sees(work, SETTINGS)) == saves | {f"{i:04}.png" for i in range(1, 6)}


def test_the_studio_draws_with_each_save_and_leaves_no_trace(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    from lorafactory import families

    family = families.get("sd15")
    base = family.tiny()
    path, name = next((p, n) for p, n in family.key_names(base).items() if p.endswith("to_q"))
    part, _, module = path.partition(".")
    out, into = base.parts[part].get_submodule(module).weight.shape
    layer = {"lora_down.weight": torch.ones(1, into), "lora_up.weight": torch.ones(out, 1), "alpha": torch.tensor(1.0)}
    file = work.place.result / "anna-000003.safetensors"
    save_file({f"{name}.{key}": value for key, value in layer.items()}, file)
    loaded = SimpleNamespace(load=lambda path, dtype, device, **told: base)
    monkeypatch.setattr(families, "detect", lambda path: "sd15")
    monkeypatch.setattr(families, "get", lambda name: loaded)
    studio = STUDIO(work, SETTINGS.model_copy(update={"steps": 2}))
    monkeypatch.setattr(families, "get", lambda name: family)
    bare = compare.Column(None, 0.0, "")
    learned = compare.Column(compare.Save(file, 3, 30, "epoch 3"), 1.0, "tensors")

    def draw(column: compare.Column) -> list[bytes]:
        return [p.tobytes() for p in studio.draw(column, ["a", "b"], [1, 1], compare.Canvas(32, 1))]

    before, with_lora, after = draw(bare), draw(learned), draw(bare)
    assert before == after
    assert before != with_lora
    assert draw(learned) == with_lora


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("kind", ["person", "character", "style", "object"])
def test_prompts_are_made_from_kind_class_and_trigger(kind: str) -> None:
    made = prompts_for((), kind, "", "zqx")
    assert [p.trigger for p in made] == [True, True, True, False]
    assert (made[0].text, made[0].plain) == ("zqx", "")
    assert all("{" not in p.text and ", ," not in p.text and "  " not in p.text for p in made)
    assert all(p.text == f"zqx, {p.plain}" for p in made[1:3])
    assert "zqx" not in made[3].text


def test_articles_and_gaps() -> None:
    assert prompts_for(("{trigger}, a {class}",), "object", "apple", "zqx")[0].text == "zqx, an apple"
    assert tidy(" , a ,  , b, ") == "a, b"


# ---------------------------------------------------------------- the grid


def test_the_grid_has_every_cell_in_its_place() -> None:
    colours = [[(40 * r, 60 * c, 90) for c in range(3)] for r in range(4)]
    cells = [[Image.new("RGB", (96, 96), colour) for colour in row] for row in colours]
    rows = [Head("first", ("seed 1",)), Head("", ("seed 2",)), Head("second", ("seed 1",)), Head("", ("seed 2",))]
    training = [Image.new("RGB", (30, 50), (250, 0, i)) for i in range(9)]
    sheet = grid(cells, [Head("baseline"), Head("epoch 1"), Head("epoch 2")], rows, training, side=64)
    page = Layout(64, 3, 13)
    assert sheet.width == page.width
    assert [sheet.getpixel((page.x(i) + 32, page.margin + 32)) for i in range(3)] == [(250, 0, i) for i in range(3)]
    for c in range(3):
        column = [sheet.getpixel((page.x(c) + 32, y)) for y in range(page.margin + 64, sheet.height)]
        for r in range(4):
            assert column.count(colours[r][c]) == 64  # a whole cell, not overdrawn


def test_cells_are_cut_square_and_enlarged() -> None:
    wide = Image.new("RGB", (96, 48), "red")
    wide.paste("blue", (24, 0, 72, 48))
    assert fitted(wide, 96).getcolors() == [(96 * 96, (0, 0, 255))]


def test_a_grid_may_have_holes_and_no_training_pictures() -> None:
    sheet = grid([[None, picture(1)]], [Head("baseline"), Head("epoch 1")], [Head("zqx")], [], side=64)
    assert sheet.size == (Layout(64, 2, 13).width, sheet.height)


def test_long_heads_are_wrapped_within_their_width() -> None:
    face = font(13)
    lines = wrapped("a prompt of many words " * 9 + "andonewordthatismuchtoolongforanylineofthiswidth", face, 120)
    assert len(lines) == 6
    assert lines[-1].endswith(" ...")
    assert all(face.getlength(line.removesuffix(" ...")) <= 120 for line in lines)
