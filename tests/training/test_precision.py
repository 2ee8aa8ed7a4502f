"""What a base computes in: decided from its size, the settings and the machine, and carried out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.families import Base, Frame
from lorafactory.pocket import MODELS
from lorafactory.training import adapter, lora_file, precision, quantize
from lorafactory.training.precision import Decision, decide
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings

POCKET = MODELS / "base"
SIZES = {"sd15": 860e6, "sdxl": 2570e6}


def of_size(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """A base with so many weights in its UNet: one linear layer and one convolution of a usual size, and the rest."""
    rest = int(count) - 64 * 64 - 64 * 64 * 9
    shapes = [("unet", ".a", (64, 64)), ("unet", ".b", (64, 64, 3, 3)), ("unet", ".rest", (max(0, rest),))]
    monkeypatch.setattr(families, "weights", lambda path: iter([*shapes, ("text_encoder", ".c", (9, 9))]))


def card(monkeypatch: pytest.MonkeyPatch, gb: float, *, bf16: bool) -> None:
    told = type("Told", (), {"total_memory": int(gb * 1e9)})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: told)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


def test_the_pocket_base_stays_in_fp32_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain_of_bf16", lambda shapes, s: 9.0)
    card(monkeypatch, 8, bf16=True)
    for device in ("cpu", "cuda"):
        assert decide(POCKET, TrainSettings(), device=device).dtype == "fp32"


@pytest.mark.parametrize(("gain", "dtype"), [(2.0, "bf16"), (1.02, "fp32"), (0.3, "fp32")])
def test_a_processor_takes_what_it_is_faster_with(monkeypatch: pytest.MonkeyPatch, gain: float, dtype: str) -> None:
    of_size(monkeypatch, SIZES["sd15"])
    monkeypatch.setattr(precision, "gain_of_bf16", lambda shapes, s: gain)
    found = decide(Path("base"), TrainSettings(), device="cpu")
    assert found.dtype == dtype and f"{gain:.1f} times as fast" in str(found)
    assert decide(Path("base"), TrainSettings(dtype="fp16"), device="cpu").dtype == "fp16"


def test_the_gain_is_that_of_the_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, speed = [0.0], {torch.float32: 3.0, torch.bfloat16: 1.0}
    seen: list[tuple[int, ...]] = []

    def job(shape: tuple[int, ...], side: int, batch: int) -> Callable[[torch.dtype], Callable[[], None]]:
        seen.append(shape)

        def work(dtype: torch.dtype) -> None:
            clock[0] += speed[dtype] * math.prod(shape)

        return lambda dtype: lambda: work(dtype)

    monkeypatch.setattr(precision, "_job", job)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    shapes = [(4, 4), (8, 4), (4,), (4, 4, 1, 1), (4, 4, 3, 3), (2, 4, 3, 3)]
    assert precision.gain_of_bf16(shapes, TrainSettings()) == pytest.approx(3.0)
    assert seen == [(8, 4), (4, 4, 3, 3)]  # the largest of each kind, and of convolutions those that look around


def test_the_timed_layers_are_really_computed() -> None:
    for shape, size in (((6, 4), (32, 6)), ((6, 4, 3, 3), (2, 6, 4, 4))):
        for dtype in (torch.float32, torch.bfloat16):
            out = precision._job(shape, 4, 2)(dtype)()
            assert (tuple(out.shape), out.dtype) == (size, dtype)


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize(("family", "gb", "on"), [("sdxl", 12, True), ("sdxl", 24, False), ("sd15", 8, False)])
def test_a_card_takes_what_it_supports(
    monkeypatch: pytest.MonkeyPatch, family: str, gb: float, on: bool, bf16: bool
) -> None:
    of_size(monkeypatch, SIZES[family])
    card(monkeypatch, gb, bf16=bf16)
    found = decide(Path("base"), TrainSettings(), device="cuda")
    assert (found.dtype, found.checkpointing) == ("bf16" if bf16 else "fp16", on)
    for asked in (True, False):
        assert decide(Path("base"), TrainSettings(gradient_checkpointing=asked), device="cuda").checkpointing == asked


def test_a_decision_outlives_the_process() -> None:
    decided = decide(POCKET, TrainSettings(quantize="4bit", gradient_checkpointing=True), device="cpu")
    assert Decision(**asdict(decided)) == decided
    assert "held in 4bit" in str(decided) and "gradient checkpointing" in str(decided)


# ---------------------------------------------------------------- carried out

PLAIN = Decision("cpu", "fp32", "none", checkpointing=False, compile=False, why="")


def attached(base: Base, part: str = "unet") -> adapter.Adapter:
    """An adapter that is not nothing: its upper matrices are no zeros."""
    matrices = adapter.attach(
        families.get(base.family),
        base,
        kind="locon",
        settings=TrainSettings(rank=4, conv_rank=2),
        parts=[part],
        generator=lambda name: generator(1, name),
    )
    with torch.no_grad():
        for index, parameter in enumerate(matrices.parameters(part)):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator(2, index)))
    return matrices


def answer(base: Base) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What an adapted base says of one picture, and the gradients."""
    family, matrices = families.get(base.family), attached(base)
    named = {name: module for name, (_, module, _) in matrices.modules.items()}
    noisy = torch.randn((1, base.latent_channels, 16, 16), generator=generator(3))
    words = family.encode_captions(base, ["a dot"], [Frame((64, 64), (0, 0), (64, 64))])
    with precision.autocast(base):
        out = family.predict(base, noisy, torch.tensor([400]), words)
    out.square().mean().backward()
    grads = {name: module.lora_B[adapter.ADAPTER].weight.grad.clone() for name, module in named.items()}
    assert {p.dtype for p in matrices.parameters("unet")} == {torch.float32}
    matrices.detach()
    return out.detach(), grads


