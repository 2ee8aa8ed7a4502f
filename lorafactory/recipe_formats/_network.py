"""Adapter kinds: sd-scripts' modules and their arguments, LyCORIS' algorithms, the GUI's LoRA types."""

from __future__ import annotations

from lorafactory.recipe_formats._receipt import Field, Reading
from lorafactory.recipe_formats._values import add, arguments, literal

SAYS = ("LoRA_type", "algorithm", "algo", "network_module")
"""Fields that name the kind; the first that is there counts, for `lycoris.kohya` is all of LyCORIS."""
KINDS = {
    "lora": ("standard", "lora", "networks.lora"),
    "locon": ("kohya locon", "locon", "lycoris/locon", "lycoris.kohya"),
    "loha": ("lycoris/loha", "loha", "networks.loha"),
    "lokr": ("lycoris/lokr", "lokr", "networks.lokr"),
    "dylora": ("kohya dylora", "lycoris/dylora", "dylora", "networks.dylora"),
}
DROPOUTS = {"dora": (), "loha": ("rank_dropout", "module_dropout"), "lokr": ("rank_dropout", "module_dropout")}
"""Of the kinds that have not all three."""
DROPS = ("network_dropout", "rank_dropout", "module_dropout")
CONVOLVED = ("locon", "loha", "lokr")
RENAMED = {"dropout": "network_dropout", "block_size": "unit", "use_cp": "use_tucker", "use_conv_cp": "use_tucker"}
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
LYCORIS = ("preset", "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm")
_BY_NAME = {name: kind for kind, names in KINDS.items() for name in names}


def network(r: Reading) -> None:
    """Find the kind, and which arguments count with it."""
    _unfold(r)
    said = next((name for name in SAYS if r.open(name)), "")
    named = str(r.value(said)).lower()
    kind, lycoris = _BY_NAME.get(named, ""), said == "algo" or named.startswith("lycoris")
    if kind == "lora" and (lycoris or (said == "network_module" and (r.on("conv_dim") or r.on("conv_block_dims")))):
        kind = "locon"  # LyCORIS' own name for it, and sd-scripts' way to ask for it
    if kind == "locon" and r.value("preset") == "attn-mlp":
        kind = "lora"
    if kind in ("lora", "locon") and r.on("dora_wd"):
        kind = "dora"
        r.take("dora_wd", "train.network", kind)
        r.inert(said, "dora_wd counts")
    elif kind:
        r.take(said, "train.network", kind)
    for name in SAYS:
        if r.open(name):
            (r.inert if kind else r.refuse)(name, f"{said} says it" if kind else "no such adapter here")
    _convolutions(r, kind, lycoris=lycoris, own=named.startswith("networks."))
    _idle(r, kind, lycoris=lycoris)
    for name, key in TABLE.items():
        r.take(name, key)
    for name in BLOCKS:
        held = literal(r.value(name))
        r.take(name, f"train.{name}", [held] if isinstance(held, int | float) else held)


def _convolutions(r: Reading, kind: str, *, lycoris: bool, own: bool) -> None:
    """LyCORIS trains them as the rest where nothing else is said; sd-scripts' own LoHa and LoKr where it is said."""
    if r.value("preset") == "attn-mlp":
        if kind in CONVOLVED:
            r.take("preset", "train.conv_rank", 0, "the convolutions stay as they are")
        for name in CONVOLUTIONS:
            r.inert(name, "preset is attn-mlp")
        return
    for name, other in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
        silent, own_name = not r.on(name), f"{name}#"
        if silent and lycoris and kind in (*CONVOLVED, "dora") and r.value(other) is not None:
            r.inert(name, f"0 is {other}'s there")
            r.fields[own_name] = Field(name, r.value(other), supposed=True, why=f"{other}'s")
        elif silent and own and name == "conv_dim" and kind in ("loha", "lokr"):
            r.inert(name, "off")
            r.fields[own_name] = Field(name, 0, supposed=True)
        if kind in ("dora", "dylora"):
            for told in (name, own_name):
                if r.on(told):
                    r.refuse(told, f"not with network {kind} here")
        r.take(own_name, TABLE[name])


def _idle(r: Reading, kind: str, *, lycoris: bool) -> None:
    """What belongs to other kinds than this one."""
    if str(r.value("preset")) in ("full", "attn-mlp"):
        r.inert("preset", "the kind says which layers it changes")
    blocks = any(r.on(name) for name in ("block_dims", *LR_WEIGHTS))
    idle = {
        "convolutions are not trained with this kind": CONVOLUTIONS if kind == "lora" else (),
        "for DyLoRA alone": ("unit",) if kind != "dylora" else (),
        "for LoKr alone": ("factor", "decompose_both") if kind != "lokr" else (),
        "for IA3 and OFT alone": ("train_on_input", "constrain", "constraint", "rescaled") if kind else (),
        "for LyCORIS alone": LYCORIS if kind in ("lora", "dylora") else (),
        "it has no dropout of this kind": ("network_dropout",) if lycoris and kind in DROPOUTS else (),
        "sd-scripts' DyLoRA has no dropouts": DROPS if kind == "dylora" and not lycoris else (),
        "it knows no blocks": (*BLOCKS, "block_lr_zero_threshold") if lycoris or kind == "dylora" else (),
        "counts with block_dims or *_lr_weight": () if blocks else ("block_alphas", *CONVOLUTIONS[2:]),
    }
    for why, names in idle.items():
        for name in names:
            r.inert(name, why)
    for name in DROPS:
        if name not in DROPOUTS.get(kind, DROPS) and r.on(name):
            r.refuse(name, f"not with network {kind} here")


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
