"""Disk and memory, estimated from headers alone."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorafactory.pocket import MODELS
from lorafactory.recipe import Header, Recipe
from lorafactory.setcheck import machine
from lorafactory.step import Work
from lorafactory.training.buckets import Fit
from lorafactory.training.settings import TrainSettings
from lorafactory.workspace import Workspace

POCKET = MODELS / "base"


@pytest.mark.parametrize("network", ["lora", "locon"])
@pytest.mark.parametrize("text_lr", [0.0, 1e-4])
def test_the_size_of_a_save_is_that_of_the_trainers_adapter(network: str, text_lr: float):
    """Counted from names in headers, and from the modules that the trainer would adapt."""
    from lorafactory import families, networks
    from lorafactory.training import adapter

    s = TrainSettings(network=network, rank=8, conv_rank=4, text_encoder_lr=text_lr)
    family = families.get("sd15")
    base = family.load(POCKET)
    parts = ["unet", "text_encoder"] if text_lr else ["unet"]
    numbers = 0
    for layer in adapter.layers(family, base, parts):
        size = networks.get(network).size(layer, s)
        if size:
            weight = base.parts[layer.part].get_submodule(layer.path).weight
            numbers += size.rank * (weight.shape[0] + weight[0].numel())
    assert machine.lora_bytes(POCKET, s, "fp16") == 2 * numbers > 0


def checkpoint(path: Path, shapes: dict[str, list[int]]) -> Path:
    """A one-file checkpoint in name and shape only: the tensors' bytes are zeros."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    told = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(told)) + told + bytes(at))
    return path


def test_a_one_file_checkpoint_is_read_by_its_own_names(tmp_path: Path):
    unet = "model.diffusion_model."
    file = checkpoint(
        tmp_path / "model.safetensors",
        {
            f"{unet}input_blocks.0.0.weight": [32, 4, 3, 3],
            f"{unet}time_embed.0.weight": [128, 32],
            f"{unet}input_blocks.1.0.in_layers.2.weight": [32, 32, 3, 3],
            f"{unet}input_blocks.1.1.proj_in.weight": [32, 32, 1, 1],
            f"{unet}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [32, 48],
            f"{unet}middle_block.1.proj_out.weight": [32, 32, 1, 1],
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": [64, 16],
            "first_stage_model.encoder.conv_in.weight": [8, 3, 3, 3],
        },
    )
    rank, conv = 4, 2
    s = TrainSettings(rank=rank, conv_rank=conv)
    attention = rank * (64 + 80 + 64)
    assert machine.lora_bytes(file, s, "fp32") == 4 * attention
    text = s.model_copy(update={"text_encoder_lr": 1e-5})
    assert machine.lora_bytes(file, text, "fp32") == 4 * (attention + rank * 80)
    locon = s.model_copy(update={"network": "locon"})
    assert machine.lora_bytes(file, locon, "fp32") == 4 * (attention + conv * (32 + 32 * 9))


def work(tmp_path: Path) -> Work:
    space = Workspace(tmp_path, "test")
    return Work(space, space.lora("anna"), Recipe(Header(base="pocket"), {}, {}))


@pytest.mark.parametrize(("free", "verdict"), [(10**12, "ok"), (30_000_000, "note"), (1_000_000, "problem")])
def test_the_disk_must_hold_what_a_training_writes(tmp_path: Path, monkeypatch, free: int, verdict: str):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    s = TrainSettings(epochs=6, resolution=96)
    fits = {"a": Fit((96, 96), (96, 96), (0, 0)), "b": None}
    row = machine.disk(work(tmp_path), POCKET, fits, s, "fp16", cells=90)
    assert row.verdict == verdict
    assert "6 saves" in row.value


@pytest.mark.parametrize(
    ("values", "saves"),
    [
        ({"epochs": 6, "save_every_epochs": 4}, 2),
        ({"epochs": 6, "save_every_steps": 10}, 8),  # of 6 x 24 / 2 = 72 steps, and the end
        ({"epochs": 6, "save_at": (5, 70, 900)}, 3),
        ({"epochs": 6, "save_every_steps": 10, "max_steps": 30}, 3),  # two whole epochs
        ({"epochs": 6, "keep_last": 2}, 3),  # and the first
    ],
)
def test_saves_are_counted_as_they_will_be_written(tmp_path: Path, values: dict[str, object], saves: int):
    """Two pictures whose repeats are not decided yet."""
    s = TrainSettings.model_validate({**values, "batch": 2, "resolution": 96})
    fits = {name: Fit((96, 96), (96, 96), (0, 0)) for name in "ab"}
    assert machine.saves_of(work(tmp_path), fits, s) == saves
    row = machine.disk(work(tmp_path), POCKET, fits, s, "fp16", cells=1)
    assert f"{saves} saves" in row.value


def told_by_nvidia(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    done = subprocess.CompletedProcess([], 0, stdout=text)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)


@pytest.mark.parametrize(("free", "verdict"), [(9216, "ok"), (3000, "note")])
def test_a_card_is_measured_against_the_family(monkeypatch: pytest.MonkeyPatch, free: int, verdict: str):
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cu128")
    told_by_nvidia(monkeypatch, f"NVIDIA GeForce RTX 3060, 12288, {free}\n")
    row = machine.card(POCKET, pocket=False)
    assert (row.verdict, row.wanted) == (verdict, "8 GB for sd15")
    assert "RTX 3060" in row.value and "12.0 GB" in row.value


def test_a_card_that_torch_cannot_use_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cpu")
    told_by_nvidia(monkeypatch, "NVIDIA H200, 143771, 143000\n")
    row = machine.card(POCKET, pocket=False)
    assert row.verdict == "note"
    assert "cannot use it" in row.value


def test_no_card_is_a_note_except_for_the_pocket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine.card(POCKET, pocket=False).verdict == "note"
    assert machine.card(POCKET, pocket=True).verdict == "ok"
    told_by_nvidia(monkeypatch, "No devices were found\n")
    assert machine.graphics_cards() == []


def test_the_base_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch):
    for available, verdict in ((10**9, "ok"), (10**6, "note")):
        told = SimpleNamespace(available=available, total=10**9)
        monkeypatch.setattr(machine.psutil, "virtual_memory", lambda told=told: told)
        assert machine.memory(POCKET, TrainSettings()).verdict == verdict
