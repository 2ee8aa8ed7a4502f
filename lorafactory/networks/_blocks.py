"""Ranks and learning rates of single blocks of the UNet, numbered as kohya numbers them.

SD 1.5: 0-11 the way down, 12 the middle, 13-24 the way up. SDXL: 0 the embeddings, 1-9 down, 10-12 middle, 13-21 up,
22 the way out. Both count blocks as the original checkpoints do (sd-scripts `networks/lora.py: get_block_index`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorafactory.training.settings import TrainSettings as Settings

FORMS = {"sd15": (12, 1, 12), "sdxl": (9, 3, 9)}
"""Blocks of each family: down, middle, up."""
RATES = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
DIMS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
SETTINGS = (*DIMS, *RATES, "block_lr_zero_threshold")
PRESETS: dict[str, Callable[[float], float]] = {
    "sine": lambda share: math.sin(math.pi / 2 * share),
    "cosine": lambda share: math.sin(math.pi / 2 * (1 - share)),
    "linear": lambda share: share,
    "reverse_linear": lambda share: 1 - share,
    "zeros": lambda share: 0.0,
}
"""Factors by how far down a way a block is, 0 to 1 (sd-scripts `networks/lora.py: get_block_lr_weight`)."""
_DIFFUSERS = re.compile(r"(down|up)_blocks[._](\d+)[._](attentions|resnets|downsamplers|upsamplers)[._](\d+)")
_MIDDLE = re.compile(r"mid_block[._](attentions|resnets)[._](\d+)")
_ORIGINAL = re.compile(r"(input|middle|output)_blocks?[._](\d+)")


def place(name: str) -> tuple[str, int] | None:
    """Way and number of the block that a layer lies in, by its path or kohya name in either naming."""
    if found := _ORIGINAL.search(name):
        return found[1], int(found[2])
    if found := _MIDDLE.search(name):
        return "middle", 1 if found[1] == "attentions" else 2 * int(found[2])
    if not (found := _DIFFUSERS.search(name)):
        return None
    level, kind, number = int(found[2]), found[3], int(found[4])
    within = 2 if kind.endswith("samplers") else number
    return ("input", 3 * level + within + 1) if found[1] == "down" else ("output", 3 * level + within)


def number(name: str, family: str) -> int | None:
    """Kohya's number of a layer's block."""
    found = place(name)
    if found is None:
        return None
    (way, n), (down, middle, _), first = found, FORMS[family], ends(family)
    return first + {"input": n, "middle": down + min(n, middle - 1), "output": down + middle + n}[way]


def ends(family: str) -> int:
    """1 where kohya also counts what lies before and after the blocks."""
    return int(family == "sdxl")


def numbers(value: Sequence[float] | str) -> tuple[float, ...]:
    """Numbers as they are, or as text with commas; ValueError if they are none."""
    return tuple(float(x) for x in value.split(",") if x.strip()) if isinstance(value, str) else tuple(value)


def rates(value: Sequence[float] | str, count: int) -> tuple[float, ...]:
    """Factors of so many blocks: ones, numbers, or a preset's with a number on top; ValueError if they are none."""
    name, _, top = value.partition("+") if isinstance(value, str) else ("", "", "")
    if name.strip() in PRESETS:
        return tuple(PRESETS[name.strip()](i / max(1, count - 1)) + float(top or 0) for i in range(count))
    return numbers(value) or (1.0,) * count


def rate(name: str, s: Settings, family: str) -> float:
    """By what the learning rate of a layer is multiplied; 0 up to the threshold."""
    if not any(getattr(s, key) for key in RATES) or (index := number(name, family)) is None:
        return 1.0
    all_rates = [x for key, n in zip(RATES, FORMS[family], strict=True) for x in rates(getattr(s, key), n)]
    found = all_rates[index - ends(family)]
    return found if found > s.block_lr_zero_threshold else 0.0


def local(name: str, s: Settings, family: str, *, conv: bool) -> Settings | None:
    """The settings as they are for one layer, by its block's rank and alpha; None if it gets no adapter."""
    if not any(getattr(s, key) for key in SETTINGS):
        return s
    if rate(name, s, family) == 0:
        return None
    dims, alphas = (numbers(getattr(s, key)) for key in (DIMS[2:] if conv else DIMS[:2]))
    index = number(name, family)
    if index is None or not dims:
        return s
    prefix = "conv_" if conv else ""
    told: dict[str, float] = {f"{prefix}rank": int(dims[index])}
    told |= {f"{prefix}alpha": alphas[index]} if alphas else {}
    return s.model_copy(update=told) if dims[index] else None


def check(s: Settings, family: str) -> list[str]:
    """Say which of these settings have not as many numbers as the family has blocks, or no numbers at all."""
    if family not in FORMS:
        given = [key for key in SETTINGS if getattr(s, key)]
        return [f"{key}: the blocks of {family} have no numbers here." for key in given]
    total = sum(FORMS[family]) + 2 * ends(family)
    wanted = {**dict.fromkeys(DIMS, total), **dict(zip(RATES, FORMS[family], strict=True))}
    problems = []
    for key, count in wanted.items():
        try:
            found = (rates if key in RATES else lambda value, _: numbers(value))(getattr(s, key), count)
            if found and len(found) != count:
                problems.append(f"{key} has {len(found)} numbers, and a base of family {family} has {count} blocks.")
            if any(x < 0 or (key.endswith("dims") and x % 1) for x in found):
                problems.append(f"{key}: {found} are not all whole numbers from 0." if "dims" in key else f"{key} < 0.")
        except ValueError:
            known = f", or one of {', '.join(PRESETS)}" if key in RATES else ""
            problems.append(f"{key} = {getattr(s, key)!r}: {count} numbers with commas{known}.")
    return problems
