"""A drop's name made a LoRA's: one that every system, and every command line, takes."""

from __future__ import annotations

import re
import unicodedata

from lorafactory.errors import SettingsError
from lorafactory.workspace import safe_name

LONGEST = 64
ARCHIVE = ".zip"
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)


def stem(name: str) -> str:
    """A drop's name without `.zip`, its letters composed as most systems write them."""
    plain = unicodedata.normalize("NFC", name)
    return plain[: -len(ARCHIVE)] if plain.lower().endswith(ARCHIVE) else plain


def lora_name(name: str) -> str:
    """The LoRA's name for a drop; `lora` if nothing of the name can stay."""
    seen = "".join(c for c in stem(name) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    try:
        safe = safe_name(safe_name(seen)[:LONGEST])
    except SettingsError:
        return "lora"
    return f"_{safe}" if safe.startswith("-") or _DEVICE.match(safe) else safe
