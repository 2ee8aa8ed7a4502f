"""What holds in sd-scripts where nobody says anything: of the formats whose files it trains from itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats._values import leaves

DATASET = {"train_batch_size": 1, "bucket_no_upscale": False}
TRAINING = {
    "network_module": "networks.lora",
    "network_dim": 4,
    "network_alpha": 1,
    "learning_rate": 2e-6,
    "optimizer_type": "AdamW",
    "lr_scheduler": "constant",
    "lr_scheduler_num_cycles": 1,
}
STEPS = 1600
"""How long sd-scripts trains where nobody says."""


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's file is silent about training."""
    said = {name for name, _, value in leaves(data) if value not in ("", None)}
    if not said & (TRAINING.keys() | {"unet_lr", "max_train_epochs", "max_train_steps"}):
        return {
            name: value for name, value in DATASET.items() if name == "bucket_no_upscale" or "batch_size" not in said
        }
    length = {} if said & {"max_train_epochs", "max_train_steps"} else {"max_train_steps": STEPS}
    return {**DATASET, **TRAINING, **length}
