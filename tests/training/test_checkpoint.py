"""States: exact for every optimizer, whole or passed over; a killed training ends with the same tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorafactory.errors import FailedError
from lorafactory.families import Base
from lorafactory.training import checkpoint, optimizers, session
from lorafactory.training.checkpoint import Keeper, pack
from lorafactory.training.loop import Save, train
from lorafactory.training.plan import Example
from lorafactory.training.randomness import generator
from lorafactory.training.session import Start
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import change, same


class Killed(BaseException):
    """Ends a training anywhere, as a signal that cannot be caught would."""


@pytest.fixture(scope="module")
def pictures(pictures: list[Example]) -> list[Example]:
    return pictures[:3]


# ---------------------------------------------------------------- optimizers


def small(name: str) -> tuple[list[nn.Parameter], torch.optim.Optimizer, Any]:
    # the second is large enough that the 8-bit optimizers do quantize its state
    shapes = ((4, 6), (64, 80), (3, 2, 3, 3))
    parameters = [nn.Parameter(torch.randn(s, generator=generator(1, "start", *s))) for s in shapes]
    rates = (1.0, 1.0) if optimizers.is_adaptive(name) else (1e-2, 3e-3)  # those find one for all
    optimizer = optimizers.make(name, {}, list(zip(rates, (parameters[:1], parameters[1:]), strict=True)))
    settings = TrainSettings(scheduler="cosine_with_restarts", cycles=2, warmup=0 if name == "dadaptsgd" else 2)
    return parameters, optimizer, optimizers.schedule(optimizer, settings, 10)


def go(parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer, schedule: Any, steps: range) -> None:
    for step in steps:
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator(2, "gradient", step, index))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_five_steps_and_five_are_ten(name: str, tmp_path: Path) -> None:
    straight = small(name)
    go(*straight, range(10))
    first = small(name)
    go(*first, range(5))
    state = {"p": [p.detach() for p in first[0]], "o": first[1].state_dict(), "s": first[2].state_dict()}
    pack(state).write(tmp_path, 5)

    found = checkpoint.newest(tmp_path)
    assert found is not None
    state = found.unpack()
    parameters, optimizer, schedule = small(name)
    for parameter, value in zip(parameters, state["p"], strict=True):
        parameter.data.copy_(value)
    optimizer.load_state_dict(state["o"])
    schedule.load_state_dict(state["s"])
    go(parameters, optimizer, schedule, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(straight[0], parameters, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[0], parameters, strict=True))
    assert schedule.get_last_lr() == straight[2].get_last_lr()


# ---------------------------------------------------------------- files


STATE = {
    "text": "é",
    "none": None,
    "yes": True,
    "numbers": [1, 0.1, math.inf, -math.inf],
    "pair": (1, "a"),
    3: {"deep": torch.arange(6, dtype=torch.uint8).reshape(2, 3)},
    "bf16": torch.tensor([1.5, math.nan], dtype=torch.bfloat16),
    "whole": torch.tensor(7),
    "nothing": torch.zeros(0, 2),
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    pack(STATE).write(tmp_path, 12)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.digest() == pack(STATE).digest()
    back = found.unpack()
    assert list(back) == list(STATE) and back["pair"] == (1, "a") and back["numbers"] == STATE["numbers"]
    assert torch.equal(back[3]["deep"], STATE[3]["deep"]) and back[3]["deep"].dtype == torch.uint8
    assert back["bf16"].dtype == torch.bfloat16 and back["whole"].shape == () and back["nothing"].shape == (0, 2)
    back["whole"] += 1
    assert found.unpack()["whole"] == 7
    with pytest.raises(FailedError, match="holds a object"):
        pack({"strange": object()})


def test_two_states_stay_and_the_newest_whole_one_wins(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        pack({"step": step, "x": torch.full((40,), float(step))}).write(tmp_path, step)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000010.safetensors", "step-00000015.safetensors"]
    newest = tmp_path / "step-00000015.safetensors"
    whole = newest.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    other = whole.replace(b'\\"step\\",15', b'\\"step\\",16')
    assert other != whole
    for torn in (b"", whole[:5], whole[:-7], bytes(flipped), other):
        newest.write_bytes(torn)
        said: list[str] = []
        found = checkpoint.newest(tmp_path, said.append)
        assert found is not None and found.unpack()["step"] == 10
        assert len(said) == 1 and str(newest) in said[0] and "passed over" in said[0]
    newest.write_bytes(whole)
    found = checkpoint.newest(tmp_path)
    assert found is not None and found.unpack()["step"] == 15
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_when_a_state_is_due(tmp_path: Path) -> None:
    now = [0.0]
    keeper = Keeper(tmp_path / "state", minutes=2, steps=100, clock=lambda: now[0])
    assert not keeper.due(99) and keeper.due(100)
    now[0] = 120
    assert keeper.due(1)
    keeper.keep(pack({}), 40)
    assert not keeper.due(139) and keeper.due(140)
    assert not Keeper(minutes=0, clock=lambda: 1e9).due(10**6)
    keeper.decide(threads=3)
    assert checkpoint.read_plan(tmp_path / "state") == {"threads": 3}
    checkpoint.finish(tmp_path / "state", tmp_path / "log")
    assert not (tmp_path / "state").exists() and (tmp_path / "log" / "plan.json").is_file()


# ---------------------------------------------------------------- killed and resumed


def run(
    base: Base, pictures: list[Example], s: TrainSettings, cache: Path, keeper: Keeper | None = None, kill: int = 0
) -> tuple[list[Save], list[int], list[str]]:
    """Train; be killed while step `kill` is computed. Returns saves, steps heard of, what was said."""
    saves: list[Save] = []
    steps: list[int] = []
    said: list[str] = []
    calls = iter(range(10**6))
    real = session.forward.losses

    def losses(*args: Any, **told: Any) -> Tensor:
        if kill and told["step"] == kill - 1 and next(calls) == 1:  # in the middle of what is accumulated
            raise Killed
        return real(*args, **told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.forward, "losses", losses)
        try:
            train(
                base,
                pictures,
                s,
                cache=cache,
                on_save=saves.append,
                on_step=lambda step, loss, lr: steps.append(step),
                on_event=lambda step, text: said.append(text),
                held_out=pictures[:1],
                keeper=keeper,
            )
        except Killed:
            assert kill
    return saves, steps, said


def test_a_killed_training_ends_with_the_same_tensors(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, tmp_path: Path
) -> None:
    """With accumulation, a text encoder in training and every random option on. There are no data workers: latents
    and texts are cached."""
    s = change(quick, batch=1, gradient_accumulation=2, epochs=3, text_encoder_lr=1e-3, save_every_steps=4)
    straight, steps, _ = run(base, pictures, s, cache)
    assert steps == list(range(1, 10)) and [save.step for save in straight] == [4, 8, 9]
    for kill in (1, 4, 6, 9):
        folder = tmp_path / str(kill)
        before, heard, _ = run(base, pictures, s, cache, Keeper(folder, steps=2), kill)
        assert heard == list(range(1, kill))
        assert len(list(folder.glob("step-*"))) == (1 if kill <= 2 else 2)
        after, heard, _ = run(base, pictures, s, cache, Keeper(folder, plan=checkpoint.read_plan(folder)))
        assert heard == list(range((kill - 1) // 2 * 2 + 1, 10))
        assert same(after[-1].tensors, straight[-1].tensors)
        assert after[-1].losses == straight[-1].losses and after[-1].holdout == straight[-1].holdout
        assert {save.step for save in (*before, *after)} == {4, 8, 9}


def test_a_torn_state_costs_the_steps_since_the_one_before(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, tmp_path: Path
) -> None:
    s = change(quick, batch=3, epochs=2)
    straight, steps, _ = run(base, pictures, s, cache)
    run(base, pictures, change(s, gradient_accumulation=1), cache, Keeper(tmp_path, steps=1), 0)
    newest = max(tmp_path.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    after, heard, said = run(base, pictures, s, cache, Keeper(tmp_path))
    assert heard == steps[-1:] and "passed over" in said[0]
    assert same(after[-1].tensors, straight[-1].tensors)


# ---------------------------------------------------------------- from a LoRA


def test_a_lora_is_gone_on_with_its_own_ranks_and_numbering(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path
) -> None:
    s = change(quick, network="locon", text_encoder_lr=1e-3, epochs=1, batch=3)
    first = run(base, pictures, s, cache)[0][-1]
    saves: list[Save] = []
    plain = change(quick, rank=9, alpha=9, epochs=2, batch=3, lr=1e-3)  # neither text encoder nor convolutions
    start = Start(first.tensors, first.epoch, first.step)
    train(base, pictures, plain, cache=cache, on_save=saves.append, start=start)
    assert [(save.epoch, save.step) for save in saves] == [(2, 2 * first.step), (3, 3 * first.step)]
    last = saves[-1].tensors
    assert {n: t.shape for n, t in last.items()} == {n: t.shape for n, t in first.tensors.items()}
    kept = {n: torch.equal(t, first.tensors[n]) for n, t in last.items() if not n.endswith("alpha")}
    assert all(equal for name, equal in kept.items() if name.startswith("lora_te"))
    assert not any(equal for name, equal in kept.items() if name.startswith("lora_unet") and "lora_up" in name)
