"""What is said of a base beside its place, `vae` and `prediction`, from the recipe to all who load the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lorafactory import families, settings, step, steps
from lorafactory.errors import BaseError
from lorafactory.families import Found
from lorafactory.intake import Origin
from lorafactory.making import asked
from lorafactory.pocket import MODELS
from lorafactory.step import Work
from lorafactory.training import lora_file, precision
from lorafactory.workspace import ModelSet, base_identity, find_workspace, identity, model_set, no_base
from tests.conftest import Said

VAE = str(MODELS / "base" / "vae")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The pocket base without its VAE; it does not say what it answers."""
    folder = Path(shutil.copytree(MODELS / "base", tmp_path / "bare"))
    shutil.rmtree(folder / "vae")
    config = folder / "scheduler" / "scheduler_config.json"
    told = json.loads(config.read_text())
    del told["prediction_type"]
    config.write_text(json.dumps(told))
    return folder


@pytest.fixture
def folder(space: Path, tmp_path: Path) -> Path:
    root = tmp_path / "4_zqx"
    root.mkdir()
    Image.new("RGB", (96, 96), (200, 90, 30)).save(root / "0001.png")
    return root


def work_of(space: Path, given: dict[str, Any]) -> Work:
    found = find_workspace(space)
    place = found.lora("anna")
    return Work(found, place, settings.effective(found, place, given))


def test_training_with_another_vae_and_prediction(lora: Callable[..., Said], folder: Path, bare: Path) -> None:
    line = ("train", folder, "--base", bare, "--batch", "2", "--epochs", "1")
    said = lora(*line)
    assert said.code == 3 and "has no VAE. Give one: vae = FILE" in said.err
    assert "there is no such VAE" in lora(*line, "--vae", "nowhere.safetensors").err
    said = lora(*line, "--vae", VAE, "--prediction", "v_prediction", "--cpu", "--apply")
    assert said.code == 0, said.err
    (save,) = (folder / "result_current").glob("*.safetensors")
    told = lora_file.read(save)[1]
    assert (told["ss_vae_name"], told["modelspec.prediction_type"]) == ("vae", "v")
    again = lora(*line, "--vae", VAE, "--prediction", "noise")
    assert again.code == 2 and "epsilon" in again.err


def test_it_is_kept_in_the_recipe_and_makes_another_base(space: Path, bare: Path) -> None:
    plain = work_of(space, {"base": "pocket"})
    told = work_of(space, {"base": "pocket", "vae": VAE, "prediction": "v_prediction"})
    assert told.models.told == {"vae": Path(VAE), "prediction": "v_prediction"}
    keys = {step.cache_key(steps.get("train"), w, steps.get("train").Settings()) for w in (plain, told)}
    assert len(keys) == 2
    values = [{}, {"vae": VAE}, {"prediction": "v_prediction"}, {"prediction": "epsilon"}]
    found = [base_identity(plain.workspace, model_set(plain.workspace, "pocket", **v)) for v in values]
    assert len(set(found)) == 4
    unet = ModelSet(bare / "unet", "", "")
    assert base_identity(plain.workspace, unet) == identity(plain.workspace, bare / "unet")  # nothing is said


def test_a_corrected_schedule_makes_another_base(space: Path, tmp_path: Path) -> None:
    found, path = find_workspace(space), model_set(find_workspace(space), "pocket").base
    assert path is not None
    shutil.copytree(path, tmp_path / "mended")
    config = tmp_path / "mended" / "scheduler" / "scheduler_config.json"

    def said(**more: object) -> str:
        config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), **more}), encoding="utf-8")
        return base_identity(found, ModelSet(tmp_path / "mended", "", ""))

    assert (
        said(_diffusers_version="99") == base_identity(found, ModelSet(path, "", "")) != said(prediction_type="sample")
    )


def test_a_vae_is_kept_whole_in_lora_toml(space: Path, tmp_path: Path) -> None:
    found = find_workspace(space)
    origin = Origin("from", tmp_path)
    values = asked(found, found.lora("anna"), origin, {"base": "pocket", "vae": VAE})
    assert values["vae"] == str(Path(VAE).resolve())
    settings.write(found.lora("anna"), values)
    assert work_of(space, {}).recipe.header.vae == values["vae"]


def test_all_who_load_the_base_pass_it_on(space: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Path, Any, Any]] = []

    def load(path: Path, *, dtype: Any, device: str, vae: Path | None, prediction: str | None) -> Any:
        loaded.append((path, vae, prediction))
        return SimpleNamespace(parts={"unet": SimpleNamespace(is_gradient_checkpointing=False)})

    monkeypatch.setattr(families, "get", lambda name: SimpleNamespace(load=load))
    monkeypatch.setattr("lorafactory.training.memory.recompute", lambda base, on: None)
    work = work_of(space, {"base": str(bare), "vae": VAE, "prediction": "v_prediction"})
    compare, generate = steps.get("compare"), steps.get("generate")
    here = compare.checkpoint(work)
    compare.Studio(compare.How(96, 1, 2, 3.0, "fp32", "cpu"), batch=1).have(here)
    generate.load(generate.models(work, generate.Settings()))  # of `probe` too
    train = steps.get("train").Settings()
    precision.load(bare, precision.decide(bare, train, device="cpu"), **work.models.told)
    assert loaded == [(bare, Path(VAE), "v_prediction")] * 3
    # a base of its own has its own VAE
    assert generate.models(work, generate.Settings(base="pocket")).told == {"vae": None, "prediction": None}


def test_settings_that_a_base_has_no_use_for_are_said_before_it_loads() -> None:
    train = steps.get("train")
    noise, v, xl = (
        Found("sd15", "epsilon", False),
        Found("sd15", "v_prediction", False),
        Found("sdxl", "epsilon", False),
    )
    s = train.Settings(scale_v_pred_loss=True, clip_skip=2)
    (problem,) = train.base_problems(noise, s)
    assert problem.fatal and "scale_v_pred_loss is for bases that predict v" in problem.message
    assert train.base_problems(v, s) == []
    skipped = train.base_problems(replace(xl, prediction_type="v_prediction"), s)
    assert [p.fatal for p in skipped] == [False] and "clip_skip = 2 has no effect: SDXL" in skipped[0].message


def test_a_capped_training_is_up_to_date(lora: Callable[..., Said], space: Path, folder: Path) -> None:
    place = space / "loras" / "anna" / "training_images" / "4_zqx"
    shutil.copytree(folder, place)
    line = ("train", "anna", "--base", "pocket", "--batch", "2", "--epochs", "5", "--max-steps", "5")
    first, second = lora(*line), lora(*line)
    assert first.code == 0 and "train: 4 steps, 2 saves" in first.out, first.err
    assert "up to date" in second.out


def test_no_base_names_both_families(space: Path) -> None:
    assert "an SD 1.5 or SDXL checkpoint" in no_base(find_workspace(space))
    with pytest.raises(BaseError, match="SDXL"):
        model_set(find_workspace(space), None)
