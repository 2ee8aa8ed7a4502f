"""The command line itself: quick help, sections, exit codes, one clear message each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lorafactory import cli, steps

HEAVY = ("torch", "diffusers", "transformers", "peft", "open_clip", "pydantic", "rich", "numpy", "PIL")


def test_help_imports_click_only():
    code = (
        "import sys; from lorafactory import cli; code = cli.run(['--help']);"
        f"print(code, [m for m in {HEAVY} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("0 []")
    assert "lora make demo" in out


def test_a_steps_help_imports_no_torch():
    code = (
        "import sys; from lorafactory import cli\n"
        f"for name in {steps.names()!r}: assert cli.run([name, '--help']) == 0\n"
        f"print([m for m in {HEAVY[:5]} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


def test_every_command_has_one_line_and_an_example(lora):
    for name in cli.lora.list_commands(None):
        line = cli.first_line(name)
        assert line.endswith("."), name
        said = lora(name, "--help")
        assert said.code == 0
        assert f"lora {name}" in said.out.partition("For example:")[2], name


def test_a_wrong_command_is_a_usage_error(lora):
    assert lora("mak", "demo").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["make", "anna"], 3, ["--from FOLDER", "inbox"]),
        (["make", "anna", "--from", "nowhere"], 3, ["nowhere", "no such folder"]),
        (["make", "anna", "--from", "empty"], 3, ["empty", "no picture"]),
        (["make", "anna", "--from", "photos"], 3, ["No base model is named", "--base"]),
        (["make", "anna", "--from", "photos", "--base", "model.ckpt"], 3, ["model.ckpt", "safetensors"]),
        (["make", "anna", "--from", "photos", "--base", "nothing-like-it"], 3, ["nothing-like-it", "--base"]),
        (["make", "anna", "--from", "photos", "--base", "pocket", "--set", "train.epoch=2"], 2, ["train.epoch"]),
        (["make", "anna", "--from", "photos", "--base", "pocket", "--recipe", "typo.toml"], 2, ["trian", "train"]),
        (["make", "anna", "--from", "photos", "--base", "pocket", "--to", "nowhere"], 2, ["--to", "caption"]),
        (["dedupe", "nowhere"], 2, ["nowhere", "lora make"]),
        (["make", "..", "--from", "photos"], 2, ["name"]),
    ],
)
def test_mistakes_are_named_and_nothing_is_touched(lora, space: Path, tmp_path: Path, arguments, code, words):
    from PIL import Image

    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (300, 300), (90 * i, 40, 60)).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "model.ckpt").write_bytes(b"x")
    (tmp_path / "typo.toml").write_text("[trian]\nepochs = 2\n")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    said = lora(*arguments)
    assert (said.code, [w for w in words if w not in said.err]) == (code, [])
    assert "Traceback" not in said.err
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
