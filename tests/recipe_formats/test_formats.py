"""Each foreign format, with the traps that its files hold: every field gets a line, and means what it meant there."""

from __future__ import annotations

import json
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lorafactory import networks, recipe_formats, settings
from lorafactory.commands.recipe import accept
from lorafactory.errors import InputError
from lorafactory.recipe_formats import _network
from lorafactory.recipe_formats._values import leaves
from lorafactory.steps.train import Settings
from lorafactory.training import optimizers
from lorafactory.training import plan as planned
from tests.recipe_formats.reading import read, why

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.iterdir() if path.suffix in (".json", ".toml"))


def header_of(path: Path, metadata: dict[str, str], *tensors: str) -> Path:
    """A LoRA file with these labels and names of tensors, each of one byte."""
    entries = {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate(tensors)}
    head = json.dumps({"__metadata__": metadata, **entries}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"0" * len(tensors))
    return path


def test_there_is_a_file_of_every_format():
    assert {read(path.name).source for path in FILES} == {
        recipe_formats.get(name).NAME for name in recipe_formats.names() if name != "metadata"
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_was_read_can_be_trained(path: Path):
    """What does not go together here is refused in the receipt, not when `make` begins."""
    train = Settings.model_validate(read(path.name).tables["train"])
    assert planned.check(train) + networks.check(train) + optimizers.check_rates(train) == []


def test_a_kind_that_lacks_a_dropout_is_told_of_as_the_kinds_themselves_do():
    names = {"network_dropout": "dropout"}
    for kind in networks.names():
        able = tuple(names.get(name, name) for name in _network.DROPOUTS.get(kind, _network.DROPS))
        assert able == networks.get(kind).DROPOUTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_field_has_a_line_and_no_secret_or_place_is_told(path: Path):
    data, reading = recipe_formats.parse(path), read(path.name)
    said = " ".join(line.field.name for line in reading.lines.values())
    unsaid = [
        where for key, where, _ in leaves(data) if key not in said.replace(".", " ").split() and where not in said
    ]
    assert [name for name in unsaid if name not in ("additional_parameters", "datasets", "subsets", "concepts")] == []
    told = "\n".join(map(str, reading.lines.values()))
    taken = json.dumps([reading.header, reading.tables])
    for hidden in ("K3Y", "T0KEN", "C:", "D:", "/home", "sd-models", "workspace/run"):
        assert hidden not in taken
        assert hidden not in told


def test_the_gui_s_json():
    """Texts for numbers, empty for unset, percent of warm-up, an inert set, a hub id that is gone."""
    found = read("kohya_gui.json")
    train = found.tables["train"]
    assert found.header == {"base": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
    assert (train["epochs"], train["batch"], train["keep_tokens"], train["caption_dropout"]) == (50, 2, 0, 0.05)
    assert (train["lr"], train["text_encoder_lr"], train["rank"], train["alpha"]) == (1e-4, 0, 64, 1)
    assert (train["warmup"], train["cycles"], train["resolution"]) == (0.1, 50, 887)
    assert train["multires_iterations"] == 8
    assert train["ip_noise_gamma"] == 0.05
    assert train["optimizer_args"] == {"weight_decay": 0.01, "betas": [0.9, 0.99]}
    assert not train.keys() & {"noise_offset", "adaptive_noise_scale", "max_steps", "seed", "conv_rank", "unit"}
    inert, refused = why(found, "inert"), why(found, "refused")
    assert inert["noise_offset"] == inert["adaptive_noise_scale"] == "noise_offset_type is Multires"
    assert {"learning_rate", "max_train_steps", "conv_dim", "seed", "max_train_epochs", "model_list"} <= inert.keys()
    assert {"color_aug", "huggingface_token", "wandb_api_key", "train_data_dir", "logging_dir"} <= refused.keys()
    assert "additional_parameters --zero_terminal_snr" in refused
    assert "withdrawn" in why(found, "converted")["pretrained_model_name_or_path"]


@pytest.mark.parametrize(
    ("unet", "text", "rates"),
    [
        ("", "", (3e-4, 3e-4)),
        (0, "0", (3e-4, 3e-4)),
        (1e-4, "", (1e-4, 0)),
        ("1e-4", 5e-5, (1e-4, 5e-5)),
        (0, 5e-5, (None, 5e-5)),
    ],
)
def test_a_rate_of_0_in_the_gui_trains_not_that_part(unet: Any, text: Any, rates: tuple[float | None, float]):
    data = {"LoRA_type": "Standard", "learning_rate": "3e-4", "unet_lr": unet, "text_encoder_lr": text}
    train = recipe_formats.read(data, accept).tables["train"]
    assert (train.get("lr"), train["text_encoder_lr"]) == rates


def test_sd_scripts_training_toml():
    """Sections mean nothing, text encoders have a rate each, a class is not imported, defaults are its own."""
    found = read("training.toml")
    train = found.tables["train"]
    assert (train["network"], train["rank"], train["alpha"], train["conv_rank"]) == ("locon", 16, 1, 8)
    assert train["down_lr_weight"] == [1] * 9 + [0] * 3
    assert (train["lr"], train["text_encoder_lr"], train["text_encoder_2_lr"]) == (1e-4, 1e-5, 2e-6)
    assert found.tables["repeats"] == {"policy": "steps=2000"}
    assert found.header == {"prediction": "v_prediction"}
    assert (train["batch"], train["cycles"], train["bucket_upscale"]) == (1, 1, True)
    assert "network_alpha" in why(found, "supposed")
    refused = why(found, "refused")
    assert {"pretrained_model_name_or_path", "anything.optimizer_type", "anything.optimizer_args"} <= refused.keys()
    assert "imported" in refused["anything.optimizer_type"]
    assert "no warm-up" in why(found, "inert")["anything.lr_warmup_steps"]


def test_sd_scripts_dataset_toml():
    """A subset's value counts before a dataset's, that before [general]; a second subset cannot have its own."""
    found = read("dataset.toml")
    assert found.tables == {
        "repeats": {"policy": "4"},
        "train": {
            "resolution": 627, "bucket_upscale": True, "shuffle_captions": True, "keep_tokens": 3, "batch": 3,
            "tag_dropout": 0.1,
        },
    }  # fmt: skip
    refused = why(found, "refused")
    assert refused["datasets.0.subsets.1.num_repeats"] == "datasets.0.subsets.0.num_repeats counts"
    assert {"general.keep_tokens", "general.enable_bucket", "datasets.0.subsets.1.is_reg"} <= refused.keys()


def test_civitai_s_json_with_prose():
    """Arguments with commas within, as of Prodigy, whose safeguard is on here and off there."""
    found = read("civitai.json")
    train = found.tables["train"]
    assert train["optimizer_args"] == {
        "weight_decay": 0.5, "decouple": True, "betas": [0.9, 0.99], "use_bias_correction": False,
        "safeguard_warmup": False,
    }  # fmt: skip
    assert (train["lr"], train["text_encoder_lr"], train["epochs"], train["noise_offset"]) == (1, 1, 16, 0.1)
    assert found.tables["repeats"] == {"policy": "12"}
    assert "targetSteps" in why(found, "inert")
    assert found.count("refused") == 0


def test_the_json_of_seed_003_is_the_recipe_civitai():
    """Prose around it and behind a value; the recipe says the same but for its repeats, which are 12 for 32 of them."""
    found = read("civitai_003.json")
    assert (found.count("refused"), found.tables["repeats"]) == (0, {"policy": "12"})
    told = {**found.tables["train"], "optimizer": "auto"}  # 8-bit AdamW, where there is a card for it
    recipe = tomllib.loads(settings.recipe_path("civitai").read_text(encoding="utf-8"))
    shipped = tomllib.loads(settings.recipe_path("default").read_text(encoding="utf-8"))["sdxl"]["train"]
    named = {**shipped, **recipe["train"]}
    assert Settings.model_validate(told) == Settings.model_validate(
        {**named, "max_bucket": Settings().max_bucket}  # the site does not say it
    )


def test_civitai_s_newer_engine():
    """Its steps are all steps, its epochs only say when to save."""
    found = read("civitai_engine.json")
    assert found.tables["repeats"] == {"policy": "steps=2000"}
    train = found.tables["train"]
    assert (train["epochs"], train["text_encoder_lr"], train["optimizer"]) == (10, 0, "adamw8bit")
    assert train["shuffle_captions"] is True
    assert {"baseModel", "sampleCfgScale", "continueFrom"} <= why(found, "refused").keys()
    assert {"noiseOffset", "textEncoderLr"} <= why(found, "inert").keys() | why(found, "mapped").keys()


def test_easy_training_scripts_toml():
    found = read("easy_scripts.toml")
    train = found.tables["train"]
    assert (train["network"], train["lokr_factor"], train["conv_rank"], train["batch"]) == ("lokr", 4, 8, 3)
    assert (train["warmup"], train["max_tokens"], train["save_every_epochs"]) == (0.05, 225, 2)
    assert (train["lr"], train["text_encoder_lr"]) == (1e-4, 1e-4)
    assert train["optimizer_args"] == {"weight_decay": 0.1, "betas": [0.9, 0.99]}
    assert found.tables["repeats"] == {"policy": "5"}
    assert why(found, "refused")["subsets.1.num_repeats"] == "subsets.0.num_repeats counts"
    assert "network_args.use_tucker" in why(found, "refused")


def test_easy_training_scripts_older_json():
    """Names of its own for most, and null for what is not set."""
    found = read("easy_scripts.json")
    train = found.tables["train"]
    assert (train["rank"], train["alpha"], train["resolution"], train["epochs"]) == (32, 16, 512, 8)
    assert (train["scheduler"], train["cycles"], train["warmup"]) == ("cosine_with_restarts", 2, 0.05)
    assert (train["lr"], train["text_encoder_lr"], train["seed"], train["max_tokens"]) == (1e-4, 5e-5, 23, 150)
    assert set(why(found, "refused")) == {"base_model", "img_folder", "output_folder"}


@pytest.mark.parametrize(
    ("args", "network"),
    [
        ({"unit": 4}, {"network": "dylora", "unit": 4}),
        ({"conv_dim": 8, "conv_alpha": 2.0}, {"network": "locon", "conv_rank": 8, "conv_alpha": 2}),
        ({"algo": "locon"}, {"network": "locon", "conv_rank": 32, "conv_alpha": 16}),
        ({"algo": "locon", "preset": "attn-mlp"}, {"network": "lora"}),
        ({"algo": "loha", "conv_dim": 8, "preset": ""}, {"network": "loha", "conv_rank": 8, "conv_alpha": 16}),
        ({"algo": "lokr", "preset": "attn-mlp", "dropout": 0.1}, {"network": "lokr", "conv_rank": 0}),
        ({"algo": "loha", "block_dims": [4] * 25}, {"network": "loha", "conv_rank": 32}),
    ],
)
def test_what_a_module_takes_of_its_arguments(args: dict[str, Any], network: dict[str, Any]):
    """LyCORIS trains convolutions as the rest where nothing is said, and knows no blocks."""
    told = {"network_args": {"args": {"network_dim": 32, "network_alpha": 16.0, "network_args": args}}}
    found = recipe_formats.read(told, accept)
    train = found.tables["train"]
    wanted = {"rank": 32, "alpha": 16, **network}
    assert {key: train[key] for key in wanted} == wanted
    assert not {"dropout", "block_dims"} & train.keys()
    assert found.count("refused") == 0


@pytest.mark.parametrize(("module", "conv_rank"), [("networks.loha", 0), ("networks.lokr", 0), ("lycoris.kohya", 8)])
def test_sd_scripts_own_loha_leaves_convolutions_alone_unless_told(module: str, conv_rank: int):
    algo = ["algo=loha"] if module == "lycoris.kohya" else []
    told = {"network_module": module, "network_dim": 8, "network_args": algo}
    assert recipe_formats.read(told, accept).tables["train"]["conv_rank"] == conv_rank


def test_the_gui_s_additional_parameters_count_before_its_fields():
    options = "--noise_offset 0.1 --min_snr_gamma=5"
    told = {"LoRA_type": "Standard", "noise_offset": 0.05, "additional_parameters": options}
    found = recipe_formats.read(told, accept)
    assert (found.tables["train"]["noise_offset"], found.tables["train"]["min_snr_gamma"]) == (0.1, 5)
    assert why(found, "inert")["noise_offset"] == "additional_parameters say it too, and count"


def test_lora_scripts_toml():
    found = read("lora_scripts.toml")
    train = found.tables["train"]
    assert (train["network"], train["conv_rank"], train["cycles"], train["keep_last"]) == ("loha", 4, 2, 5)
    assert train["optimizer_args"] == {
        "decouple": True, "weight_decay": 0.01, "d_coef": 2.0, "safeguard_warmup": False, "use_bias_correction": False,
    }  # fmt: skip
    assert (train["text_encoder_lr"], train["clip_skip"], train["seed"]) == (1, 2, 1337)


METADATA = {
    "ss_output_name": "anna",
    "ss_sd_model_name": "realistic.safetensors",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "32",
    "ss_network_alpha": "16.0",
    "ss_network_args": '{"conv_dim": "8", "conv_alpha": "1"}',
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
    "ss_learning_rate": "0.0001",
    "ss_unet_lr": "None",
    "ss_text_encoder_lr": "5e-05",
    "ss_lr_scheduler": "cosine",
    "ss_lr_warmup_steps": "117",
    "ss_num_epochs": "6",
    "ss_max_train_steps": "1170",
    "ss_batch_size_per_device": "2",
    "ss_total_batch_size": "4",
    "ss_gradient_accumulation_steps": "2",
    "ss_resolution": "(512, 512)",
    "ss_bucket_no_upscale": "True",
    "ss_enable_bucket": "True",
    "ss_shuffle_caption": "False",
    "ss_min_snr_gamma": "None",
    "ss_noise_offset": "0.05",
    "ss_mixed_precision": "fp16",
    "ss_seed": "42",
    "ss_dataset_dirs": '{"13_4nna": {"n_repeats": 13, "img_count": 30}}',
    "ss_tag_frequency": '{"13_4nna": {"4nna": 30}}',
    "ss_session_id": "123",
    "modelspec.title": "anna",
    "sshs_model_hash": "abc",
}


def test_the_metadata_of_a_lora_file(tmp_path: Path):
    told = ("lora_unet_x.lora_down.weight", "lora_te_text_model_x.lora_down.weight")
    data = recipe_formats.parse(header_of(tmp_path / "anna.safetensors", METADATA, *told))
    found = recipe_formats.read(data, accept)
    train = found.tables["train"]
    assert (train["network"], train["rank"], train["conv_rank"], train["lr"]) == ("locon", 32, 8, 1e-4)
    assert (train["text_encoder_lr"], train["epochs"], train["batch"], train["resolution"]) == (5e-5, 6, 2, 512)
    assert (train["optimizer"], train["optimizer_args"]["betas"], train["warmup"]) == ("adamw8bit", [0.9, 0.99], 117)
    assert found.tables["repeats"] == {"policy": "13"}
    assert {"ss_tag_frequency", "ss_session_id", "modelspec.title", "ss_min_snr_gamma"} <= why(found, "inert").keys()
    assert METADATA.keys() - {"ss_network_args", "ss_dataset_dirs"} <= {
        line.field.name for line in found.lines.values()
    }


def test_a_lora_without_tensors_of_a_text_encoder_trained_none(tmp_path: Path):
    path = header_of(tmp_path / "a.safetensors", {**METADATA, "ss_text_encoder_lr": "None"}, "lora_unet_x.alpha")
    found = recipe_formats.read(recipe_formats.parse(path), accept)
    assert found.tables["train"]["text_encoder_lr"] == 0


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": 1}', "{" * 5000, '{"unetLR": "\\ud800"}', "\x00\xff"])
def test_what_is_no_such_file_is_said(text: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError):
        recipe_formats.read(recipe_formats.parse(path), accept)
