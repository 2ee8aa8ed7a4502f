"""OneTrainer: kohya's folders, and concepts.json that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorafactory.dataset import Subset
from lorafactory.exports import Bundle
from lorafactory.exports._folders import lay_out, place_of

SUFFIX = ""
VERSION = 1
"""Of a concept's form: since this one repeats are `balancing`. OneTrainer fills in what is left out."""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """The paths in concepts.json are those of `final`: they have to be mended if the folder is moved.

    A concept is learned, so regularisation pictures are left out.
    """
    lay_out(bundle.training, target)
    concepts = [concept(subset, final) for subset in bundle.training]
    (target / "concepts.json").write_text(json.dumps(concepts, indent=4, ensure_ascii=False), encoding="utf-8")
    return [f"{s.folder.name}: regularisation pictures" for s in bundle.reg]


def concept(subset: Subset, final: Path) -> dict[str, Any]:
    """A folder as a concept; its captions are the texts beside the pictures (`sample`), and nothing is flipped."""
    return {
        "__version": VERSION,
        "name": subset.word,
        "path": (final / place_of(subset)).as_posix(),
        "enabled": True,
        "include_subdirectories": False,
        "balancing": float(subset.repeats),
        "balancing_strategy": "REPEATS",
        "loss_weight": 1.0,
        "image": {"enable_crop_jitter": False, "enable_random_flip": False},
        "text": {"prompt_source": "sample", "prompt_path": ""},
    }
