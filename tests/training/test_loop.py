"""The loop on a tiny random base: exact steps and saves, the same tensors from the same seed, nothing left behind."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorafactory import families
from lorafactory.errors import FailedError, LoraError, SettingsError
from lorafactory.families import Base
from lorafactory.training import objective, session
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.loop import Outcome, Save, train
from lorafactory.training.plan import Example, plan
from lorafactory.training.precision import DTYPES
from lorafactory.training.sample import sample
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import Draw, change, same


def weights(base: Base) -> dict[str, Tensor]:
    return {f"{p}.{n}": t.clone() for p, part in base.parts.items() for n, t in part.state_dict().items()}


@pytest.fixture(scope="module")
def ran(base: Base, pictures: list[Example], quick: TrainSettings, cache: Path) -> tuple[Outcome, list[Save], Any]:
    saves: list[Save] = []
    steps: list[tuple[int, float, float]] = []
    before = weights(base)
    outcome = train(
        base,
        pictures[:4],
        change(quick, network="locon", text_encoder_lr=1e-3, epochs=3, save_every_epochs=2, warmup=2),
        cache=cache,
        on_step=lambda *told: steps.append(told),
        on_save=saves.append,
        held_out=pictures[4:],
    )
    assert same(before, weights(base)), "training must leave the base as it was"
    return outcome, saves, steps


def test_steps_and_saves_are_those_of_the_plan(ran: tuple[Outcome, list[Save], Any]) -> None:
    outcome, saves, steps = ran
    assert outcome.plan.steps == 3 * 4  # four buckets of one picture, each shown twice, in pairs
    assert [told[0] for told in steps] == list(range(1, outcome.plan.steps + 1))
    assert [told[1] for told in steps] == list(outcome.losses)
    assert [(save.epoch, save.step) for save in saves] == [(2, 8), (3, 12)]
    assert saves[0].losses == outcome.losses[:8] and saves[1].losses == outcome.losses
    rates = [told[2] for told in steps]
    assert rates[:3] == pytest.approx([0, 0.005, 0.01])  # warm-up
    assert rates[2:] == sorted(rates[2:], reverse=True)  # cosine


def test_held_out_pictures_are_measured_at_the_start_and_at_each_save(ran: tuple[Outcome, list[Save], Any]) -> None:
    outcome, saves, _ = ran
    assert outcome.holdout_before is not None and math.isfinite(outcome.holdout_before)
    assert outcome.holdout_after == tuple(save.holdout for save in saves)
    assert outcome.holdout_before != outcome.holdout_after[0]


def test_a_save_has_the_names_of_the_format(ran: tuple[Outcome, list[Save], Any]) -> None:
    tensors = ran[1][-1].tensors
    assert {name.partition(".")[2] for name in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    layers = {name.partition(".")[0] for name in tensors}
    assert len(tensors) == 3 * len(layers)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0" in layers
    assert "lora_unet_mid_block_resnets_1_time_emb_proj" in layers
    assert "lora_te_text_model_encoder_layers_1_self_attn_q_proj" in layers
    moved = [name for name, t in tensors.items() if name.endswith("lora_up.weight") and t.abs().sum() > 0]
    assert {"lora_te" in name for name in moved} == {True, False}


def test_the_same_seed_gives_the_same_tensors(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, tmp_path: Path
) -> None:
    def run(settings: TrainSettings, where: Path, base: Base = base, order: int = 1) -> dict[str, Tensor]:
        saves: list[Save] = []
        train(base, pictures[::order], settings, cache=where, on_save=saves.append)
        return saves[-1].tensors

    first = run(quick, cache)
    torch.manual_seed(123)  # what others draw must not matter, nor a cold cache, nor a freshly made base
    assert same(first, run(quick, tmp_path / "cold", families.get("sd15").tiny()))
    assert not same(first, run(change(quick, seed=8), cache))
    assert not same(first, run(change(quick, flip=False), cache))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4, unique_by=lambda p: p[0]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from((0, 3, 5)),
)
def test_the_plan_printed_is_the_plan_run(
    base: Base,
    pictures: list[Example],
    quick: TrainSettings,
    cache: Path,
    chosen: list[tuple[int, int]],
    reg: int,
    batch: int,
    accumulation: int,
    epochs: int,
    most: int,
) -> None:
    """Over sets, repeats, regularisation pictures, batches, accumulation, epochs and max_steps."""
    examples = [replace(pictures[i], repeats=repeats) for i, repeats in chosen]
    examples += [replace(pictures[i], name=f"reg/{i}.png", repeats=1, reg=True) for i in range(reg)]
    values = {"batch": batch, "gradient_accumulation": accumulation, "epochs": epochs, "max_steps": most}
    asked = change(quick, **values)
    try:
        told = plan(examples, asked)
    except LoraError as error:
        assert "max_steps" in str(error) or "0 repeats" in str(error)
        return
    steps: list[int] = []
    saves: list[Save] = []
    train(base, examples, asked, cache=cache, on_step=lambda step, loss, lr: steps.append(step), on_save=saves.append)
    assert steps == list(range(1, told.steps + 1))
    assert tuple((save.epoch, save.step) for save in saves) == told.saves
    assert not most or told.steps <= most


def test_training_learns(base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path) -> None:
    one = draw(tmp_path, 1, repeats=40)
    plain = change(
        quick, epochs=2, batch=4, caption_dropout=0, tag_dropout=0, flip=False, noise_offset=0, min_snr_gamma=0
    )
    outcome = train(base, one, change(plain, network="locon"), cache=tmp_path / "cache", held_out=one)
    assert outcome.holdout_before is not None
    assert outcome.holdout_after[-1] < 0.9 * outcome.holdout_before


def test_accumulation_equals_a_larger_batch(
    base: Base, draw: Draw, quick: TrainSettings, cache: Path, tmp_path: Path
) -> None:
    four = [replace(e, width=32, height=32) for e in draw(tmp_path, 1, repeats=4)]
    once = change(quick, epochs=1, gradient_accumulation=1, batch=4)
    whole = train(base, four, once, cache=cache)
    parts = train(base, four, change(once, gradient_accumulation=4, batch=1), cache=cache)
    assert len(whole.losses) == len(parts.losses) == 1
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_and_names_the_pictures(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "weights", lambda schedule, t, s: torch.full(t.shape, math.nan))
    before = weights(base)
    with pytest.raises(FailedError, match=r"nan at step 1 \(epoch 1\)[\s\S]*000\d\.png"):
        train(base, pictures, quick, cache=cache)
    assert same(before, weights(base))


def test_after_a_loss_that_is_not_finite_it_goes_back_once_with_half_the_rate(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, float, float]] = []
    said: list[tuple[int, str]] = []
    broken = {4}  # the fifth step, once
    real = session.forward.losses

    def losses(*args: Any, step: int, **more: Any) -> Tensor:
        found = real(*args, step=step, **more)
        if step in broken:
            broken.remove(step)
            return found * math.inf
        return found

    monkeypatch.setattr(session.forward, "losses", losses)
    s = change(quick, scheduler="constant", epochs=2)
    outcome = train(
        base,
        pictures,
        s,
        cache=cache,
        on_step=lambda *step: told.append(step),
        on_event=lambda step, text: said.append((step, text)),
        keeper=Keeper(steps=3),
    )
    assert [(step, lr) for step, _, lr in told[:7]] == [
        *((step, 0.01) for step in (1, 2, 3, 4)),
        *((step, 0.005) for step in (4, 5, 6)),  # back to the state after the third
    ]
    assert len(outcome.losses) == outcome.plan.steps and all(math.isfinite(loss) for loss in outcome.losses)
    (step, text), *others = said
    assert step == 3 and not others and "The loss became inf at step 5 (epoch 1)" in text and ".png" in text


def test_a_stop_lets_the_step_end_and_keeps_it(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, tmp_path: Path
) -> None:
    before, done = signal.getsignal(signal.SIGTERM), []

    def on_step(step: int, loss: float, lr: float) -> None:
        done.append(step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(base, pictures, quick, cache=cache, on_step=on_step, keeper=Keeper(tmp_path))
    assert done == [1, 2] and signal.getsignal(signal.SIGTERM) is before
    assert max(tmp_path.glob("step-*")).name == "step-00000002.safetensors"


def test_what_is_wrong_is_said_before_a_picture_is_opened(base: Base, quick: TrainSettings, tmp_path: Path) -> None:
    missing = [Example("a.png", tmp_path / "a.png", "0", "zqx", 1, 32, 32)]
    wrong = change(quick, optimizer="adamw", optimizer_args={"betta": 1}, scheduler="sine", network="lara")
    with pytest.raises(SettingsError) as raised:
        train(base, missing, wrong, cache=tmp_path / "cache")
    for word in ("betta", "betas", "'sine'", "'lara'", "locon"):
        assert word in str(raised.value)
    with pytest.raises(SettingsError, match=r"'adamv'.*adamw8bit"):
        train(base, missing, change(quick, optimizer="adamv"), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_base_in_low_precision_trains_an_adapter_in_fp32(
    pictures: list[Example], quick: TrainSettings, cache: Path, dtype: str
) -> None:
    base = families.get("sd15").tiny()
    base.dtype = DTYPES[dtype]
    for part in base.parts.values():
        part.to(base.dtype)
    saves: list[Save] = []
    outcome = train(
        base,
        pictures,
        change(quick, dtype=dtype, text_encoder_lr=1e-3, network="locon"),
        cache=cache,
        on_save=saves.append,
        held_out=pictures[:1],
    )
    full = train(families.get("sd15").tiny(), pictures, quick, cache=cache)
    assert outcome.losses[0] == pytest.approx(full.losses[0], rel=0.05)
    assert {t.dtype for t in saves[-1].tensors.values()} == {torch.float32}
    assert all(torch.isfinite(t).all() for t in saves[-1].tensors.values())


@pytest.mark.parametrize("name", ["adafactor", "adamw8bit", "lion8bit"])
def test_other_optimizers_train(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path, name: str
) -> None:
    outcome = train(base, pictures, change(quick, optimizer=name, epochs=1, scheduler="linear"), cache=cache)
    assert all(math.isfinite(loss) for loss in outcome.losses)


def test_latents_are_cached_by_content(base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path) -> None:
    two, cache = draw(tmp_path / "set", 2), tmp_path / "cache"
    short = change(quick, epochs=1, flip=False)
    train(base, two, short, cache=cache)
    entries = sorted((cache / "latents").iterdir())
    assert len(entries) == 2 and all(e.suffix == ".safetensors" for e in entries)
    entries[0].write_bytes(b"broken")
    train(base, [replace(e, name=f"new-{e.name}") for e in two], short, cache=cache)
    assert sorted((cache / "latents").iterdir()) == entries
    train(base, two, change(short, bucket_step=32), cache=cache)
    assert len(list((cache / "latents").iterdir())) == 3  # another cut of the wider picture, the same of the square one
    train(base, two, change(short, flip=True), cache=cache)
    assert len(list((cache / "latents").iterdir())) == 5


def test_a_sample_does_not_depend_on_its_batch(base: Base) -> None:
    options = {"steps": 3, "size": (32, 32)}
    together = sample(base, ["a", "b", "a"], [1, 2, 3], batch=3, **options)
    alone = [sample(base, [p], [s], **options)[0] for p, s in (("a", 1), ("b", 2), ("a", 3))]
    for one, other in zip(together, alone, strict=True):
        difference = [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]
        assert max(difference) <= 1
    assert together[0].tobytes() != together[2].tobytes()
    with pytest.raises(SettingsError, match="2 prompts and 1 seeds"):
        sample(base, ["a", "b"], [1])
