"""What a step was told on its own command line: said how to keep it, where the next `make` would do otherwise."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lorafactory import settings
from lorafactory.workspace import Workspace
from tests.conftest import Said

THIS_ONCE = "this once; to keep it: "


@pytest.fixture
def anna(space: Path) -> Path:
    folder = space / "loras" / "anna" / "training_images" / "1_4nna"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 300)).save(folder / "0001.png")
    (space / "loras" / "anna" / "lora.toml").write_text('base = "pocket"\ntrigger = "4nna"\nclass = "woman"\n')
    return space / "loras" / "anna"


def told(said: Said) -> list[str]:
    """The options that the one line says, as a shell would read them."""
    assert said.code == 0, said.err
    lines = [line for line in said.err.splitlines() if line.startswith(THIS_ONCE)]
    assert len(lines) <= 1
    return shlex.split(lines[0].removeprefix(THIS_ONCE)) if lines else []


def test_what_would_not_last_is_said_with_the_way_to_keep_it(lora: Callable[..., Said], anna: Path) -> None:
    text = '{trigger}, "a" \\ {class}\'s photo $HOME'
    line = told(lora("caption", "anna", "--text", text, "--no-clip", "--batch", "2"))
    assert line[:3] == ["lora", "make", "anna"]
    values = [tomllib.loads(word) for word in line[4::2]]
    assert values == [{"caption": {"text": text}}, {"caption": {"no_clip": True}}]  # batch is neutral
    assert told(lora("repeats", "anna", "--policy", "steps=20", "--kind", "style")) == [
        *("lora", "make", "anna", "--kind=style"),
        *("--set", 'repeats.policy="steps=20"'),
    ]


def test_what_was_kept_is_not_said_again(lora: Callable[..., Said], anna: Path, space: Path) -> None:
    place = Workspace(space, "test").lora("anna")
    command = ("caption", "anna", "--text", "x", "--add", "a, b", "--add", "c")
    line = told(lora(*command))
    assert line[4::2] == ['caption.text="x"', 'caption.add=["a, b", "c"]']
    settings.write(place, {"caption.text": "x", "caption.add": ["a, b", "c"]})
    assert told(lora(*command)) == []
    assert told(lora("repeats", "anna", "--policy", "400/n")) == []  # what make would use anyway


def test_a_folder_elsewhere_has_no_make(lora: Callable[..., Said], anna: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (anna / "training_images").rename(folder)
    assert told(lora("repeats", folder, "--policy", "7", "--apply")) == []
    assert (folder / "7_4nna").is_dir()


@pytest.mark.parametrize("typed", ['light = ["soft", "hard"]', '{light = ["soft", "hard"]}'])
def test_words_by_name_may_be_typed_with_or_without_braces(lora: Callable[..., Said], anna: Path, typed: str) -> None:
    line = told(lora("caption", "anna", "--text", "x", "--words", typed, "--word-margin", "1"))
    kept = [value["caption"]["words"] for word in line[4::2] if "words" in (value := tomllib.loads(word))["caption"]]
    assert kept == [{"light": ["soft", "hard"]}]


def test_words_that_have_no_name_are_refused_with_an_example(lora: Callable[..., Said], anna: Path) -> None:
    said = lora("caption", "anna", "--text", "x", "--words", "soft lighting")
    assert said.code == 2
    assert "--words soft lighting: not words by name; as in --words 'light = [" in said.err
