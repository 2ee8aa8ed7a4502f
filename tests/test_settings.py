"""Recipes and layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorafactory import chain, settings, step, steps
from lorafactory.errors import SettingsError
from lorafactory.workspace import Workspace, find_workspace


@pytest.fixture
def workspace(space: Path) -> Workspace:
    space.mkdir()
    return find_workspace()


def all_settings(workspace: Workspace, name: str, given: dict) -> dict[str, object]:
    recipe = settings.effective(workspace, workspace.lora("anna"), {"recipe": name, **given})
    return {s: step.settings_of(steps.get(s), recipe) for s in chain.CHAIN}


@pytest.mark.parametrize("name", settings.recipe_names())
def test_every_recipe_loads_for_the_pocket(workspace: Workspace, name: str):
    values = all_settings(workspace, name, {"base": "pocket"})
    assert values["train"].resolution == 96


def test_there_are_recipes_with_a_header_comment():
    assert {"default", "demo"} <= set(settings.recipe_names())
    for name in settings.recipe_names():
        text = settings.recipe_path(name).read_text()
        assert text.startswith("# ")
        assert "lora make" in text.partition("\n\n")[0] or "lora make" in text


def test_layers_win_in_order(workspace: Workspace, tmp_path: Path):
    own = tmp_path / "own.toml"
    place = workspace.lora("anna")
    place.root.mkdir(parents=True)
    workspace.config_path.write_text('base = "pocket"\n[train]\nepochs = 2\nbatch = 2\nrank = 2\nlr = 0.2\n')
    own.write_text("# own\n[train]\nbatch = 3\nrank = 3\nlr = 0.3\n[pocket.train]\nlr = 0.35\n")
    place.settings.write_text(f'recipe = "{own}"\n[train]\nrank = 4\n')
    found = settings.effective(find_workspace(), place, {"train": {"alpha": 5}})
    values = step.settings_of(steps.get("train"), found)
    assert (values.epochs, values.batch, values.lr, values.rank, values.alpha) == (2, 3, 0.35, 4, 5)
    assert found.origins["train.rank"] == str(place.settings)
    assert found.origins["train.alpha"] == "command line"


def test_a_wrong_value_names_file_key_and_value(workspace: Workspace):
    place = workspace.lora("anna")
    place.root.mkdir(parents=True)
    place.settings.write_text('base = "pocket"\n[train]\nepochs = "many"\n')
    with pytest.raises(SettingsError) as caught:
        step.settings_of(steps.get("train"), settings.effective(workspace, place))
    assert all(word in str(caught.value) for word in (str(place.settings), "train.epochs", "many"))


def test_an_unknown_key_has_a_suggestion(workspace: Workspace):
    place = workspace.lora("anna")
    place.root.mkdir(parents=True)
    place.settings.write_text('bse = "pocket"\n')
    with pytest.raises(SettingsError, match="did you mean `base`"):
        settings.effective(workspace, place)


def test_writing_keeps_a_persons_comments(workspace: Workspace):
    place = workspace.lora("anna")
    place.root.mkdir(parents=True)
    place.settings.write_text('# mine\nbase = "pocket"  # the toy\n[train]\nepochs = 3 # few\n')
    changes = settings.write(place, {"base": "pocket", "train.epochs": 8, "class": "woman"})
    assert changes == ["- train.epochs = 3", "+ train.epochs = 8", '+ class = "woman"']
    text = place.settings.read_text()
    assert "# mine" in text
    assert "# the toy" in text
    assert settings.write(place, {"train.epochs": 8}) == []
    assert settings.effective(workspace, place).header.class_ == "woman"
