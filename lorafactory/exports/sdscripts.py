"""sd-scripts: kohya's folders, and dataset.toml for --dataset_config."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from lorafactory.dataset import Subset
from lorafactory.exports import Bundle
from lorafactory.exports._folders import lay_out, place_of

SUFFIX = ""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """The paths in dataset.toml are those of `final`: they have to be mended if the folder is moved."""
    lay_out(bundle.subsets, target)
    document = {
        "general": {"caption_extension": ".txt", "enable_bucket": True},
        "datasets": [
            {"resolution": bundle.resolution, "subsets": [subset_table(subset, final) for subset in bundle.subsets]}
        ],
    }
    (target / "dataset.toml").write_bytes(tomlkit.dumps(document).encode())
    return []


def subset_table(subset: Subset, final: Path) -> dict[str, str | int | bool]:
    """Folder, repeats, and what a picture without a caption is called."""
    told: dict[str, str | int | bool] = {
        "image_dir": (final / place_of(subset)).as_posix(),
        "num_repeats": subset.repeats,
        "class_tokens": subset.word,
    }
    return told | ({"is_reg": True} if subset.reg else {})
