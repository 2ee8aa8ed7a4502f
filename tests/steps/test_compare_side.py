"""compare beside the choice of a save: files from anywhere, other bases, settings and blocks side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_sets import SETTINGS, FakeStudio, make_work, save, told, write_save

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.step import Work
from lorafactory.steps import _axis, _saves, compare
from tests.conftest import Said

QUICK = ("--seeds", 1, "--seeds", 2, "--steps", 2)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return make_work(tmp_path, monkeypatch)


# ---------------------------------------------------------------- for real, with few cells


def test_files_from_anywhere_are_compared_without_a_set(
    lora: Callable[..., Said], trained: Path, tmp_path: Path, space: Path
) -> None:
    first, *_, last = sorted((trained / "loras" / "demo" / "result_current").glob("*.safetensors"))
    command = ("compare", last, first, "--base", "pocket", "--prompts", "a large red star", *QUICK, "--strengths", 1)
    here = sorted(tmp_path.iterdir())
    said = lora(*command, "--full")
    assert said.code == 0, said.err
    folder = space / "compared" / last.stem
    assert "6 drawn" in said.out and f"grid {folder / 'grid.png'}" in said.out
    assert sorted(tmp_path.iterdir()) == [*here, space]  # nothing lies loose where the person is
    assert {path.name for path in space.iterdir()} <= {"compared", "cache"}  # it belongs to no LoRA of the workspace
    again = lora(*command, "--to", folder, "--full", "--axis", "epoch")
    assert again.code == 0, again.err
    assert "0 drawn, 6 kept" in again.out
    scores: dict[str, Any] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert [c["label"] for c in scores["columns"]] == ["baseline", "epoch 1", "epoch 3"]
    assert scores["set"]["ceiling"] is None
    for column in scores["columns"]:
        assert column["likeness"] is None
        assert column["fit"] is not None
        assert all(cell["copy"] is None and cell["nearest"] is None for cell in column["cells"])
    assert scores["columns"][0]["fit"] != scores["columns"][2]["fit"]


def test_on_another_base_the_best_save_is_drawn_beside_its_own_baseline(
    lora: Callable[..., Said], demo: Path, tmp_path: Path
) -> None:
    from lorafactory.workspace import find_workspace, model_set

    own, other = model_set(find_workspace(demo), "pocket").base, tmp_path / "other"
    assert own is not None
    shutil.copytree(own, other)
    unet = next((other / "unet").glob("*.safetensors"))
    shift(unet)
    said = lora("compare", "demo", "--on", other, *QUICK, "--budget", 0)
    assert said.code == 0, said.err
    told: dict[str, Any] = json.loads(
        (demo / "loras" / "demo" / "txt2img-images" / "scores.json").read_text(encoding="utf-8")
    )
    home, elsewhere = ([c for c in told["columns"] if c["base"] == base.name] for base in (own, other))
    assert [c["save"] is None for c in elsewhere] == [True, False]
    twin = next(c for c in home if (c["save"], c["strength"]) == (elsewhere[1]["save"], elsewhere[1]["strength"]))
    pairs = [(a, b) for a, b in zip(elsewhere[1]["cells"], twin["cells"], strict=True) if a["file"] and b["file"]]
    assert pairs
    assert all(a["file"] != b["file"] for a, b in pairs)
    share = sum(a["likeness"] for a, _ in pairs) / sum(b["likeness"] for _, b in pairs)
    assert elsewhere[1]["portability"] == pytest.approx(share)
    assert f"on other: {share:.0%}" in said.out


def shift(unet: Path) -> None:
    """Make another base of a base."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(unet)
    save_file({name: tensor * 1.02 for name, tensor in tensors.items()}, unet, metadata={"format": "pt"})


def test_blocks_are_left_out_one_group_at_a_time(lora: Callable[..., Said], demo: Path) -> None:
    before = (demo / "loras" / "demo" / "txt2img-images" / "scores.json").read_bytes()
    said = lora("compare", "demo", "--axis", "blocks", *QUICK, "--budget", 0)
    assert said.code == 0, said.err
    assert "to keep it" not in said.err
    again = "lora compare demo --seeds 1 --seeds 2 --steps 2 --axis blocks --full"
    assert f"left out: {again}" in said.out
    folder = demo / "loras" / "demo" / "txt2img-images"
    told: dict[str, Any] = json.loads((folder / "by-blocks" / "scores.json").read_text(encoding="utf-8"))
    labels = [c["label"] for c in told["columns"]]
    assert labels == ["baseline", "epoch 3", *(f"without {g}" for g in ("IN", "MID", "OUT", "text encoder"))]
    files = [[c["file"] for c in column["cells"] if c["file"]] for column in told["columns"]]
    assert len({tuple(own) for own in files}) == 6
    assert len({(folder / "by-blocks" / own[0]).read_bytes() for own in files}) == 6
    assert (folder / "scores.json").read_bytes() == before  # the choice of a save goes by that one
    assert "compare: up to date" in lora("compare", "demo", "--axis", "blocks", *QUICK, "--budget", 0).out
    assert "everything is up to date" in lora("make", "demo").out


# ---------------------------------------------------------------- which columns there are


