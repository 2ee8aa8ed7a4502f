"""Both families from both layouts on disk: what is loaded is what was saved, and works without the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import original
from safetensors.torch import save_file

from lorafactory import families
from lorafactory.families import Base, Frame

FRAME = Frame((32, 32), (0, 0), (32, 32))
pytestmark = pytest.mark.parametrize("family", families.names(), indirect=True, scope="module")


def same(a: Base, b: Base) -> bool:
    states = [(part.state_dict(), b.parts[name].state_dict()) for name, part in a.parts.items()]
    return a.vae_sha256 == b.vae_sha256 and all(
        one.keys() == other.keys() and all(torch.equal(t, other[key]) for key, t in one.items())
        for one, other in states
    )


def test_no_two_layers_share_a_name(family: Any, full: Base) -> None:
    names = family.key_names(full)
    assert len(set(names.values())) == len(names)


def test_a_folder_is_loaded_as_it_was_saved(family: Any, tiny: Base, folder: Path) -> None:
    assert f"lorafactory.families.{families.detect(folder)}" == family.__name__
    loaded = family.load(folder)
    assert same(loaded, tiny)
    assert not any(p.requires_grad for part in loaded.parts.values() for p in part.parameters())
    assert loaded.schedule.prediction_type == tiny.schedule.prediction_type
    assert (loaded.latent_channels, loaded.latent_factor) == (4, 4)
    captions = ["zqx, a dot!", ""]
    for name, value in family.encode_captions(loaded, captions, [FRAME] * 2).items():
        torch.testing.assert_close(value, family.encode_captions(tiny, captions, [FRAME] * 2)[name])


def test_a_folder_of_fp16_files_alone_is_enough(family: Any, tiny: Base, tmp_path: Path) -> None:
    family.pipeline(tiny).save_pretrained(tmp_path / "half", variant="fp16")
    assert same(family.load(tmp_path / "half"), tiny)


@pytest.mark.parametrize("marked", [False, True])
def test_a_one_file_checkpoint_needs_no_hub(family: Any, made: Base, tmp_path: Path, marked: bool) -> None:
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)} if marked else {}
    file = tmp_path / "model.safetensors"
    save_file({**original(made), **marks}, file)
    assert f"lorafactory.families.{families.detect(file)}" == family.__name__
    loaded = family.load(file)
    assert same(made, loaded)
    assert not any(p.requires_grad for part in loaded.parts.values() for p in part.parameters())
    assert loaded.schedule.prediction_type == ("v_prediction" if marked else "epsilon")
    assert (float(loaded.schedule.snr(torch.tensor([999]))) == 0) is marked
    # the ids of openai/clip-vit-large-patch14
    for tokenizer in loaded.tokenizers:
        assert len(tokenizer) == 49408
        assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert tokenizer("Hello, World!").input_ids == [49406, 3306, 267, 1002, 256, 49407]
    words = family.encode_captions(loaded, ["a photo of a cat"], [FRAME])
    out = family.predict(loaded, torch.randn(1, 4, 8, 8), torch.tensor([5]), words)
    assert out.shape == (1, 4, 8, 8) and torch.isfinite(out).all()
