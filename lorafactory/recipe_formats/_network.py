"""Adapter kinds: sd-scripts' modules and their arguments, LyCORIS' algorithms, the GUI's LoRA types."""

from __future__ import annotations

from lorafactory.recipe_formats._receipt import Reading
from lorafactory.recipe_formats._values import add, arguments, literal

SAYS = ("LoRA_type", "algorithm", "algo", "network_module")
"""Fields that name the kind; the first that is there counts, for `lycoris.kohya` is all of LyCORIS."""
KINDS = {
    "lora": ("standard", "lora", "networks.lora"),
    "locon": ("kohya locon", "locon", "lycoris/locon", "lycoris.kohya"),
    "loha": ("lycoris/loha", "loha"),
    "lokr": ("lycoris/lokr", "lokr"),
    "dylora": ("kohya dylora", "lycoris/dylora", "dylora", "networks.dylora"),
}
RENAMED = {"dropout": "network_dropout", "block_size": "unit"}
TABLE = {
    "network_dim": "train.rank",
    "network_alpha": "train.alpha",
    "conv_dim": "train.conv_rank",
    "conv_alpha": "train.conv_alpha",
    "network_dropout": "train.dropout",
    "rank_dropout": "train.rank_dropout",
    "module_dropout": "train.module_dropout",
    "unit": "train.unit",
    "factor": "train.lokr_factor",
    "decompose_both": "train.decompose_both",
    "block_lr_zero_threshold": "train.block_lr_zero_threshold",
}
LR_WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
BLOCKS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", *LR_WEIGHTS)
"""Numbers with commas between, or the name of a course."""
CONVOLUTIONS = ("conv_dim", "conv_alpha", "conv_block_dims", "conv_block_alphas")
LYCORIS = (
    "preset",
    "use_tucker",
    "use_scalar",
    "rank_dropout_scale",
    "constrain",
    "rescaled",
    "train_norm",
    "train_on_input",
)
_BY_NAME = {name: kind for kind, names in KINDS.items() for name in names}


def network(r: Reading) -> None:
    """Find the kind, and which arguments count with it."""
    _unfold(r)
    said = next((name for name in SAYS if r.open(name)), "")
    kind = _BY_NAME.get(str(r.value(said)).lower(), "")
    if kind == "lora" and (said == "algo" or (said == "network_module" and r.on("conv_dim"))):
        kind = "locon"  # LyCORIS' own name for it, and sd-scripts' way to ask for it
    if kind and r.on("dora_wd"):
        r.take("dora_wd", "train.network", "dora")
        r.inert(said, "dora_wd counts")
    elif kind:
        r.take(said, "train.network", kind)
    for name in SAYS:
        if r.open(name):
            (r.inert if kind else r.refuse)(name, f"{said} says it" if kind else "no such adapter here")
    _idle(r, kind)
    for name, key in TABLE.items():
        r.take(name, key)
    for name in BLOCKS:
        held = literal(r.value(name))
        r.take(name, f"train.{name}", [held] if isinstance(held, int | float) else held)


def _idle(r: Reading, kind: str) -> None:
    """What belongs to other kinds than this one."""
    if str(r.value("preset")) in ("full", "attn-mlp"):
        r.inert("preset", "the kind says which layers it changes")
    idle = {
        "convolutions are not trained with this kind": CONVOLUTIONS if kind == "lora" else (),
        "for DyLoRA alone": ("unit",) if kind != "dylora" else (),
        "for LoKr alone": ("factor", "decompose_both") if kind != "lokr" else (),
        "for LyCORIS alone": LYCORIS if kind in ("lora", "dylora") else (),
    }
    for why, names in idle.items():
        for name in names:
            r.inert(name, why)


def _unfold(r: Reading) -> None:
    """Make each of `network_args` a field of its own."""
    try:
        found = arguments(r.value("network_args") or {})
    except ValueError as error:
        r.refuse("network_args", str(error))
    else:
        r.inert("network_args", "each of them has its own line")
        for name, value in found.items():
            add(r.fields, RENAMED.get(name, name), f"network_args.{name}", value)
