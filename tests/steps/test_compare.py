"""compare: what is drawn and what is kept, and what the files say."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_sets import CELLS, SETTINGS, SIDE, TRAINED, FakeStudio, make_work, save, told, write_save

from lorafactory.encoders import dino
from lorafactory.errors import InputError, SettingsError
from lorafactory.step import Work
from lorafactory.steps import _cells, _saves, _studio, compare

FULL = SETTINGS.model_copy(update={"full": True})


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return make_work(tmp_path, monkeypatch)


def test_every_save_and_the_baseline_are_drawn_from_the_same_prompts_and_seeds(work: Work) -> None:
    result = compare.run(work, FULL)
    assert (result.data["drawn"], result.data["kept"], result.data["left_out"]) == (3 * CELLS, 0, 0)
    asked = {(p, seed) for p in ("4nna", "4nna, a dog", "a woman") for seed in (1, 2)}
    for name in (None, "anna-000001.safetensors", "anna-000002.safetensors"):
        assert {(p, seed) for saved, _, p, seed in FakeStudio.asked if saved == name} == asked


def test_only_what_is_new_is_drawn(work: Work) -> None:
    compare.run(work, FULL)
    again = compare.run(work, FULL)
    assert (again.data["drawn"], again.data["kept"]) == (0, 3 * CELLS)
    FakeStudio.asked = []
    save(work, 3)
    third = compare.run(work, FULL)
    assert (third.data["drawn"], third.data["kept"]) == (CELLS, 3 * CELLS)
    assert {saved for saved, *_ in FakeStudio.asked} == {"anna-000003.safetensors"}
    assert compare.run(work, FULL.model_copy(update={"seeds": (1, 2, 5)})).data["drawn"] == 4 * 3


def test_equal_tensors_are_one_cell_whatever_the_file_is_called(work: Work) -> None:
    save(work, 3, "epoch 2")
    assert compare.run(work, FULL).data["drawn"] == 3 * CELLS
    columns = told(work)["columns"]
    assert [c["likeness"] for c in columns[3]["cells"]] == [c["likeness"] for c in columns[2]["cells"]]
    assert columns[3]["likeness_error"] == columns[2]["likeness_error"]


def test_a_lost_cell_is_drawn_again_and_another_base_draws_all(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    compare.run(work, FULL)
    next((work.place.comparison / "cells").glob("*.png")).unlink()
    assert compare.run(work, FULL).data["drawn"] == 1
    monkeypatch.setattr(compare, "base_identity", lambda space, models: "base 2")
    assert compare.run(work, FULL).data["drawn"] == 3 * CELLS
    monkeypatch.setattr(compare, "drawn_with", lambda dtype: ("fp16", "cpu"))
    assert compare.run(work, FULL).data["drawn"] == 3 * CELLS  # as on another machine


def test_scores_are_whole_and_the_same_every_time(work: Work) -> None:
    compare.run(work, FULL)
    first = told(work)
    compare.run(work, FULL)
    assert told(work) == first
    assert [(c["save"], c["label"], c["epoch"], c["strength"], c["base"]) for c in first["columns"]] == [
        (None, "baseline", 0, 0.0, "base"),
        ("anna-000001.safetensors", "epoch 1", 1, 1.0, "base"),
        ("anna-000002.safetensors", "epoch 2", 2, 1.0, "base"),
    ]
    assert (first["version"], first["kind"], first["class"]) == (2, "person", "woman")
    assert [p["group"] for p in first["prompts"]] == ["like", "unlike", "without"]
    assert first["set"]["pictures"] == [f"{i:04}.png" for i in range(1, 6)]
    assert first["resolution"] == SIDE  # 27 in the papers, rounded down to a multiple of 8
    assert (first["budget"]["planned"], first["budget"]["drawn"], first["budget"]["kept"]) == (18, 18, 0)
    for column in first["columns"]:
        asked = [c["likeness"] for c in column["cells"] if c["prompt"] < 2]
        assert column["likeness"] == pytest.approx(np.mean(asked))
        assert [(c["prompt"], c["seed"]) for c in column["cells"]] == [(p, s) for p in range(3) for s in (1, 2)]
        assert [c["fit"] is None for c in column["cells"]] == [True, True, False, False, False, False]
        assert all((work.place.comparison / c["file"]).is_file() for c in column["cells"])


def test_the_nearest_picture_is_called_as_the_set_calls_it(work: Work) -> None:
    more = work.place.images / "3_4nna hat"
    more.mkdir()
    shutil.copy(next(work.place.images.glob("12_4nna/*.png")), more / "0001.png")
    compare.run(work, FULL)
    names = [p.name for p in work.set.pictures]
    assert len(set(names)) == 6 and told(work)["set"]["pictures"] == names
    assert {cell["nearest"] for column in told(work)["columns"] for cell in column["cells"]} <= set(names)


def test_the_csv_has_a_row_per_drawn_cell_and_no_formula(work: Work) -> None:
    compare.run(work, FULL.model_copy(update={"prompts": ("{trigger}", "=1+1, {trigger}, é")}))
    text = (work.place.comparison / "scores.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 3 * 2 * 2
    assert {r["prompt"] for r in rows} == {"4nna", "'=1+1, 4nna, é"}
    assert rows[0]["save"] == "baseline"


def test_strengths_are_of_the_best_save_unless_all_is_asked_for(work: Work) -> None:
    save(work, 2, "good")
    some = SETTINGS.model_copy(update={"strengths": (0.6, 0.9)})
    assert compare.run(work, some).data["drawn"] == 4 * CELLS
    found = {(c["save"], c["strength"]): [x["file"] for x in c["cells"]] for c in told(work)["columns"]}
    assert list(found)[1:3] == [("anna-000001.safetensors", 0.6), ("anna-000001.safetensors", 0.9)]
    assert not any(found["anna-000001.safetensors", 0.6])
    assert all(found["anna-000002.safetensors", 0.6])
    assert told(work)["strength"] == 0.9
    empty = told(work)["columns"][1]
    assert empty["likeness"] is None
    assert {c["command"] for c in empty["cells"]} == {"lora compare anna --full"}
    assert compare.run(work, some.model_copy(update={"full": True})).data["drawn"] == CELLS


def test_the_saves_are_in_the_order_of_training(work: Work) -> None:
    write_save(work.place.result / "anna-000010.safetensors", "ten", ss_epoch="None")
    write_save(work.place.result / ".anna-000011.safetensors", "in the making")
    assert [(s.epoch, s.label) for s in _saves.find_saves(work)] == [(1, "epoch 1"), (2, "epoch 2"), (10, "epoch 10")]


def test_saves_by_step_are_columns_of_their_own(work: Work) -> None:
    """Also where the file says nothing but its name, and between the ends of epochs."""
    result = work.place.result
    write_save(result / "anna-step00000015.safetensors", "15", ss_epoch="2", ss_steps="15", **TRAINED)
    save(work, 1, ss_steps="10")
    save(work, 2, ss_steps="20")
    compare.run(work, SETTINGS)
    found = [(c["label"], c["epoch"], c["step"]) for c in told(work)["columns"]]
    assert found == [("baseline", 0, 0), ("epoch 1", 1, 10), ("step 15", 2, 15), ("epoch 2", 2, 20)]
    rows = list(csv.DictReader((work.place.comparison / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert {(r["save"], r["step"]) for r in rows} >= {("anna-step00000015.safetensors", "15"), ("baseline", "0")}
    bare = write_save(result / "anna-step00000100.safetensors", "bare")
    assert next((s.epoch, s.step, s.label) for s in _saves.find_saves(work) if s.path == bare) == (0, 100, "step 100")


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


def test_check_lists_all_that_is_wrong(work: Work, tmp_path: Path) -> None:
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
    work.recipe.origins["compare.loras"] = "command line"
    (missing,) = compare.check(work, compare.Settings(loras=(str(tmp_path / "none.safetensors"),)))
    assert "no file" in missing.message


def test_what_it_sees_are_the_saves_the_pictures_their_captions_and_who_looks_closer(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compare.sees(work, SETTINGS)
    saves = {f"anna-{i:06}.safetensors" for i in (1, 2)}
    assert set(before) == saves | {f"{i:04}.png" for i in range(1, 6)} | {"captions", "dino", "gates"}
    (work.set.pictures[0].path.with_suffix(".txt")).write_text("4nna, a hat", encoding="utf-8")
    after = compare.sees(work, SETTINGS)
    assert {key for key in after if after[key] != before[key]} == {"captions"}
    monkeypatch.setattr(dino, "identity", lambda model: "another")
    assert compare.sees(work, SETTINGS)["dino"] != after["dino"]
    monkeypatch.setattr(compare, "closer", lambda work: "")
    assert after.keys() - compare.sees(work, SETTINGS).keys() == {"dino"}


def test_the_order_of_files_changes_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    compare.run(work, FULL)
    first = told(work)
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(sorted(glob(self, pattern), reverse=True)))
    compare.run(work, FULL)
    assert told(work) == first


# ---------------------------------------------------------------- the studio


def layer(base: Any, family: Any, ending: str, part: str) -> dict[str, Any]:
    """A LoRA of one layer, by kohya's name."""
    import torch

    path, name = next((p, n) for p, n in family.key_names(base).items() if p.endswith(ending) and p.startswith(part))
    out, into = base.parts[part].get_submodule(path.partition(".")[2]).weight.shape
    told = {"lora_down.weight": torch.ones(1, into), "lora_up.weight": torch.ones(out, 1), "alpha": torch.tensor(1.0)}
    return {f"{name}.{key}": value for key, value in told.items()}


