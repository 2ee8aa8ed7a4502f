"""What becomes of a caption each time its picture is trained on.

Order and meaning are kohya's (sd-scripts `library/train_util.py: process_caption`), restated.
"""

from __future__ import annotations

import torch

from lorafactory.training.randomness import uniform


def vary(
    caption: str,
    generator: torch.Generator,
    *,
    prefix: str = "",
    keep_tokens: int = 0,
    shuffle: bool = False,
    caption_dropout: float = 0.0,
    tag_dropout: float = 0.0,
) -> str:
    """Join prefix and caption, perhaps drop all, then shuffle and drop tags after the first `keep_tokens`."""
    caption = f"{prefix} {caption}" if prefix else caption
    # drawn even when it cannot matter, so that one setting never shifts the draws of another
    if uniform(generator) < caption_dropout:
        return ""
    if not (shuffle or tag_dropout > 0):
        return caption
    tags = [tag.strip() for tag in caption.split(",")]
    kept, loose = tags[:keep_tokens], tags[keep_tokens:]
    order = torch.randperm(len(loose), generator=generator).tolist()
    if shuffle:
        loose = [loose[i] for i in order]
    loose = [tag for tag in loose if uniform(generator) >= tag_dropout]
    return ", ".join([*kept, *loose])
