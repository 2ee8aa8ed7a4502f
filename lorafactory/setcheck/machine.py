"""Will it fit: what a training writes against the free disk, what it needs against the memory there is.

Everything is read from headers and settings; no tensor is loaded and torch is not imported.
"""

from __future__ import annotations

import math
import re
import shutil
from importlib import metadata
from pathlib import Path

import psutil

from lorafactory import families, networks
from lorafactory.errors import LoraError
from lorafactory.networks import Layer
from lorafactory.setcheck import SEED, Finding, Verdict
from lorafactory.setcheck.pictures import Fits
from lorafactory.step import Work
from lorafactory.training.card import nvidia_smi
from lorafactory.training.saves import kept, saved
from lorafactory.training.settings import TrainSettings

GPU_GB = {"sd15": 8, "sdxl": 10}
"""Memory of a graphics card that a family's LoRA training wants, after seed 003."""
BYTES = {"auto": 4, "fp32": 4, "bf16": 2, "fp16": 2}
LATENT = 2 * 4 * 4 / 64
"""Bytes of the cached latents per pixel: mean and deviation, four channels, fp32, one cell per 8 x 8 pixels."""
CELL = 2.0
"""Bytes per pixel of a comparison's picture as PNG."""
REPEATS = 12
"""Of a picture as long as `repeats` has not decided, as in seed 003."""
SPARE = 1.5
"""How much more than the estimate should be free."""
_ATTENTION = re.compile(
    r"\.transformer_blocks\.|\.attentions\.\d+\.proj_|\.\d+\.1\.proj_(in|out)\.|middle_block\.1\.proj_"
)
_RESIDUAL = re.compile(r"\.(resnets|downsamplers|upsamplers)\.|(input|output)_blocks\.|middle_block\.")
_TEXT = re.compile(r"\.self_attn\.|\.mlp\.")
_OUTSIDE = re.compile(r"input_blocks\.0\.0\.")
"""Parts of a UNet as diffusers and as one-file checkpoints name them; `families` says which classes are meant."""


def findings(work: Work, fits: Fits, s: TrainSettings, *, save_dtype: str, cells: int) -> list[Finding]:
    """The rows about disk, graphics card and memory; `cells` is how many pictures a comparison draws per save."""
    base = base_of(work)
    rows = [disk(work, base, fits, s, save_dtype, cells)] if base else []
    return [*rows, card(base, pocket=work.recipe.header.base == "pocket"), *([memory(base, s)] if base else [])]


def base_of(work: Work) -> Path | None:
    try:
        return work.models.base
    except LoraError:
        return None  # said among the problems


# ---------------------------------------------------------------- disk


def disk(work: Work, base: Path, fits: Fits, s: TrainSettings, save_dtype: str, cells: int) -> Finding:
    lora, saves = lora_bytes(base, s, save_dtype), saves_of(work, fits, s)
    latents = sum(LATENT * fit.bucket[0] * fit.bucket[1] for fit in fits.values() if fit) * (2 if s.flip else 1)
    grid = (saves + 1) * cells * CELL * s.resolution**2
    needed = (saves + 1) * lora + latents + grid
    free = shutil.disk_usage(next(p for p in (work.place.root, *work.place.root.parents) if p.exists())).free
    value = f"{size(free)} free; {saves} saves of {size(lora)}, latents and comparison make {size(needed)}"
    verdict: Verdict = "problem" if free < needed else "note" if free < SPARE * needed else "ok"
    return Finding("disk", value, f"{size(SPARE * needed)} free", "lorafactory's estimate", verdict)


def saves_of(work: Work, fits: Fits, s: TrainSettings) -> int:
    """How many saves stay, by as many steps as the folders' numbers make; a 1 may be one that is not known yet."""
    told = {str(p.path): subset.repeats for subset in work.set.subsets for p in subset.pictures}
    shown = sum(REPEATS if (times := told.get(path, 1)) == 1 else times for path, fit in fits.items() if fit)
    each = max(1, math.ceil(shown / (s.batch * s.gradient_accumulation)))
    epochs = min(s.epochs, max(1, s.max_steps // each)) if s.max_steps else s.epochs
    return len(kept(saved(s, epochs, each), s.keep_last))


def lora_bytes(base: Path, s: TrainSettings, save_dtype: str) -> float:
    """Size of one save's matrices: what the network has for every layer that it adapts."""
    kind, family = networks.get(s.network), known_family(base)
    if networks.check_blocks(s, family):
        return 0.0  # said among the problems
    numbers = 0
    for part, name, shape in families.weights(base):
        block = block_of(part, name)
        if block is None or len(shape) < 2 or (part == "text_encoder" and not s.text_encoder_lr):
            continue
        layer = Layer(part, name, block, tuple(shape))
        if (chosen := networks.size(s.network, layer, s, family)) is not None:
            numbers += kind.numbers(layer, chosen, s)
    return float(numbers * BYTES[save_dtype] * (2 if s.ema else 1))


def block_of(part: str, name: str) -> str | None:
    """Which of a family's target blocks a weight lies in, by its name."""
    if part == "text_encoder":
        return "text" if _TEXT.search(name) else None
    if _ATTENTION.search(name):
        return "attention"
    return "resnet" if _RESIDUAL.search(name) and not _OUTSIDE.search(name) else None


# ---------------------------------------------------------------- memory


def card(base: Path | None, *, pocket: bool) -> Finding:
    """The graphics card, which torch must be able to use."""
    family = known_family(base)
    gb = GPU_GB.get(family, 0) if not pocket else 0
    wanted = f"{gb} GB for {family}" if gb else "none needed for the pocket's models" if pocket else "8 GB or more"
    cards = graphics_cards()
    if not cards:
        told = "none found: training runs on the processor" + ("" if pocket else ", for hours or days")
        return Finding("graphics card", told, wanted, SEED, "ok" if pocket else "note")
    name, total, free = cards[0]
    value = f"{name}, {free:.1f} of {total:.1f} GB free"
    if "+cpu" in metadata.version("torch"):
        return Finding("graphics card", f"{value}; the installed torch cannot use it", wanted, SEED, "note")
    return Finding("graphics card", value, wanted, SEED, "note" if free < gb else "ok")


def known_family(base: Path | None) -> str:
    try:
        return families.detect(base) if base else ""
    except LoraError:
        return ""


def graphics_cards() -> list[tuple[str, float, float]]:
    """Name, GB in all and GB free of each NVIDIA card, as nvidia-smi tells them; none where it is not installed."""
    rows = nvidia_smi("--query-gpu=name,memory.total,memory.free")
    return [(r[0], float(r[-2]) / 1024, float(r[-1]) / 1024) for r in rows if len(r) > 2 and r[-2].isdigit()]


def memory(base: Path, s: TrainSettings) -> Finding:
    """The machine's memory, into which the base is read before it goes to a card."""
    needed = sum(math.prod(shape) for _, _, shape in families.weights(base)) * BYTES[s.dtype]
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    dtype = "fp32" if s.dtype == "auto" else s.dtype
    value = f"{size(free)} of {size(total)} free, the base's weights take {size(needed)} in {dtype}"
    verdict: Verdict = "ok" if free >= SPARE * needed else "note"
    return Finding("memory", value, f"{size(SPARE * needed)} free", "lorafactory's estimate", verdict)


def size(number: float) -> str:
    """A number of bytes in the unit that suits it."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 1e7 else f"{number / 1e6:.1f} MB"