def test_the_studio_draws_with_each_save_reads_texts_once_and_leaves_no_trace(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from lorafactory import families

    family = families.get("sd15")
    base = family.tiny()
    read: list[str] = []
    encode = family.encode_captions

    def counted(base: Any, captions: Any, frames: Any, **told: Any) -> Any:
        read.extend(captions)
        return encode(base, captions, frames, **told)

    monkeypatch.setattr(families, "load", lambda path, dtype, device, **told: base)
    monkeypatch.setattr(family, "encode_captions", counted)
    for epoch, (ending, part) in {3: ("to_q", "unet"), 4: ("fc1", "text_encoder")}.items():
        save_file(layer(base, family, ending, part), work.place.result / f"anna-{epoch:06}.safetensors")
    home = compare.checkpoint(work)
    bare, unet, text = (
        _cells.Column(home),
        *(
            _cells.Column(home, _saves.told(work.place.result / f"anna-{epoch:06}.safetensors"), 1.0, str(epoch))
            for epoch in (3, 4)
        ),
    )
    studio = _studio.Studio(_cells.How(32, 1, 2, 7.0, "fp32", "cpu"), 4)

    def draw(column: _cells.Column) -> list[bytes]:
        studio._take(column)
        return [p.tobytes() for p in studio.draw(["a", "b"], [1, 1], 2)]

    before, with_unet, with_text, after = draw(bare), draw(unet), draw(text), draw(bare)
    assert before == after
    assert len({tuple(before), tuple(with_unet), tuple(with_text)}) == 3
    assert draw(unet) == with_unet
    assert sorted(read) == sorted(["a", "b", ""] * 2)  # once as they are, once by the text encoder with a LoRA
