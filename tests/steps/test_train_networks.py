"""Adapter kinds, averages and optimizers as a person asks for them: files, papers, refusals, and what goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_train import OPTIONS, draw

from lorafactory.steps import _saves
from lorafactory.training import lora_file
from tests.conftest import Said

Lora = Callable[..., Said]


@pytest.fixture
def folder(space: Path, tmp_path: Path) -> Path:
    for number, colour in enumerate((30, 200), 1):
        draw(tmp_path / "set" / "2_zqx" / f"000{number}.png", colour)
    return tmp_path / "set"


def papers(path: Path) -> tuple[str, dict[str, str]]:
    told = lora_file.read(path)[1]
    return told["ss_network_module"], json.loads(told["ss_network_args"])


@pytest.mark.parametrize(
    ("options", "module", "args"),
    [
        (("--network", "dora"), "lycoris.kohya", {"algo": "lora", "dora_wd": "True", "preset": "attn-mlp"}),
        (
            ("--network", "lokr", "--lokr-factor", "8", "--rank-dropout", "0.1", "--conv-rank", "0"),
            "lycoris.kohya",
            {"algo": "lokr", "factor": "8", "rank_dropout": "0.1", "preset": "attn-mlp"},
        ),
        (
            ("--network", "dylora", "--unit", "8", "--up-lr-weight", "sine+.5"),
            "networks.dylora",
            {"unit": "8", "up_lr_weight": "sine+.5"},
        ),
    ],
)
def test_the_file_says_which_kind_it_is(
    lora: Lora, folder: Path, options: tuple[str, ...], module: str, args: dict[str, str]
) -> None:
    assert lora("train", folder, *OPTIONS, "--apply", *options).code == 0
    file = folder / "result_current" / "set-000001.safetensors"
    assert papers(file) == (module, args)
    read = lora("recipe", "read", file).out
    assert f"train.network = {options[1]!r}" in read
    assert "not with network" not in read


def test_the_average_is_a_save_of_its_own_and_goes_with_its_save(lora: Lora, folder: Path) -> None:
    options = (*OPTIONS, "--apply", "--ema", "--ema-decay", "0.5", "--lr", "1e-2")
    assert lora("train", folder, *options, "--epochs", "4", "--keep-last", "1").code == 0
    saves = _saves.saves_in(folder / "result_current")
    assert [(s.label, s.average) for s in saves] == [
        ("epoch 1", False),
        ("epoch 1, average", True),
        ("epoch 4", False),
        ("epoch 4, average", True),
    ]
    assert len({lora_file.tensor_hash(save.path) for save in saves}) == 4
    assert lora_file.read(saves[-1].path)[1]["ss_training_comment"].endswith("; EMA 0.5")
    again = lora("train", folder, *options, "--epochs", "4", "--keep-last", "1", "--more", "1")
    assert again.code == 0, again.err
    names = [s.path.name for s in _saves.saves_in(folder / "result_current")]
    assert names[-2:] == ["set-000005.safetensors", "set-000005-ema.safetensors"]


def test_what_does_not_go_together_is_said_before_a_model_loads(lora: Lora, folder: Path) -> None:
    wrong = ("--network", "dora", "--dropout", "0.1", "--optimizer", "prodigy", "--text-encoder-lr", "0.5", "--lr", "1")
    said = lora("train", folder, *OPTIONS, *wrong, "--block-dims", "4,4")
    assert said.code == 2
    assert "network dora has no dropout (it has: none)" in said.err
    assert "prodigy finds one learning rate for all that is trained: text_encoder_lr = 0, or 1.0" in said.err
    assert "train.block_dims has 2 numbers, and a base of family sd15 has 25 blocks" in said.err