@pytest.fixture(scope="module")
def plain() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return answer(precision.load(POCKET, PLAIN))


def decided(**values: Any) -> Decision:
    return Decision(**{**asdict(PLAIN), **values})


def apart(found: tuple[torch.Tensor, dict[str, torch.Tensor]], plain: Any) -> tuple[float, float]:
    """Relative distance of the answers, and of all gradients together."""
    flat = [torch.cat([g.flatten() for g in one[1].values()]) for one in (found, plain)]
    return float((found[0] - plain[0]).norm() / plain[0].norm()), float((flat[0] - flat[1]).norm() / flat[1].norm())


def test_checkpointing_changes_no_number(plain: Any) -> None:
    base = precision.load(POCKET, decided(checkpointing=True))
    assert base.parts["unet"].is_gradient_checkpointing  # type: ignore[union-attr]
    assert apart(answer(base), plain) == (0.0, 0.0)


def test_bf16_is_near_fp32(plain: Any) -> None:
    base = precision.load(POCKET, decided(dtype="bf16"))
    out, grads = apart(answer(base), plain)
    assert 0 < out < 0.03 and 0 < grads < 0.15


@pytest.mark.parametrize(("kind", "most"), [("8bit", 0.05), ("4bit", 0.3)])
def test_a_quantized_base_answers_nearly_the_same_and_trains(plain: Any, kind: str, most: float) -> None:
    whole, base = precision.load(POCKET, PLAIN), precision.load(POCKET, decided(quantize=kind))
    small = [path for path, m in base.parts["unet"].named_modules() if type(m).__module__.startswith("bitsandbytes")]
    linear = [path for path, m in whole.parts["unet"].named_modules() if type(m) is torch.nn.Linear]
    assert set(small) == {path for path in linear if ".transformer_blocks." in path or ".proj_" in path}
    weights = [[b.parts["unet"].get_submodule(path).weight for path in small] for b in (base, whole)]
    held = [sum(weight.numel() * weight.element_size() for weight in own) for own in weights]
    assert held[0] == pytest.approx(held[1] * {"8bit": 8, "4bit": 4}[kind] / 32)
    out, grads = apart(answer(base), plain)
    assert 0 < out < most and grads < 3 * most
    matrices = attached(base)
    state = matrices.state()
    matrices.detach()
    with pytest.raises(SettingsError, match="Load it without quantize"):
        lora_file.apply(base, state)


def test_what_cannot_be_quantized_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no kernel for this\nand a long trace")

    monkeypatch.setattr(quantize, "quantized", broken)
    with pytest.raises(SettingsError, match=r"cannot compute so on cpu \(no kernel for this\)\. Take it out"):
        quantize.check("4bit", "cpu")


def test_attention_is_computed_by_torch_in_one_call() -> None:
    base = precision.load(POCKET, PLAIN)
    unet: Any = base.parts["unet"]
    assert {type(processor) for processor in unet.attn_processors.values()} == {AttnProcessor2_0}
    text: Any = base.parts["text_encoder"]
    assert text.config._attn_implementation == "sdpa"


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's tracer looks for one everywhere
def test_the_repeated_blocks_are_compiled_and_nothing_else(monkeypatch: pytest.MonkeyPatch, plain: Any) -> None:
    """With torch's own tracing and no code generation, which would take minutes."""
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: whole(*a, **{**k, "backend": "eager"}))
    base = precision.load(POCKET, decided(compile=True))
    compiled = {type(m).__name__ for m in base.parts["unet"].modules() if m._compiled_call_impl is not None}
    assert compiled == {"BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D"}
    out, grads = apart(answer(base), plain)
    assert out < 1e-5 and grads < 1e-4


def test_without_a_compiler_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **kwargs: object) -> Callable[..., object]:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(torch, "compile", nothing)
    with pytest.raises(SettingsError, match=r"train\.compile needs a compiler.*no compiler found"):
        precision.load(POCKET, decided(compile=True))
