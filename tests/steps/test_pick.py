"""pick: the right file is copied, whole and replaceable; a person's files and choices stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from picked_sets import three_saves, write_save, write_scores

from lorafactory import images
from lorafactory.errors import InputError, SettingsError
from lorafactory.step import Work, perform
from lorafactory.steps import pick
from lorafactory.store import Store
from lorafactory.training.lora_header import tensor_hash

BY_VERDICT = pick.Settings()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return three_saves(tmp_path)


def by_epoch(number: int) -> pick.Settings:
    return pick.Settings(saves=(str(number),))


def chosen(work: Work) -> str:
    return work.place.chosen.read_bytes()[-8:].decode().strip()


def verdict(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.place.comparison / "verdict.json").read_text(encoding="utf-8"))
    return found


def test_the_verdicts_save_is_copied_with_preview_and_sidecar(work: Work) -> None:
    result = pick.run(work, BY_VERDICT)
    assert tensor_hash(work.place.chosen) == tensor_hash(work.place.result / "anna-000002.safetensors")
    assert (result.data["passed"], result.data["epoch"], result.data["kind"]) == (True, 2, None)
    assert "epoch 2" in result.data["reason"]
    assert "Runner-up: epoch 3" in result.data["reason"]
    sidecar = json.loads((work.place.root / "anna.json").read_text(encoding="utf-8"))
    assert sidecar == {
        "description": "anna (person, woman)",
        "sd version": "SD1",
        "activation text": "4nna",
        "preferred weight": 1.0,
        "notes": result.data["reason"],
    }
    assert verdict(work)["by_hand"] is None
    assert all(path.exists() for path in pick.outputs(work, BY_VERDICT))


def test_the_preview_is_baseline_and_pick_from_the_same_noise(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    strip = images.load(work.place.root / "anna.png")
    assert strip.size == (98, 48)
    assert (strip.getpixel((20, 20)), strip.getpixel((70, 20))) == ((0, 120, 0), (80, 120, 0))  # seed 2 is the likest


def test_a_person_chooses_and_the_verdict_is_kept_beside_it(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    result = pick.run(work, by_epoch(3))
    assert chosen(work) == "epoch 3"
    assert result.data["passed"]
    assert result.data["reason"].startswith("epoch 3, chosen by hand. The verdict: epoch 2")
    assert verdict(work)["by_hand"] == {"saves": ["3"], "agrees": False}
    assert verdict(work)["verdict"]["pick"] == "anna-000002.safetensors"


def test_a_choice_by_hand_is_seen_and_the_chains_own_pick_does_not_undo_it(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    by_verdict = pick.sees(work, BY_VERDICT)
    pick.run(work, by_epoch(3))
    assert pick.sees(work, BY_VERDICT) == by_verdict  # up to date: make leaves it
    assert pick.stands(by_epoch(3).model_dump(mode="json"), BY_VERDICT)
    assert not pick.stands(by_epoch(3).model_dump(mode="json"), by_epoch(1))
    smaller = pick.Settings(rank=1)
    assert not pick.stands(by_epoch(3).model_dump(mode="json"), smaller)  # that is to be made, of the same save
    assert pick.keeps(work, smaller) == pick.Settings(rank=1, saves="3")


def test_a_choice_by_hand_stands_when_the_same_saves_have_other_scores(work: Work) -> None:
    with Store(work.workspace.record) as store:
        perform(pick, work, by_epoch(3), store)
        write_scores(work, [0.7, 0.6, 0.5])
        result = perform(pick, work, BY_VERDICT, store)
        assert chosen(work) == "epoch 3" and result.data["by_hand"]
        assert perform(pick, work, BY_VERDICT, store).skipped
        perform(pick, work, BY_VERDICT, store, force=True)
        assert chosen(work) == "epoch 1"
        perform(pick, work, by_epoch(3), store)
    assert verdict(work)["verdict"]["pick"] == "anna-000001.safetensors"
    assert verdict(work)["by_hand"] == {"saves": ["3"], "agrees": False}
    assert pick.keeps(work, by_epoch(1)) == by_epoch(1)
    path = work.place.comparison / "verdict.json"
    old = verdict(work) | {"by_hand": {"epoch": [3, 1], "step": []}, "to_try": ["epoch 1"]}
    path.write_text(json.dumps(old), encoding="utf-8")  # as an earlier version wrote it
    assert pick.keeps(work, BY_VERDICT) == pick.Settings(saves=("anna-000003.safetensors", "epoch 1"))
    write_save(work.place.result / "anna-000004.safetensors", "epoch 4")
    write_scores(work, [0.5, 0.5, 0.5, 0.7])
    assert pick.keeps(work, BY_VERDICT) == BY_VERDICT  # there are new saves


def test_an_epoch_that_is_not_there(work: Work) -> None:
    with pytest.raises(SettingsError, match=r"called 4; there are anna-000001 \(epoch 1\), anna-000002"):
        pick.run(work, by_epoch(4))
    assert not work.place.chosen.exists()


def test_a_save_within_an_epoch_is_chosen_by_its_step(work: Work, tmp_path: Path) -> None:
    scores = work.place.comparison / "scores.json"
    told = json.loads(scores.read_text(encoding="utf-8"))
    for step, column in zip((0, 10, 15, 20), told["columns"], strict=False):
        column |= {"step": step, "epoch": (step + 9) // 10, "label": f"step {step}" if step == 15 else column["label"]}
    scores.write_text(json.dumps(told), encoding="utf-8")
    (tmp_path / "lorafactory.toml").write_text('publish_to = ["' + (tmp_path / "out").as_posix() + '"]')
    result = pick.run(work, BY_VERDICT)
    assert result.data["reason"].startswith("step 15: ") and result.data["step"] == 15
    assert (tmp_path / "out" / "anna-s15.safetensors").is_file()
    assert verdict(work)["label"] == "step 15"
    path = str(work.place.result / "anna-000001.safetensors")
    named = {"step10": 1, "step 15": 2, "2": 3, "anna-000002": 2, "anna-000003.safetensors": 3, path: 1}
    for name, content in ((name, f"epoch {number}") for name, number in named.items()):
        chooser = pick.Settings(saves=(name,))
        assert pick.run(work, chooser).data["passed"] and chosen(work) == content
        assert pick.stands(chooser.model_dump(mode="json"), BY_VERDICT)
    assert (tmp_path / "out" / "anna-e02.safetensors").is_file()
    with pytest.raises(SettingsError, match=r"called step11; there are anna-000001 \(epoch 1\), .* \(step 15\)"):
        pick.run(work, pick.Settings(saves=("step10", "step11")))


def test_what_is_named_exactly_comes_before_the_last_of_an_epoch(work: Work) -> None:
    scores = work.place.comparison / "scores.json"
    told = json.loads(scores.read_text(encoding="utf-8"))
    told["columns"][3] |= {"epoch": 2, "label": "epoch 2, average"}
    scores.write_text(json.dumps(told), encoding="utf-8")
    for name, content in (("epoch 2", "epoch 2"), ("2", "epoch 3"), ("epoch 2, average", "epoch 3")):
        pick.run(work, pick.Settings(saves=(name,)))
        assert chosen(work) == content


def test_a_save_of_another_training_is_not_taken_for_one_that_is_called_the_same(work: Work) -> None:
    earlier = work.place.earlier_results / "2026-04-01" / "anna-000002.safetensors"
    write_save(earlier, "epoch 9")
    with pytest.raises(SettingsError, match=r"no save was compared that is called .*2026-04-01"):
        pick.run(work, pick.Settings(saves=(str(earlier),)))
    assert not work.place.chosen.exists()


def test_what_an_earlier_version_recorded_is_understood() -> None:
    old = pick.Settings().model_dump(mode="json") | {"epoch": [4, 6], "step": []}
    assert pick.Settings.model_validate(old).saves == ("epoch4", "epoch6")
    assert pick.Settings.model_validate({"step": 1500, "rank": 8}) == pick.Settings(saves="step1500", rank=8)


def test_another_save_is_proposed_that_was_not_chosen(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    assert verdict(work)["another"] == "lora pick anna anna-000003"
    pick.run(work, by_epoch(3))
    assert verdict(work)["another"] == "lora pick anna anna-000002"


def test_a_file_that_is_not_ours_is_left_alone(work: Work) -> None:
    write_save(work.place.chosen, "theirs")
    before = work.place.chosen.read_bytes()
    with pytest.raises(InputError, match="none of this LoRA's saves"):
        pick.run(work, BY_VERDICT)
    assert [p.fatal for p in pick.check(work, BY_VERDICT)] == [True]
    assert work.place.chosen.read_bytes() == before
    assert not (work.place.root / "anna.png").exists()


def test_a_pick_of_an_earlier_training_may_be_replaced(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    work.place.earlier_results.mkdir()
    work.place.result.rename(work.place.earlier_results / "2026")
    for epoch in (1, 2, 3):
        write_save(work.place.result / f"anna-{epoch:06}.safetensors", f"new {epoch}")
    write_scores(work, [0.5, 0.5, 0.7])
    (work.place.comparison / "verdict.json").unlink()
    pick.run(work, BY_VERDICT)
    assert chosen(work) == "new 3"


def test_a_preview_or_notes_of_ones_own_stay(work: Work) -> None:
    pick.run(work, BY_VERDICT)
    (work.place.root / "anna.json").write_text('{"notes": "mine"}', encoding="utf-8")
    result = pick.run(work, by_epoch(3))
    assert json.loads((work.place.root / "anna.json").read_text(encoding="utf-8")) == {"notes": "mine"}
    assert images.load(work.place.root / "anna.png").getpixel((70, 20)) == (120, 120, 0)
    assert result.lines[-1] == "anna.json: not ours, left as it is"


def test_when_none_passes_the_best_ranked_is_published_and_marked(work: Work) -> None:
    write_scores(work, [0.41, 0.45, 0.44])
    result = pick.run(work, BY_VERDICT)
    assert (result.data["passed"], result.data["kind"], chosen(work)) == (False, "undertrained", "epoch 2")
    assert "no save passes, undertrained" in json.loads((work.place.root / "anna.json").read_text())["notes"]
    write_scores(work, [0.6, 0.7, 0.7], copies=[0, 0.5, 0.6, 0.7])
    assert pick.run(work, BY_VERDICT).data["kind"] == "overtrained"


def test_thresholds_are_settings(work: Work) -> None:
    write_scores(work, [0.5, 0.7, 0.72], fit=[0.3, 0.3, 0.3, 0.2])
    assert pick.run(work, BY_VERDICT).data["epoch"] == 2
    assert pick.run(work, pick.Settings(fit=0, errors=0)).data["epoch"] == 3


def test_scores_of_other_files_are_refused(work: Work) -> None:
    write_save(work.place.result / "anna-000002.safetensors", "other")
    with pytest.raises(InputError, match="lora compare anna"):
        pick.run(work, BY_VERDICT)
    (work.place.comparison / "scores.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="--force"):
        pick.run(work, BY_VERDICT)
    (work.place.comparison / "scores.json").unlink()
    with pytest.raises(InputError, match="first `lora compare anna`"):
        pick.run(work, BY_VERDICT)


def test_a_foreign_folder_is_only_reported(work: Work) -> None:
    looking = Work(work.workspace, work.place, work.recipe, apply=False)
    result = pick.run(looking, BY_VERDICT)
    assert result.data["epoch"] == 2
    assert "--apply" in result.summary
    assert not work.place.chosen.exists()
