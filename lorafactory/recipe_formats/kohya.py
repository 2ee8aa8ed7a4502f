"""sd-scripts' TOML: the training's arguments, and the dataset's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorafactory.recipe_formats import read
from lorafactory.recipe_formats._defaults import DATASET, TRAINING, defaults
from lorafactory.recipe_formats._network import BLOCKS, CONVOLUTIONS, CONVOLVED, DROPOUTS, DROPS
from lorafactory.recipe_formats._network import TABLE as NETWORK
from lorafactory.recipe_formats._receipt import OWN, Accept, Field
from lorafactory.recipe_formats._values import add, leaves, listed, without
from lorafactory.recipe_formats._vocabulary import TABLE

__all__ = ["GENERAL", "NAME", "claims", "defaults", "fields", "write"]
NAME = "sd-scripts TOML"
GENERAL = True
SIGNS = {
    "network_module", "network_dim", "optimizer_type", "unet_lr", "learning_rate", "max_train_epochs", "datasets",
    "max_train_steps", "train_batch_size", "pretrained_model_name_or_path", "resolution", "shuffle_caption",
    "enable_bucket", "min_snr_gamma", "lr_scheduler",
}  # fmt: skip


def claims(data: Mapping[str, Any]) -> bool:
    return any(name in SIGNS for name, _, _ in leaves(data)) or "datasets" in data


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """The narrower table comes first and counts: a subset's, a dataset's, [general]; sections have no meaning."""
    found: dict[str, Field] = {}
    sets = listed(data, "datasets")
    for i, one in enumerate(sets):
        for j, subset in enumerate(listed(one, "subsets")):
            enter(found, subset, f"datasets.{i}.subsets.{j}.")
    for i, one in enumerate(sets):
        enter(found, without(one, "subsets"), f"datasets.{i}.")
    own = data["lorafactory"] if isinstance(data.get("lorafactory"), Mapping) else {}
    enter(found, {k: v for k, v in without(data, "datasets").items() if not own or v is not own})
    for key, value in both(own):
        found[f"{OWN}{key}"] = Field(f"lorafactory.{key}", value)
    return found


def both(own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Our own keys, by table and name; a value may be a table itself."""
    for key, value in own.items():
        if isinstance(value, Mapping) and value:
            yield from ((f"{key}.{name}", held) for name, held in value.items())
        else:
            yield key, value


def enter(found: dict[str, Field], table: Mapping[str, Any], path: str = "") -> None:
    for key, where, value in leaves(table):
        add(found, key, path + where, value)


# ---------------------------------------------------------------- writing

SETTLED = {
    "sdpa": True, "enable_bucket": True, "caption_extension": ".txt", "save_model_as": "safetensors",
    "no_half_vae": True,
}  # fmt: skip
"""What is always so here, and is not there unless it is said."""
NEVER_LEFT_OUT = {*DATASET, *TRAINING, "max_train_epochs", "keep_tokens_separator", "secondary_separator", "seed"}
"""Arguments whose default is another there."""
LYCORIS = {
    "loha": ("algo=loha",), "lokr": ("algo=lokr",), "dora": ("algo=locon", "dora_wd=True", "preset=attn-mlp"),
}  # fmt: skip
HANDED = {
    "networks.lora": ("rank_dropout", "module_dropout", "block_lr_zero_threshold", *BLOCKS),
    "networks.dylora": ("unit",),
    "lycoris.kohya": ("rank_dropout", "module_dropout", "factor", "decompose_both"),
}
"""What a module takes of its own."""
OURS = {
    "adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    "prodigy": {"safeguard_warmup": True, "use_bias_correction": True},
}
"""As they are set here, and not by themselves."""


