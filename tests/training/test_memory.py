"""The ladder out of memory, driven by a fake card; other programs; a real base on a CPU; strange steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lorafactory import families
from lorafactory.errors import BaseError, FailedError
from lorafactory.families import Base
from lorafactory.training import checkpoint, memory, session
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.loop import Begun, Save, train
from lorafactory.training.memory import Means
from lorafactory.training.pace import Pace
from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings

Draw = Callable[..., list[Example]]
OURS = f"{os.getpid()}, python, 900\n"


def change(settings: TrainSettings, **values: object) -> TrainSettings:
    return TrainSettings.model_validate({**settings.model_dump(), **values})


def smi(apps: str = "", card: str = "") -> Callable[[Sequence[str]], str]:
    return lambda query: apps if "compute-apps" in query[0] else card


@pytest.fixture
def base() -> Base:
    return families.get("sd15").tiny()


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Base, int, int], bool]], None]:
    """Let every pass through the model raise out-of-memory where `fits(base, pictures, step)` is False."""
    real = session.forward.losses

    def use(fits: Callable[[Base, int, int], bool]) -> None:
        def losses(base: Base, batch: Sequence[Any], *rest: Any, step: int, **told: Any) -> Tensor:
            if not fits(base, len(batch), step):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(base, batch, *rest, step=step, **told)

        monkeypatch.setattr(session.forward, "losses", losses)

    return use


class Ran:
    def __init__(self, base: Base, pictures: list[Example], s: TrainSettings, where: Path, **told: Any) -> None:
        self.saves: list[Save] = []
        self.said: list[tuple[int, str]] = []
        self.begun: list[Begun] = []
        self.error: FailedError | None = None
        self.keeper = Keeper(where / "state", plan=checkpoint.read_plan(where / "state"))
        try:
            train(
                base,
                pictures,
                s,
                cache=where / "cache",
                on_save=self.saves.append,
                on_event=lambda step, text: self.said.append((step, text)),
                on_begin=self.begun.append,
                keeper=self.keeper,
                **told,
            )
        except FailedError as error:
            self.error = error

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.saves[-1].tensors


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_each_rung_is_said_recorded_and_learns_the_same(
    base: Base,
    draw: Draw,
    quick: TrainSettings,
    tmp_path: Path,
    small_card: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = change(quick, batch=4, epochs=1, shuffle_captions=False, tag_dropout=0, optimizer="adamw")
    pictures = draw(tmp_path / "set", 2, repeats=4)
    straight = Ran(base, pictures, s, tmp_path / "straight")
    assert not straight.said
    monkeypatch.setattr(memory, "nvidia_smi", smi(OURS + "4, C:\\Games\\blender.exe, 3100\n5, /usr/bin/Xorg, [N/A]\n"))
    small_card(lambda base, pictures, step: pictures == 1 and memory.recomputes(base))
    held = Ran(base, pictures, s, tmp_path / "held")
    assert [text.partition(". ")[0] for _, text in held.said] == [
        "out of memory: from here on what is not trained leaves the card",
        "out of memory: from here on gradient checkpointing is on",
        "out of memory: from here on 2 pictures at once, accumulated to the same steps",
        "out of memory: from here on 1 pictures at once, accumulated to the same steps",
    ]
    assert all("Also on the card: blender.exe (3100 MB), Xorg." in text for _, text in held.said)
    means = {"micro": 1, "optimizer": "adamw", "away": True, "checkpointing": True}
    assert checkpoint.read_plan(tmp_path / "held" / "state")["means"] == means
    assert len(held.saves[-1].losses) == len(straight.saves[-1].losses)
    assert held.saves[-1].losses == pytest.approx(straight.saves[-1].losses, rel=1e-4)
    assert close(held.tensors, straight.tensors) < 1e-3
    assert not memory.recomputes(base), "the base is left as it was"


def test_a_resumed_run_begins_with_the_room_that_was_made(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path, small_card: Callable[..., None]
) -> None:
    s, pictures = change(quick, epochs=2), draw(tmp_path / "set", 2, repeats=2)
    small_card(lambda base, pictures, step: step < 2 or pictures == 1)
    first = Ran(base, pictures, s, tmp_path)
    assert [step for step, _ in first.said] == [2, 2, 2]
    newest = max((tmp_path / "state").glob("step-*"))
    newest.unlink()
    again = Ran(base, pictures, s, tmp_path)
    assert not again.said and again.begun[0].means.micro == 1 and len(again.begun[0].history) >= 2
    assert all(torch.equal(t, first.tensors[name]) for name, t in again.tensors.items())


def test_the_largest_bucket_is_tried_out_first_and_leaves_nothing_behind(
    base: Base,
    draw: Draw,
    quick: TrainSettings,
    tmp_path: Path,
    small_card: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s, pictures = change(quick, optimizer="adamw"), draw(tmp_path / "set", 3, repeats=2)
    straight = Ran(base, pictures, s, tmp_path / "straight")
    assert straight.begun[0].seconds is None  # of a toy nobody needs to know
    monkeypatch.setattr(memory, "REAL", 1)
    tried = Ran(base, pictures, s, tmp_path / "tried")
    assert (tried.begun[0].seconds or 0) > 0 and tried.begun[0].history == ()
    assert all(torch.equal(t, straight.tensors[name]) for name, t in tried.tensors.items())

    small_card(lambda base, pictures, step: False)
    broken = Ran(base, pictures, s, tmp_path / "broken")
    assert not broken.begun and "Out of memory, with all done that saves it" in str(broken.error)
    assert {step for step, _ in broken.said} == {0} and "the optimizer keeps 8 bits" in broken.said[-1][1]


def test_what_the_ladder_offers() -> None:
    low = Means(1, "adamw", away=True, checkpointing=True)
    assert [means.optimizer for means, _ in memory.ladder(low, begun=False)] == ["adamw8bit"]
    assert list(memory.ladder(low, begun=True)) == []  # another optimizer would have no past
    assert [means.micro for means, _ in memory.ladder(Means(5, "x", away=True), begun=True)] == [5, 3]


def test_training_is_held_to_the_memory_that_is_free() -> None:
    asked: list[tuple[float, object]] = []
    cuda = SimpleNamespace(
        mem_get_info=lambda device: (6_000, 10_000),
        memory_reserved=lambda device: 1_000,
        set_per_process_memory_fraction=lambda share, device: asked.append((share, device)),
    )
    memory.hold_to_free(torch.device("cpu"), cuda)
    assert asked == []
    memory.hold_to_free(torch.device("cuda"), cuda)
    assert asked == [(0.7, torch.device("cuda"))]


def test_a_real_base_is_not_trained_on_the_cpu_beside_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.safetensors"
    counted = {"many": 860_000_000}
    monkeypatch.setattr(memory, "parameters", lambda path: counted["many"])
    with pytest.raises(BaseError) as raised:
        memory.refuse_cpu(path, smi(card="NVIDIA GeForce RTX 3060, 550.90\n"))
    for word in ("big.safetensors", "GeForce RTX 3060", "550.90", torch.__version__, "pytorch.org", "--cpu"):
        assert word in str(raised.value)
    memory.refuse_cpu(path, smi())
    counted["many"] = 4_000_000
    memory.refuse_cpu(path, smi(card="NVIDIA GeForce RTX 3060, 550.90\n"))
    with pytest.raises(BaseError, match=r"1200 steps about 4\.0 hours[\s\S]*--cpu"):
        memory.refuse_hours(12.0, 1200)


def test_a_step_of_five_times_the_usual_is_said() -> None:
    pace = Pace()
    assert [pace.took(30.0), *(pace.took(2.0) for _ in range(8))] == [""] * 9
    assert pace.took(9.9) == ""
    assert pace.took(11.0) == "took 11.0 s, 6 times the usual 2 s"
    assert pace.took(2.0) == ""
