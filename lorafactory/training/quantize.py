"""The frozen UNet's linear layers in 8 or 4 bits, for small cards; the adapter on top stays in fp32.

8 bits: LLM.int8 (arXiv:2208.07339), each row of a weight scaled by its largest number. 4 bits: NF4 with the scales
themselves quantized (QLoRA, arXiv:2305.14314). Both as bitsandbytes does it; peft knows its layers.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.families import Base


def quantize(base: Base, kind: str, device: str) -> None:
    """Quantize the linear layers in the UNet's attention blocks and put the whole base on `device`.

    They hold most of its weights; the convolutions and the few layers that read the timestep stay as they are.
    Whether the device can compute so, `check` tells beforehand.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of every cast
    unet: Any = base.parts["unet"]
    blocks = families.get(base.family).targets["attention"]
    for path, module in list(unet.named_modules()):
        if type(module).__name__ not in blocks:
            continue
        for inner, layer in list(module.named_modules()):
            if type(layer) is nn.Linear:
                parent, _, child = f"{path}.{inner}".rpartition(".")
                setattr(unet.get_submodule(parent), child, quantized(layer, kind, device, base.dtype))
    setattr(unet, f"is_loaded_in_{kind}", True)  # by this peft tells which of its layers goes on top
    for part in (*base.parts.values(), base.vae):
        part.to(device)
    base.device = torch.device(device)


def check(kind: str, device: str) -> None:
    """Try one small layer there and back; raise SettingsError in words where that fails."""
    try:
        layer = quantized(nn.Linear(64, 64), kind, device, torch.float32)
        x = torch.ones(2, 64, device=device, requires_grad=True)
        layer(x).float().sum().backward()
        works = x.grad is not None and bool(torch.isfinite(x.grad).all())
        why = "the gradient is not finite"
    except ImportError as error:
        raise SettingsError(f"quantize = {kind!r} needs the package bitsandbytes: pip install bitsandbytes") from error
    except Exception as error:  # what it cannot do on a device it says in many ways
        works, why = False, str(error).strip().partition("\n")[0]
    if not works:
        raise SettingsError(f"quantize = {kind!r}: bitsandbytes cannot compute so on {device} ({why}). Take it out.")


def quantized(layer: nn.Linear, kind: str, device: str, dtype: torch.dtype) -> nn.Linear:
    """The same layer in fewer bits, on `device`; its bias and its output are in `dtype`."""
    import bitsandbytes as bnb

    sizes = (layer.in_features, layer.out_features)
    made: Any
    weight = layer.weight.data.contiguous()
    with torch.device("meta"):  # its own first weights are not wanted
        if kind == "8bit":
            made = bnb.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False)
        else:
            made = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=dtype, quant_type="nf4")
            made.support_avx512bf16_for_cpu = False  # a layout that has no gradient and not every size
    if kind == "8bit":
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
    ready: nn.Linear = made.to(device).requires_grad_(requires_grad=False).eval()
    return ready
