from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lorafactory import captioners
from lorafactory.captioners import blip
from lorafactory.captioners.blip import Blip, without_prompt
from lorafactory.errors import InputError, SettingsError
from lorafactory.pocket import models

HUB = "Salesforce/blip-image-captioning-large"
HOW = {"prompt": "a picture of", "beams": 3, "min_length": 8, "max_length": 14}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as transformers writes it, of the pocket's shapes and random weights."""
    import torch

    folder = tmp_path_factory.mktemp("blip")
    size = models.write_blip_tokenizer(folder)
    torch.manual_seed(0)
    models.build_blip(size).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def loaded(tiny: str) -> Blip:
    return Blip.load(tiny)


def pictures(count: int) -> list[Image.Image]:
    made = []
    for i in range(count):
        picture = Image.new("RGB", (50 + i, 70), (40 * i, 200, 255 - 30 * i))
        picture.paste((255, 0, 20 * i), (5 * i, 10, 20 + 5 * i, 40))
        made.append(picture)
    return made


def test_captioners_are_found_by_listing():
    assert captioners.names() == ["blip", "wd"]
    assert captioners.get("blip") is blip
    with pytest.raises(SettingsError, match=r"no captioner 'git'; known are: blip, wd"):
        captioners.get("git")


def test_one_caption_for_each_whatever_the_batch(loaded):
    whole = loaded.caption(pictures(5), batch=4, **HOW)
    assert len(whole) == 5 and all(text and "picture of" not in text for text in whole)
    assert loaded.caption(pictures(5), batch=1, **HOW) == whole


def test_it_is_what_transformers_says(loaded):
    """Written out once more, as the model's own documentation has it."""
    (picture,) = pictures(1)
    inputs = loaded.processor(images=[picture], text=["a picture of"], return_tensors="pt")
    ids = loaded.net.generate(**inputs, num_beams=3, min_length=8, max_length=14, do_sample=False)
    whole = loaded.processor.batch_decode(ids, skip_special_tokens=True)[0]
    assert whole.startswith("a picture of")
    assert loaded.caption([picture], batch=1, **HOW) == [whole.removeprefix("a picture of").strip()]


def test_lengths_beyond_the_model_are_cut(loaded):
    (text,) = loaded.caption(pictures(1), batch=1, prompt="a picture of", beams=2, min_length=200, max_length=200)
    assert text


def test_no_prompt_and_any_mode(loaded):
    (picture,) = pictures(1)
    gray = picture.convert("L")
    how = HOW | {"prompt": ""}
    assert loaded.caption([gray], batch=1, **how) == loaded.caption([gray.convert("RGB")], batch=1, **how)
    assert loaded.caption([], batch=1, **how) == []


def test_where_memory_ends_the_batch_is_halved(loaded, monkeypatch):
    import torch

    tried: list[int] = []
    real = Blip._describe

    def describe(self, some, prompt, **how):
        tried.append(len(some))
        if len(some) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(self, some, prompt, **how)

    expected = loaded.caption(pictures(6), batch=1, **HOW)
    monkeypatch.setattr(Blip, "_describe", describe)
    assert loaded.caption(pictures(6), batch=5, **HOW) == expected
    assert tried == [5, 2, 2, 2]


def test_one_picture_that_does_not_fit_is_an_error(loaded, monkeypatch):
    import torch

    def describe(self, some, prompt, **how):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Blip, "_describe", describe)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        loaded.caption(pictures(2), batch=2, **HOW)


@pytest.mark.parametrize(
    ("text", "prompt", "rest"),
    [
        ("a picture of a red star", "a picture of", "a red star"),
        ("a picture of a picture of a star", "a picture of", "a picture of a star"),
        ("a red star", "a picture of", "a red star"),
        ("A Picture  of  a star", "a picture of", "a star"),
        ("a picture office", "a picture of", "a picture office"),
        ("it ' s a star", "it's", "a star"),
        ("a picture of", "a picture of", ""),
        (" a star ", "", "a star"),
    ],
)
def test_the_prompt_comes_off_once(text, prompt, rest):
    assert without_prompt(text, prompt) == rest


def test_a_folder_that_is_not_whole(tiny, tmp_path):
    assert blip.missing(tiny) is None
    assert blip.identity(tiny).startswith("blip:")
    said = blip.missing(str(tmp_path))
    assert said is not None and said.startswith(f"BLIP is not whole: {tmp_path} has no model.safetensors and no config")
    with pytest.raises(InputError, match="BLIP is not whole"):
        Blip.load(str(tmp_path))


def test_identity_is_of_content(tiny, tmp_path):
    for file in Path(tiny).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert blip.identity(str(tmp_path)) == blip.identity(tiny)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert blip.identity(str(tmp_path)) != blip.identity(tiny)


def test_a_model_of_the_hub_is_only_looked_for_in_its_cache(tmp_path, monkeypatch):
    from functools import partial

    import huggingface_hub

    cache = tmp_path / "hub"
    look = partial(huggingface_hub.try_to_load_from_cache, cache_dir=cache)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    said = blip.missing(HUB)
    assert (
        said == f"BLIP is not on this machine: {HUB}/model.safetensors, about 1900 MB in all; lora init --fetch gets it"
    )
    with pytest.raises(InputError, match="lora init --fetch"):
        Blip.load(HUB)
    snapshot = cache / "models--Salesforce--blip-image-captioning-large" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for name in blip.NEEDED:
        (snapshot / name).touch()
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    assert blip.missing(HUB) is None
    assert blip.identity(HUB) == f"blip:{HUB}@c0ffee"


def test_a_path_at_which_nothing_is(tmp_path):
    assert "is not on this machine" in (blip.missing(str(tmp_path / "gone")) or "")
