"""kohya_ss and sd-scripts: folders 12_4nna and reg/1_woman, a text beside each picture."""

from __future__ import annotations

from pathlib import Path

from lorafactory.exports import Bundle
from lorafactory.exports._folders import lay_out

SUFFIX = ""


def write(bundle: Bundle, target: Path, final: Path) -> list[str]:
    """Give `final` as train_data_dir, and `final`/reg, if it is there, as reg_data_dir."""
    lay_out(bundle.subsets, target)
    return []
