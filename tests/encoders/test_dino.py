"""DINOv2, with a tiny random one: found offline, rows of length 1, nothing of a picture cut off."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorafactory.encoders import dino
from lorafactory.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 56, "image_size": 224}
    Dinov2Model(Dinov2Config(**shape)).save_pretrained(folder)
    return folder


def picture(colour: str = "red", mark: int = 0) -> Image.Image:
    made = Image.new("RGB", (300, 200), "gray")
    made.paste(colour, (100, 50, 200, 150))
    made.paste("white", (0, 0, mark, 200))
    return made


def test_a_folder_is_a_model(tiny: Path, tmp_path: Path) -> None:
    whole = f"folder:{tiny}"
    assert dino.missing(whole) is None
    assert dino.identity(whole) == dino.identity(f"folder:{shutil.copytree(tiny, tmp_path / 'copy')}")
    (tmp_path / "copy" / "model.safetensors").unlink()
    assert "has no model.safetensors" in str(dino.missing(f"folder:{tmp_path / 'copy'}"))
    with pytest.raises(InputError, match="not whole"):
        dino.load(f"folder:{tmp_path / 'copy'}")


def test_rows_tell_pictures_apart_up_to_their_edges(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = dino.load(f"folder:{tiny}")
    pictures = [picture(), picture("blue"), picture(mark=20), picture()]
    rows = loaded.encode_images(pictures)
    assert rows.shape == (4, 16) and np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(rows[0], rows[3])
    assert np.abs(rows[0] - rows[1]).max() > 1e-4 and np.abs(rows[0] - rows[2]).max() > 1e-4
    monkeypatch.setattr(dino, "BATCH", 2)
    assert loaded.encode_images(pictures) == pytest.approx(rows, abs=1e-5)
    assert len(loaded.encode_images([])) == 0


def test_pixels_are_about_the_models_mean() -> None:
    white = dino.prepared(Image.new("L", (10, 10), 255))
    assert white.shape == (3, 224, 224) and white.dtype == np.float32
    assert white[:, 0, 0] == pytest.approx((1 - dino.MEAN) / dino.DEVIATION)


def test_the_better_of_those_in_the_hubs_cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub keeps them: `models--OWNER--NAME/refs/main` and `snapshots/COMMIT/`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert dino.found() is None
    assert "hf download facebook/dinov2-small" in str(dino.missing("facebook/dinov2-small"))
    for name in ("small", "base"):
        folder = tmp_path / f"models--facebook--dinov2-{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        shutil.copytree(tiny, folder / "snapshots" / "abc")
        assert dino.found() == f"facebook/dinov2-{name}"
    assert dino.load("facebook/dinov2-base").encode_images([picture()]).shape == (1, 16)
