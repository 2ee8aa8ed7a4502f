"""lorafactory.toml is proposed once; what is fetched is what the models need."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lorafactory.commands import init


def test_a_configuration_is_proposed_once(lora, space: Path, tmp_path: Path):
    (tmp_path / "home" / "ComfyUI" / "models").mkdir(parents=True)
    (tmp_path / "home" / "ComfyUI" / "models" / "pony.safetensors").write_bytes(b"x")
    said = lora("init")
    assert said.code == 0
    assert "pony.safetensors" in said.out
    written = (space / "lorafactory.toml").read_text()
    assert tomllib.loads(written)["models"] == [(tmp_path / "home" / "ComfyUI" / "models").as_posix()]
    (space / "lorafactory.toml").write_text(written + "# mine\n")
    assert "left as it is" in lora("init").out
    assert (space / "lorafactory.toml").read_text().endswith("# mine\n")


def test_fetch_asks_for_safetensors_only(monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, list[str]] = {}
    monkeypatch.setattr(init, "download", lambda repository, files: asked.setdefault(repository, files) and "done")
    assert len(init.fetch()) == 2
    assert set(asked) == {"timm/vit_base_patch32_clip_224.openai", "Salesforce/blip-image-captioning-large"}
    assert len(init.fetch(tagger=True)) == 3 and "selected_tags.csv" in asked["SmilingWolf/wd-vit-tagger-v3"]
    for files in asked.values():
        assert any(f.endswith(".safetensors") for f in files)
        assert not any(f.endswith((".bin", ".pt", ".ckpt")) for f in files)