def test_an_axis_lays_out_the_last_save_of_each_training(work: Work) -> None:
    for number, (folder, rank) in enumerate((("2026-01-01", "8"), ("2026-02-01", "128"), ("2026-03-01", "16"))):
        for epoch in (1, 2):
            path = work.place.earlier_results / folder / f"anna-{epoch:06}.safetensors"
            write_save(path, f"{number} {epoch}", ss_epoch=str(epoch), ss_network_dim=rank)
    save(work, 3, ss_network_dim="8")
    by_rank = SETTINGS.model_copy(update={"axis": "rank"})
    before = compare.sees(work, by_rank)
    compare.run(work, by_rank)
    labels = [c["label"] for c in told(work, "by-rank")["columns"]]
    assert labels == ["baseline", "rank 8, anna-000002", "rank 8, anna-000003", "rank 16", "rank 128"]
    assert not (work.place.comparison / "scores.json").exists()
    assert {name for name, *_ in FakeStudio.asked} == {None, "anna-000002.safetensors", "anna-000003.safetensors"}
    other = work.place.earlier_results / "2026-04-01" / "anna-000002.safetensors"
    write_save(other, "4", ss_epoch="2", ss_network_dim="4")  # called as another is
    assert compare.sees(work, by_rank) != before


def test_the_line_that_draws_the_rest_says_what_was_typed_and_lora_toml_does_not(work: Work) -> None:
    asked = SETTINGS.model_copy(update={"seeds": (7, 8), "steps": 30})
    for key in ("trigger", "compare.seeds", "compare.steps"):
        work.recipe.origins[key] = "command line"
    assert compare.full_command(work, asked) == "lora compare anna --trigger 4nna --seeds 7 --seeds 8 --steps 30 --full"
    work.place.settings.write_text('trigger = "4nna"\n[compare]\nseeds = [7, 8]\n', encoding="utf-8")
    assert compare.full_command(work, asked) == "lora compare anna --steps 30 --full"


def test_the_line_for_a_folder_acts_and_says_all_of_the_base(work: Work) -> None:
    header = work.recipe.header.model_copy(update={"vae": "v.safetensors", "prediction": "v_prediction"})
    work.recipe.origins.update(dict.fromkeys(("vae", "prediction"), "command line"))
    elsewhere = replace(work, place=replace(work.place, owned=False), recipe=replace(work.recipe, header=header))
    line = f"{elsewhere.place.root} --vae v.safetensors --prediction v_prediction --apply --full"
    assert compare.full_command(elsewhere, SETTINGS) == f"lora compare {line}"


def test_the_line_for_files_beside_a_lora_names_both(work: Work, tmp_path: Path) -> None:
    to, file = tmp_path / "out", tmp_path / "a.safetensors"
    asked = SETTINGS.model_copy(update={"loras": (str(file),), "to": str(to)})
    assert compare.full_command(work, asked) == f"lora compare anna --loras {file} --to {to} --full"
    alone = replace(work, place=replace(work.place, root=to))
    assert compare.full_command(alone, asked).startswith(f"lora compare {file} --base pocket")


def test_bases_that_are_called_the_same_are_not_taken_for_one(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    home = compare.checkpoint(work)
    monkeypatch.setattr(compare, "checkpoint", lambda work, name: replace(home, identity=name))
    found = compare.others(work, SETTINGS.model_copy(update={"on": ("/a", "/b")}), home)
    assert [(base.name, base.identity) for base in found] == [("base (2)", "/a"), ("base (3)", "/b")]


def test_an_axis_that_tells_nothing_apart_names_those_that_do(work: Work) -> None:
    paths = [work.place.root / f"{name}.safetensors" for name in "ab"]
    for path, lr in zip(paths, ("1e-4", "2e-5"), strict=True):
        write_save(path, path.stem, ss_learning_rate=lr, ss_network_dim="8", ss_output_name=path.stem)
    saves = [_saves.told(path) for path in paths]
    with pytest.raises(SettingsError, match=r"--axis rank: nothing to lay beside a.safetensors"):
        _axis.by_setting(saves[:1], "rank")
    with pytest.raises(SettingsError, match=r"all files say ss_network_dim = 8\n *they differ in: lr$"):
        _axis.by_setting(saves, "rank")
    with pytest.raises(SettingsError, match="no file tells ss_colour"):
        _axis.by_setting(saves, "colour")
    assert [s.label for s in _axis.by_setting(saves, "lr")] == ["lr 2e-5", "lr 1e-4"]


def test_every_layer_of_every_family_is_in_a_group_or_outside_of_the_blocks() -> None:
    for name in families.names():
        family = families.get(name)
        keys = [f"{key}.alpha" for key in family.key_names(family.tiny()).values()]
        left = keys
        for group in _axis.GROUPS:
            fewer = list(_axis.without(dict.fromkeys(left, 0), group))
            assert len(fewer) < len(left), (name, group)
            left = fewer
        assert not [key for key in left if "block" in key]


def test_axis_and_files_are_for_the_command_line(work: Work) -> None:
    (problem,) = compare.check(work, SETTINGS.model_copy(update={"axis": "blocks"}))
    assert "command line" in problem.message
    work.recipe.origins["compare.axis"] = "command line"
    assert compare.check(work, SETTINGS.model_copy(update={"axis": "blocks"})) == []


def test_another_family_is_refused_before_anything_is_drawn(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "detect", lambda path: "sdxl" if "xl" in str(path) else "sd15")
    xl = work.place.root / "xl"
    xl.mkdir()
    (xl / "model_index.json").write_text("{}")
    (problem,) = compare.check(work, SETTINGS.model_copy(update={"on": (str(xl),)}))
    assert "family sdxl" in problem.message
