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
from lorafactory.training import card, checkpoint, memory, objective, session
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.loop import Begun, Save, train
from lorafactory.training.memory import Means
from lorafactory.training.pace import Pace
from lorafactory.training.plan import Example
from lorafactory.training.running import Running
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import Draw, change, same

OURS = f"{os.getpid()}, python, 900\n"


def smi(apps: str = "", card: str = "") -> Callable[..., list[list[str]]]:
    """An nvidia-smi that answers with these lines."""
    return lambda query: [line.split(", ") for line in (apps if "compute-apps" in query else card).splitlines()]


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
        self.steps: list[tuple[int, float, float]] = []
        self.error: FailedError | None = None
        state = where / "state"
        self.keeper = Keeper(state, plan=checkpoint.read_plan(state), steps=told.pop("steps", 0))
        try:
            train(
                base,
                pictures,
                s,
                cache=where / "cache",
                on_save=self.saves.append,
                on_event=lambda step, text: self.said.append((step, text)),
                on_begin=self.begun.append,
                on_step=lambda *step: self.steps.append(step),
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
    monkeypatch.setattr(card, "nvidia_smi", smi(OURS + "4, C:\\Games\\blender.exe, 3100\n5, /usr/bin/Xorg, [N/A]\n"))
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
    assert not again.said and again.saves[-1].means.micro == 1 and len(again.begun[0].history) >= 2
    assert all(torch.equal(t, first.tensors[name]) for name, t in again.tensors.items())


def test_memory_that_runs_out_within_the_optimizer_costs_the_steps_since_the_last_state(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, pictures = change(quick, epochs=2), draw(tmp_path / "set", 2, repeats=3)
    straight = Ran(base, pictures, s, tmp_path / "straight")
    real, broken = Running.update, [5, 1]

    def update(now: Running, loss: float) -> float:
        if broken and now.step == broken[-1]:
            broken.pop()
            for parameter in now.trained:  # half of it is done
                parameter.data.add_(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(now, loss)

    monkeypatch.setattr(Running, "update", update)
    held = Ran(base, pictures, s, tmp_path / "held", steps=3)
    assert [step for step, _ in held.said] == [0, 4] and "leaves the card" in held.said[0][1]
    assert [step for step, _, _ in held.steps] == [1, 1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert same(held.tensors, straight.tensors)


def test_an_optimizer_without_room_is_found_when_it_is_tried_out(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, pictures = change(quick, optimizer="adamw", epochs=1), draw(tmp_path / "set", 2)
    real = Running.update

    def update(now: Running, loss: float) -> float:
        if now.name == "adamw":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(now, loss)

    monkeypatch.setattr(Running, "update", update)
    monkeypatch.setattr(memory, "REAL", 1)
    held = Ran(base, pictures, s, tmp_path)
    assert {step for step, _ in held.said} == {0} and "the optimizer keeps 8 bits" in held.said[-1][1]
    assert held.saves[-1].means.optimizer == "adamw8bit"


def test_held_out_pictures_are_measured_in_pieces_where_memory_is_short(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s, pictures = change(quick, epochs=1), draw(tmp_path / "set", 3)
    straight = Ran(base, pictures[:2], s, tmp_path / "straight", held_out=pictures[2:])
    real = objective.ask

    def ask(*args: Any, clean: Tensor, **told: Any) -> tuple[Tensor, Tensor]:
        if len(clean) > s.batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, clean=clean, **told)

    monkeypatch.setattr(objective, "ask", ask)
    held = Ran(base, pictures[:2], s, tmp_path / "held", held_out=pictures[2:])
    assert [step for step, _ in held.said] == [0]
    assert held.saves[-1].holdout == pytest.approx(straight.saves[-1].holdout, rel=1e-5)
    assert same(held.tensors, straight.tensors)


@pytest.mark.parametrize("enough", [True, False])
def test_pictures_are_encoded_with_the_vae_alone_where_memory_is_short(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    pictures, moved = draw(tmp_path / "set", 3), []
    straight = Ran(base, pictures[:2], quick, tmp_path / "straight", held_out=pictures[2:])
    family, unet = families.get("sd15"), base.parts["unet"]
    real = family.encode_images

    def encode(base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if not (enough and moved == ["cpu"]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(base, pixels)

    monkeypatch.setattr(family, "encode_images", encode)
    monkeypatch.setattr(unet, "to", moved.append)
    held = Ran(base, pictures[:2], quick, tmp_path / "held", held_out=pictures[2:])
    assert moved == ["cpu", base.device] and "while the rest of the base is off the card" in held.said[0][1]
    if enough:
        assert same(held.tensors, straight.tensors)
    else:
        assert "with the VAE alone on the card" in str(held.error)


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
    monkeypatch.setattr(card, "nvidia_smi", smi(card="NVIDIA GeForce RTX 3060, 550.90\n"))
    with pytest.raises(BaseError) as raised:
        memory.refuse_cpu(path)
    for word in ("big.safetensors", "GeForce RTX 3060", "550.90", torch.__version__, "pytorch.org", "--cpu"):
        assert word in str(raised.value)
    monkeypatch.setattr(card, "nvidia_smi", smi(card="No devices were found\n"))
    memory.refuse_cpu(path)


def test_a_step_of_five_times_the_usual_is_said() -> None:
    pace = Pace()
    assert [pace.took(30.0), *(pace.took(2.0) for _ in range(8))] == [""] * 9
    assert pace.took(9.9) == ""
    assert pace.took(11.0) == "took 11.0 s, 6 times the usual 2 s"
    assert pace.took(2.0) == ""
