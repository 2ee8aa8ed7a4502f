"""What goes out with a pick: papers in the file, copies to try, a smaller file, and more epochs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from picked_sets import papers, three_saves, write_save, write_scores
from PIL import Image

from lorafactory import images
from lorafactory.errors import InputError, SettingsError
from lorafactory.recipe import Recipe
from lorafactory.step import Work, settings_of
from lorafactory.steps import pick
from lorafactory.training import lora_file
from lorafactory.training.lora_header import tensor_hash

BY_VERDICT = pick.Settings()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return three_saves(tmp_path)


@pytest.fixture
def out(work: Work, tmp_path: Path) -> Path:
    """A folder of `publish_to`."""
    (tmp_path / "lorafactory.toml").write_text(f'publish_to = ["{(tmp_path / "out").as_posix()}"]')
    return tmp_path / "out"


def real_saves(work: Work, rank: int = 8) -> None:
    """In place of the three saves, LoRAs of one layer whose last singular values are small."""
    for epoch in (1, 2, 3):
        down, up = torch.randn(rank, 24), torch.randn(16, rank)
        down[rank // 2 :] *= 0.01
        tensors = {"x.lora_down.weight": down, "x.lora_up.weight": up, "x.alpha": torch.tensor(float(rank))}
        lora_file.write(work.place.result / f"anna-{epoch:06}.safetensors", tensors, {"ss_network_dim": str(rank)})
    write_scores(work, [0.5, 0.7, 0.69])


# ---------------------------------------------------------------- papers


def test_the_file_says_what_the_verdict_says_and_nothing_of_this_machine(work: Work, tmp_path: Path) -> None:
    reason = pick.run(work, BY_VERDICT).data["reason"]
    told, save = papers(work.place.chosen), work.place.result / "anna-000002.safetensors"
    assert (told["lorafactory.verdict"], told["lorafactory.reason"]) == ("passed", reason)
    assert (told["lorafactory.chosen"], told["lorafactory.save"]) == ("by the verdict", tensor_hash(save))
    assert (told["modelspec.trigger_phrase"], told["modelspec.title"]) == ("4nna", "anna epoch 2")
    assert told["modelspec.lora_default_weight"] == "1.0"
    kind, _, data = told["modelspec.thumbnail"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
        assert (kind, thumbnail.format, thumbnail.size) == ("data:image/jpeg;base64", "JPEG", (48, 48))
        seen = thumbnail.convert("RGB").getpixel((20, 20))
        assert max(abs(a - b) for a, b in zip(seen, (80, 120, 0), strict=True)) < 8  # the pick's, not the baseline's
    assert str(tmp_path) not in json.dumps(told)
    first = work.place.chosen.read_bytes()
    pick.run(work, BY_VERDICT)
    assert work.place.chosen.read_bytes() == first


def test_a_large_picture_is_small_inside_the_file(work: Work) -> None:
    for path in (work.place.comparison / "cells").glob("*.png"):
        images.save_png(Image.effect_noise((512, 384), 80).convert("RGB"), path)
    pick.run(work, BY_VERDICT)
    data = papers(work.place.chosen)["modelspec.thumbnail"].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
        assert thumbnail.size == (256, 192)


def test_a_failed_save_is_marked_wherever_it_is_read(work: Work) -> None:
    write_scores(work, [0.41, 0.45, 0.44])
    result = pick.run(work, BY_VERDICT)
    told = papers(work.place.chosen)
    assert told["lorafactory.verdict"] == result.data["kind"] == "undertrained"
    assert told["modelspec.description"].endswith("The comparison says: undertrained")
    assert result.data["next"] == "lora train anna --more 3 && lora make anna"
    write_scores(work, [0.5, 0.7, 0.7], copies=[0, 0, 0.5, 0.6])
    reason = pick.run(work, pick.Settings(saves=2)).data["reason"]
    told = papers(work.place.chosen)
    assert (told["lorafactory.verdict"], told["lorafactory.chosen"]) == ("rejected", "by hand")
    assert "It fails: copies training pictures" in told["lorafactory.reason"] == reason


def test_the_learning_rate_that_is_halved_is_that_of_the_saves(work: Work) -> None:
    write_scores(work, [0.6, 0.7, 0.7], copies=[0, 0.5, 0.6, 0.7])
    assert pick.run(work, BY_VERDICT).data["next"] == "lora make anna --set train.lr=0.0002"


def test_the_chosen_file_is_ours_by_its_tensors(work: Work) -> None:
    write_save(work.place.chosen, "epoch 3", **{"modelspec.author": "me"})
    assert pick.check(work, BY_VERDICT) == []
    pick.run(work, BY_VERDICT)
    work.place.chosen.write_bytes(b"no LoRA")
    assert [p.fatal for p in pick.check(work, BY_VERDICT)] == [True]
    with pytest.raises(InputError, match="none of this LoRA's saves"):
        pick.run(work, BY_VERDICT)


# ---------------------------------------------------------------- copies


def test_several_to_try(work: Work, out: Path) -> None:
    result = pick.run(work, pick.Settings(saves=("3", "1")))
    assert (result.data["pick"], result.data["to_try"]) == ("anna-000003.safetensors", ["anna-000001.safetensors"])
    names = [f"anna-{e}{suffix}" for e in ("e01", "e03") for suffix in (".json", ".png", ".safetensors")]
    assert sorted(p.name for p in out.iterdir()) == names
    for epoch, colour in ((1, 40), (3, 120)):
        file = out / f"anna-e{epoch:02}.safetensors"
        assert tensor_hash(file) == tensor_hash(work.place.result / f"anna-{epoch:06}.safetensors")
        assert images.load(file.with_suffix(".png")).getpixel((70, 20)) == (colour, 120, 0)
        notes = json.loads(file.with_suffix(".json").read_text())["notes"]
        assert notes == papers(file)["lorafactory.reason"] and notes.startswith(f"epoch {epoch}, ")
    reason = papers(out / "anna-e01.safetensors")["lorafactory.reason"]
    assert reason.startswith("epoch 1, to try beside epoch 3. The verdict: epoch 2")
    assert tensor_hash(work.place.chosen) == tensor_hash(out / "anna-e03.safetensors")
    assert result.lines[-2:] == tuple(f"published {out / name}.safetensors" for name in ("anna-e03", "anna-e01"))
    with pytest.raises(SettingsError, match=r"there are anna-000001 \(epoch 1\)"):
        pick.run(work, pick.Settings(saves=("2", "7")))


def test_several_need_a_place_to_go(work: Work) -> None:
    (problem,) = pick.check(work, pick.Settings(saves=("3", "1")))
    assert not problem.fatal and "lorafactory.toml" in str(problem)
    assert pick.check(work, pick.Settings(saves=3)) == []


def test_a_name_stands_for_one_save_for_good(work: Work, out: Path) -> None:
    pick.run(work, BY_VERDICT)
    first = (out / "anna-e02.safetensors").read_bytes()
    (out / "anna-e02.png").write_bytes(b"a person's own")
    lines = pick.run(work, BY_VERDICT).lines
    assert len(list(out.glob("*.safetensors"))) == 1 and "anna-e02.png: not ours, left as it is" in lines
    for epoch in (1, 2, 3):
        write_save(work.place.result / f"anna-{epoch:06}.safetensors", f"new {epoch}")
    (work.place.earlier_results / "2026").mkdir(parents=True)
    (work.place.earlier_results / "2026" / "anna-000002.safetensors").write_bytes(first)
    write_scores(work, [0.5, 0.7, 0.69])
    pick.run(work, BY_VERDICT)
    assert (out / "anna-e02.safetensors").read_bytes() == first
    assert (out / "anna-e02.png").read_bytes() == b"a person's own"
    assert (out / "anna-e02~2.safetensors").read_bytes() == work.place.chosen.read_bytes()
    assert images.load(out / "anna-e02~2.png").size == (98, 48)


# ---------------------------------------------------------------- a smaller file


def test_a_smaller_file_lies_beside(work: Work, out: Path) -> None:
    real_saves(work)
    lines = pick.run(work, pick.Settings(rank=4)).lines
    assert papers(work.place.chosen)["ss_network_dim"] == "8"
    for folder in (work.place.root, out):
        small = folder / "anna-e02-r4.safetensors"
        told = papers(small)
        assert (told["ss_network_dim"], told["lorafactory.verdict"]) == ("4", "passed")
        assert lora_file.read(small)[0]["x.lora_down.weight"].shape == (4, 24)
        notes = json.loads(small.with_suffix(".json").read_text())["notes"]
        assert notes.startswith("rank 4, 100.0% of the change kept. epoch 2: ")
        assert f"published {small}, rank 4, 100.0% of the change kept" in lines
    assert tensor_hash(out / "anna-e02.safetensors") == tensor_hash(work.place.result / "anna-000002.safetensors")
    pick.run(work, pick.Settings(rank=4))
    assert sorted(p.name for p in work.place.root.glob("*.safetensors")) == [
        "anna-e02-r4.safetensors",
        "anna.safetensors",
    ]


def test_a_rank_that_is_no_smaller_is_said_and_the_pick_is_made(work: Work, out: Path) -> None:
    real_saves(work)
    lines = pick.run(work, pick.Settings(rank=8)).lines
    assert "no smaller file: --rank 8, and the LoRA is of rank 8" in lines
    assert work.place.chosen.exists() and not list(work.place.root.glob("*-r8.*"))


# ---------------------------------------------------------------- more, once


def test_more_is_asked_for_once_and_only_by_a_verdict_of_undertrained(work: Work) -> None:
    asking = pick.Settings(if_undertrained="more 3")
    log = work.place.result / "log" / "plan.json"
    log.parent.mkdir()
    log.write_text('{"from": {"file": "", "more": 0}}')
    assert pick.asks_more(work, asking) == 0  # there is no verdict
    pick.run(work, asking)
    assert pick.asks_more(work, asking) == 0  # it passed
    write_scores(work, [0.41, 0.45, 0.44])
    pick.run(work, asking)
    assert (pick.asks_more(work, asking), pick.asks_more(work, BY_VERDICT)) == (3, 0)
    log.write_text('{"from": {"file": "anna-000003.safetensors", "more": 3}}')
    assert pick.asks_more(work, asking) == 0
    log.write_text('{"from": {"file": "", "more": 0}}')
    pick.run(work, pick.Settings(saves=1, if_undertrained="more 3"))
    assert pick.asks_more(work, asking) == 0  # a person is content
    write_scores(work, [0.6, 0.7, 0.7], copies=[0, 0.5, 0.6, 0.7])
    pick.run(work, asking)
    assert pick.asks_more(work, asking) == 0  # overtrained


@pytest.mark.parametrize("wrong", ["3", "more", "more 0", "less 3", "more -1"])
def test_what_if_undertrained_does_not_understand(work: Work, wrong: str) -> None:
    recipe = Recipe(work.recipe.header, {"pick": {"if_undertrained": wrong}}, {"pick.if_undertrained": "mine.toml"})
    with pytest.raises(SettingsError, match=r'write it as "more 3"'):
        settings_of(pick, recipe)
