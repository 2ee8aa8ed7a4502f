"""Precision of the frozen base while the adapter stays in fp32."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from lorafactory.families import Base

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(base: Base, dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Compute in `dtype` where that is safe; with fp32 nothing changes."""
    if dtype == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(base.device.type, DTYPES[dtype])
