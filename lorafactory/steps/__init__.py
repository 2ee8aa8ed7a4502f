"""What the factory does to a set: one file = one step = one command. A new file here is a new step.

The shape of a step is told in `lorafactory/step.py`. Steps never import each other; the chain names their order.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from lorafactory.errors import SettingsError


def names() -> list[str]:
    """Every step there is: the Python files of this folder, but not the shared ones (`_name.py`)."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_"))


def get(name: str) -> ModuleType:
    """Import a step by its name."""
    if name not in names():
        raise SettingsError(f"there is no step {name!r}; known are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
