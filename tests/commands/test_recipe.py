"""`lora recipe`: list, show, read and write, as a person types them."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

FILES = Path(__file__).parent.parent / "recipe_formats"


def told(lora, name: str) -> dict[str, object]:
    """What `show` says of every setting."""
    pairs = (line.partition("  # ")[0].partition(" = ") for line in lora("recipe", "show", name).out.splitlines())
    return {key: ast.literal_eval(value.strip()) for key, _, value in pairs}


def test_list_has_a_line_for_each(lora):
    lines = lora("recipe", "list").out.splitlines()
    assert {line.split()[0] for line in lines} >= {"demo", "portrait", "civitai", "style", "character", "lazy", "icons"}
    assert all(len(line.split()) > 3 for line in lines)


def test_show_says_where_each_value_comes_from(lora, space: Path):
    place = space / "loras" / "anna"
    place.mkdir(parents=True)
    (space / "lorafactory.toml").write_text("[train]\nbatch = 3\nepochs = 2\n")
    (place / "lora.toml").write_text('base = "pocket"\nrecipe = "civitai"\n[train]\nrank = 8\n')
    lines = {line.split(" = ")[0]: line for line in lora("recipe", "show", "anna").out.splitlines()}
    assert lines["train.epochs"].split() == ["train.epochs", "=", "16", "#", *lines["train.epochs"].split()[4:]]
    assert lines["train.epochs"].endswith("civitai.toml")
    assert lines["train.batch"].endswith("civitai.toml")
    assert lines["train.rank"].endswith("lora.toml")
    assert lines["train.resolution"].endswith("default.toml")
    assert lines["train.seed"].endswith("default")


def test_without_a_recipe_it_is_portrait_and_lorafactory_toml_wins(lora, space: Path):
    (space / "loras" / "anna").mkdir(parents=True)
    (space / "loras" / "anna" / "lora.toml").write_text('base = "pocket"\n')
    (space / "lorafactory.toml").write_text("[train]\nepochs = 2\n")
    lines = {line.split(" = ")[0]: line for line in lora("recipe", "show", "anna").out.splitlines()}
    assert "= 2 " in lines["train.epochs"]
    assert lines["train.epochs"].endswith("lorafactory.toml")
    assert lines["kind"].endswith("portrait.toml")


def test_read_is_a_receipt_and_keeps_nothing(lora, space: Path):
    said = lora("recipe", "read", FILES / "civitai.json")
    assert said.code == 0
    assert "train.lr = 1.0" in said.out
    assert said.out.splitlines()[-1].startswith("Civitai trainer JSON: ")
    assert not space.exists()


def test_read_as_makes_a_recipe_like_any_other(lora, space: Path):
    said = lora("recipe", "read", FILES / "kohya_gui.json", "--as", "soft")
    assert said.code == 0, said.err
    kept = (space / "recipes" / "soft.toml").read_text(encoding="utf-8")
    assert kept.startswith("# Read from kohya_gui.json")
    assert "# refused color_aug" in kept
    assert "T0KEN" not in kept
    assert any(line.startswith("soft ") for line in lora("recipe", "list").out.splitlines())
    shown = lora("recipe", "show", "soft").out
    assert "train.rank = 64" in shown
    assert "train.warmup = 0.1" in shown
    assert lora("recipe", "read", FILES / "kohya_gui.json", "--as", "soft").code == 2
    assert lora("recipe", "read", FILES / "kohya_gui.json", "--as", "portrait").code == 2
    assert (space / "recipes" / "soft.toml").read_text(encoding="utf-8") == kept


@pytest.mark.parametrize("name", ["lazy", "soft"])
def test_write_is_read_back_as_it_was(name: str, lora, space: Path, tmp_path: Path):
    lora("recipe", "read", FILES / "onetrainer.json", "--as", "soft")
    said = lora("recipe", "write", name, "--as", "kohya")
    assert said.code == 0, said.err
    written = tomllib.loads(said.out)
    assert written["optimizer_type"] == "prodigy"
    assert written["network_dim"] in (32, 64)
    again = tmp_path / "again.toml"
    again.write_text(said.out)
    lora("recipe", "read", again, "--as", "again")
    shown, first = ({key: value for key, value in told(lora, n).items() if key != "recipe"} for n in ("again", name))
    assert shown == first


def test_write_of_a_lora_says_where_its_pictures_are(lora, demo: Path):
    written = tomllib.loads(lora("recipe", "write", "demo", "--as", "kohya").out)
    assert Path(written["train_data_dir"]) == demo / "loras" / "demo" / "training_images"
    assert written["lorafactory"]["trigger"]
    assert written["network_args"] == ["conv_dim=16", "conv_alpha=16.0"]


@pytest.mark.parametrize("text", ["", "[", '{"a": 1}'])
def test_a_file_of_nothing_known_is_a_message(text: str, lora, tmp_path: Path):
    (tmp_path / "x.json").write_text(text)
    said = lora("recipe", "read", tmp_path / "x.json")
    assert said.code == 3
    assert "x.json" in said.err or "settings" in said.err
    assert lora("recipe", "read", tmp_path / "missing.json").code == 3
