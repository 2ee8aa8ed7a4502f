"""The budget of a comparison: what is drawn in which order, what drops out, and that a killed one goes on alike."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_sets import NO_GATES, SETTINGS, FakeStudio, make_work, save, told

from lorafactory.errors import OutOfMemory
from lorafactory.scoring import verdict
from lorafactory.scoring.prompts import Prompt, prompts_for
from lorafactory.step import Work
from lorafactory.steps import _drawing, _saves, _stages, compare
from lorafactory.steps._stages import Purse, Stage, lead, stages

MADE = prompts_for((), "person", "woman", "4nna", ["4nna, a hat"])
PACE = 100.0
"""Seconds a picture is said to take, so long that what the tests themselves take is nothing beside it."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return make_work(tmp_path, monkeypatch)


def afford(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """The training took so long that a quarter of it is enough for so many cells."""
    monkeypatch.setattr(_stages, "read_pace", lambda cache, key: PACE)
    monkeypatch.setattr(_saves, "trained_for", lambda paths: (cells + 0.5) * PACE / _stages.OWN / 0.25)


def drawn(work: Work) -> Counter[str]:
    return Counter(str(name) for name, *_ in FakeStudio.asked)


# ---------------------------------------------------------------- the order


def test_every_save_is_drawn_with_one_prompt_like_the_captions_and_one_unlike() -> None:
    assert [MADE[i].group for i in lead(MADE)] == ["like", "unlike"]
    own = prompts_for(("{trigger}, a dog", "{trigger}, a cat", "a cat"), "person", "", "4nna")
    assert lead(own) == [0, 1]
    assert lead([Prompt("a dog", False, "a dog")]) == [0]


@pytest.mark.parametrize("seeds", [(1,), (1, 2), (1, 2, 3), (5, 4, 3, 2, 1)])
def test_the_stages_hold_every_spot(seeds: tuple[int, ...]) -> None:
    found = [spot for stage in stages(MADE, seeds) for each in stage.rounds for spot in each]
    assert set(found) == {(i, seed) for i in range(len(MADE)) for seed in seeds}
    first = [spot for each in stages(MADE, seeds)[0].rounds for spot in each]
    assert first == [(i, seed) for seed in seeds[:2] for i in lead(MADE)]


def test_a_purse_pays_whole_rounds_in_order_and_then_nothing() -> None:
    rounds = [[(0, seed), (1, seed)] for seed in (1, 2, 3)]
    purse = Purse(20)
    assert purse.pays(Stage("more", rounds), lambda spot: 4) == rounds[:2]
    assert (purse.spent, purse.empty) == (16, True)
    assert purse.pays(Stage("cheap", [[(2, 1)]]), lambda spot: 1) == []
    assert Purse(None).pays(Stage("all", rounds), lambda spot: 10**6) == rounds


def test_the_first_round_is_always_paid_and_the_second_within_two_thirds() -> None:
    rounds = [[(0, seed), (1, seed)] for seed in (1, 2)]
    first = Stage("every save", rounds, first=True)
    assert Purse(0).pays(first, lambda spot: 6) == rounds[:1]
    assert Purse(35).pays(first, lambda spot: 6) == rounds[:1]  # 24 are more than two thirds of it
    purse = Purse(36)
    assert purse.pays(first, lambda spot: 6) == rounds
    assert not purse.empty
    assert purse.pays(Stage("more", [*rounds, [(0, 3)]]), lambda spot: 6, [s for r in rounds for s in r]) == [[(0, 3)]]


def test_what_was_there_costs_nothing() -> None:
    purse = Purse(2)
    assert len(purse.pays(Stage("more", [[(0, 1)], [(0, 2)], [(0, 3)]]), lambda spot: int(spot[1] == 3))) == 3
    assert purse.spent == 1


def test_training_times_are_added_up_each_once(tmp_path: Path, work: Work) -> None:
    times = {1: (100.0, 160.0), 2: (100.0, 220.0), 3: (500.0, 530.0)}
    for epoch, (start, end) in times.items():
        save(work, epoch, ss_training_started_at=str(start), ss_training_finished_at=str(end))
    save(work, 4, ss_training_started_at="None", ss_training_finished_at="None")
    assert (
        _saves.trained_for(s.path for s in _saves.find_saves(work)) == 150
    )  # resumed once, with --more or after a kill
    assert _saves.trained_for([work.place.result / "anna-000004.safetensors"]) is None


# ---------------------------------------------------------------- spending it


def test_a_small_budget_draws_two_cells_of_every_save_and_says_what_draws_the_others(
    work: Work, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    afford(monkeypatch, 3)
    result = compare.run(work, SETTINGS)
    assert drawn(work) == {"None": 2, "anna-000001.safetensors": 2, "anna-000002.safetensors": 2}
    assert {(p, seed) for _, _, p, seed in FakeStudio.asked} == {("4nna", 1), ("4nna, a dog", 1)}
    assert result.data["left_out"] == 12
    left = [cell for column in told(work)["columns"] for cell in column["cells"] if not cell["file"]]
    assert len(left) == 12
    assert {cell["command"] for cell in left} == {"lora compare anna --full"}
    assert "at most 6 cells" in capsys.readouterr().err  # these are drawn in any case
    rest = compare.run(work, SETTINGS.model_copy(update={"full": True}))
    assert (rest.data["drawn"], rest.data["kept"], rest.data["left_out"]) == (12, 6, 0)


def test_where_no_time_is_known_there_is_no_limit_and_it_is_said(
    work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.run(work, SETTINGS).data["left_out"] == 0
    assert "no limit" in capsys.readouterr().err
    assert told(work)["budget"]["seconds_allowed"] is None


def test_a_save_that_falls_behind_is_drawn_no_further_and_stays_out_when_others_come(work: Work) -> None:
    seeds = SETTINGS.model_copy(update={"seeds": (1, 2, 3, 4)})
    for epoch in (2, 3, 4):
        save(work, epoch, f"good {epoch}")
    compare.run(work, seeds)
    count = drawn(work)
    assert (count["anna-000001.safetensors"], count["anna-000003.safetensors"]) == (4, 12)
    rows = {row["save"]: row for row in told(work)["columns"]}
    assert "below" in rows["anna-000001.safetensors"]["dropped"]
    FakeStudio.asked = []
    save(work, 5, "good 5")
    compare.run(work, seeds)
    assert set(drawn(work)) == {"anna-000005.safetensors"}
    assert told(work)["columns"][1]["dropped"] == rows["anna-000001.safetensors"]["dropped"]


def test_what_dropped_out_comes_back_when_it_is_not_behind_any_more(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (2, 3, 4):
        save(work, epoch, f"good {epoch}")
    found = iter([{"anna-000001.safetensors": "behind"}, {}])
    monkeypatch.setattr(verdict, "standing", lambda *given: next(found, {}))
    compare.run(work, SETTINGS.model_copy(update={"seeds": (1, 2, 3, 4)}))
    count = drawn(work)
    assert (count["anna-000001.safetensors"], count["anna-000002.safetensors"]) == (4 + 6, 12)  # of 4, 2 and 6
    assert not any(row["dropped"] for row in told(work)["columns"])


def test_what_drops_out_goes_by_the_gates_of_now_and_what_is_drawn_to_the_end_did_not(work: Work) -> None:
    for epoch in (3, 4):
        save(work, epoch)
    strict = replace(work, recipe=replace(work.recipe, tables={"pick": {**NO_GATES, "artefacts": 1e-3}}))
    compare.run(strict, SETTINGS)
    assert sum("artefacts" in (row["dropped"] or "") for row in told(work)["columns"]) == 2
    assert compare.sees(strict, SETTINGS) != compare.sees(work, SETTINGS)
    compare.run(work, SETTINGS)
    assert not any("artefacts" in (row["dropped"] or "") for row in told(work)["columns"])
    full = SETTINGS.model_copy(update={"full": True})
    assert compare.sees(strict, full) == compare.sees(work, full)  # nothing drops out
    compare.run(strict, full)
    compare.run(strict, SETTINGS)
    assert not any(row["dropped"] for row in told(work)["columns"])


def test_where_memory_runs_out_fewer_are_drawn_at_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    compare.run(work, SETTINGS)
    before, draw, most = told(work)["columns"], FakeStudio.draw, 1

    def short(self: FakeStudio, texts: Sequence[str], seeds: Sequence[int], steps: int) -> Any:
        if self.batch > most:
            raise torch.OutOfMemoryError
        return draw(self, texts, seeds, steps)

    monkeypatch.setattr(FakeStudio, "draw", short)
    shutil.rmtree(work.place.comparison)
    compare.run(work, SETTINGS)
    assert told(work)["columns"] == before
    shutil.rmtree(work.place.comparison)
    most = 0
    with pytest.raises(OutOfMemory, match="one picture of 24 x 24 pixels: --resolution 8"):
        compare.run(work, SETTINGS)


def test_with_one_seed_the_better_half_goes_on(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    save(work, 2, "good 2")
    for epoch in (3, 4, 5, 6):
        save(work, epoch, f"good {epoch}" if epoch == 5 else None)
    afford(monkeypatch, 14 + 8)
    compare.run(work, SETTINGS)
    count = drawn(work)
    assert count["None"] == 4
    assert {name for name, cells in count.items() if cells == 4} >= {
        "anna-000002.safetensors",
        "anna-000005.safetensors",
    }
    assert sorted(count.values()) == [2, 2, 2, 4, 4, 4, 4]


def test_a_killed_comparison_goes_on_as_if_it_had_not_been(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"seeds": (1, 2, 3, 4), "strengths": (0.7, 1.0)})
    for one in (work, other := make_work(tmp_path / "other", monkeypatch)):
        for epoch in (2, 3):
            save(one, epoch, f"good {epoch}")
    afford(monkeypatch, 40)
    compare.run(other, settings)
    FakeStudio.asked = []
    for after in (4, 15, 32):
        monkeypatch.setattr(FakeStudio, "dies_after", after)
        with pytest.raises(KeyboardInterrupt):
            compare.run(work, settings)
        # a machine that has become faster does not change what was decided
        monkeypatch.setattr(_stages, "read_pace", lambda cache, key: PACE / 10)
    monkeypatch.setattr(FakeStudio, "dies_after", None)
    compare.run(work, settings)
    assert told(work) == told(other)
    assert len(FakeStudio.asked) <= 40
    FakeStudio.asked = []
    assert compare.run(work, settings).data["drawn"] == 0
    assert told(work) == told(other)


def test_a_pace_is_measured_once_and_remembered(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    compare.run(work, SETTINGS)
    paces: dict[str, Any] = json.loads((work.workspace.cache / _stages.PACE).read_text(encoding="utf-8"))
    assert all(seconds > 0 for seconds in paces.values())
    measured: list[int] = []
    monkeypatch.setattr(FakeStudio, "measure", lambda self, cells, track: measured.append(1) or 1.0)
    save(work, 3)
    compare.run(work, SETTINGS)
    assert measured == []
    compare.run(work, SETTINGS.model_copy(update={"steps": 7}))
    assert measured == [1]


def test_the_gates_are_those_of_pick(work: Work) -> None:
    found = _drawing.limits(work)
    assert (found.copies, found.errors) == (1, 1.0)