def write(train: Mapping[str, Any], usual: Mapping[str, Any], accept: Accept) -> dict[str, Any]:
    """The trainer's settings as sd-scripts' arguments, flat; what these do not tell stands in `lorafactory.train`.

    `train` are all effective values, `usual` the defaults here. sd-scripts passes over arguments that it does not know.
    """
    args: dict[str, Any] = dict(SETTLED)
    for name, key in TABLE.items():
        value = train[key.removeprefix("train.")]
        if value != usual[key.removeprefix("train.")] or name in NEVER_LEFT_OUT:
            args[name] = value
    args |= rates(train) | optimizer(train) | network(train, usual)
    args["resolution"] = f"{train['resolution']},{train['resolution']}"
    args["bucket_no_upscale"] = not train["bucket_upscale"]
    args["mixed_precision"] = {"auto": "bf16", "fp32": "no"}.get(train["dtype"], train["dtype"])
    args["save_precision"] = "float" if train["save_dtype"] == "fp32" else train["save_dtype"]
    args["gradient_checkpointing"] = bool(train["gradient_checkpointing"])
    args["cache_latents"] = not train["random_crop"]
    if not train["save_every_steps"]:
        args["save_every_n_epochs"] = train["save_every_epochs"]
    if not train["noise_offset"]:
        args.pop("adaptive_noise_scale", None)  # it refuses one without the other
    args.pop("scale_v_pred_loss_like_noise_pred", None)  # and this, for bases that predict noise
    if train["warmup"] >= 1:
        args["lr_warmup_steps"] = int(train["warmup"])  # a float is a share there, however large
    if train["shuffle_captions"] or train["tag_dropout"]:
        args["keep_tokens"] = max(1, train["keep_tokens"])  # the part with the trigger stays here at 0 too
    told = {**usual, **read(args, accept).tables.get("train", {})}
    own = {key: value for key, value in train.items() if told[key] != value and value is not None}
    return {**args, "lorafactory": {"train": own}} if own else args


def rates(train: Mapping[str, Any]) -> dict[str, Any]:
    first, second = train["text_encoder_lr"], train["text_encoder_2_lr"]
    told = {"learning_rate": train["lr"], "unet_lr": train["lr"]}
    if not first and not second:
        return {**told, "network_train_unet_only": True}
    return {**told, "text_encoder_lr": first if second is None else [first, second]}


def optimizer(train: Mapping[str, Any]) -> dict[str, Any]:
    """`auto` is 8-bit AdamW on the cards that sd-scripts is for. A warm-up is no part of its constant schedule."""
    named = "adamw8bit" if train["optimizer"] == "auto" else train["optimizer"]
    args = {**OURS.get(named, {}), **train["optimizer_args"]}
    handed = [f"{key}={literally(value)}" for key, value in args.items()]
    warm = train["scheduler"] == "constant" and train["warmup"]
    told = {"optimizer_type": named, "lr_scheduler": "constant_with_warmup" if warm else train["scheduler"]}
    return {**told, "optimizer_args": handed} if handed else told


def literally(value: Any) -> str:
    """As Python spells it, for it is read as that there; a list without blanks and brackets."""
    return ",".join(map(repr, [*value, ""])).removesuffix("''") if isinstance(value, list) else repr(value)


def network(train: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The module, the arguments that are sd-scripts' own, and those that it hands on to the module."""
    kind, convolved = train["network"], train["network"] in CONVOLVED and train["conv_rank"]
    module = "networks.dylora" if kind == "dylora" else "lycoris.kohya" if kind in LYCORIS else "networks.lora"
    handed = [*LYCORIS.get(kind, ()), *(() if convolved or kind not in ("loha", "lokr") else ("preset=attn-mlp",))]
    table = {**NETWORK, **{name: f"train.{name}" for name in BLOCKS}}
    for name in (*(CONVOLUTIONS[:2] if convolved else ()), *HANDED[module]):
        value, common = (values[table[name].removeprefix("train.")] for values in (train, usual))
        unable = name in DROPS and name not in DROPOUTS.get(kind, DROPS)
        if name in CONVOLUTIONS[:2] or (value != common and not unable):
            handed.append(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    own = {name: train[table[name].removeprefix("train.")] for name in ("network_dim", "network_alpha")}
    told = {"network_module": module, **own, "network_dropout": train["dropout"]}
    return {**told, "network_args": handed} if handed else told
