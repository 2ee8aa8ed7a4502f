"""OneTrainer's JSON: presets, settings with all there is, and the older flat form."""

from __future__ import annotations

from typing import Any

import pytest

from lorafactory import recipe_formats
from lorafactory.commands.recipe import accept
from tests.recipe_formats.reading import read, why


def test_onetrainer_s_json():
    """Enumerations, shares and units of its own, and defaults that its files do not say."""
    found = read("onetrainer.json")
    train = found.tables["train"]
    assert (train["rank"], train["alpha"], train["epochs"], train["batch"]) == (64, 1, 100, 4)
    assert (train["network"], train["quantize"]) == ("dora", "4bit")
    assert (train["scheduler"], train["cycles"], train["warmup"]) == ("cosine_with_restarts", 2, 0.1)
    assert (train["text_encoder_lr"], train["text_encoder_2_lr"], train["ema"]) == (0, 0, True)
    assert (train["min_snr_gamma"], train["min_timestep"], train["save_every_steps"]) == (5, 100, 500)
    assert train["optimizer_args"] == {
        "betas": [0.9, 0.99], "d_coef": 1, "decouple": True, "safeguard_warmup": True, "use_bias_correction": False,
        "weight_decay": 0.01,
    }  # fmt: skip
    assert (train["shuffle_captions"], train["keep_tokens"]) == (True, 1)
    refused = why(found, "refused")
    assert "target" in refused["perturbation_noise_weight"]
    assert refused["dropout_probability"] == "not with network dora here"
    assert "not of this optimizer" in why(found, "inert")["optimizer.amsgrad"]
    assert {"workspace_dir", "concepts.0.path", "secrets.huggingface_token"} <= refused.keys()
    assert {"lora_alpha", "epochs"} & why(found, "supposed").keys() or "max_train_epochs" in why(found, "supposed")


def test_onetrainer_s_older_flat_json():
    """One table, an optimizer that is a word, a precision for all; it trained attention alone."""
    found = read("onetrainer_flat.json")
    train = found.tables["train"]
    assert (train["network"], train["rank"], train["alpha"], train["epochs"]) == ("lora", 16, 1, 60)
    assert (train["optimizer"], train["optimizer_args"], train["lr"]) == ("adamw8bit", {"weight_decay": 0.02}, 2e-4)
    assert (train["text_encoder_lr"], train["dtype"], train["resolution"]) == (1e-4, "fp16", 1024)
    assert train["save_every_epochs"] == 10
    assert set(why(found, "refused")) == {
        "workspace_dir", "output_model_destination", "concept_file_name", "train_text_encoder_epochs", "sample_after",
    }  # fmt: skip
    assert why(found, "inert")["train_unet_epochs"] == "no sooner than the end"


@pytest.mark.parametrize(
    ("told", "network"),
    [
        ({}, {"network": "locon", "rank": 16, "conv_rank": 16, "conv_alpha": 1}),
        ({"layer_filter_preset": "attn-mlp", "layer_filter": "attentions"}, {"network": "lora", "rank": 16}),
        ({"peft_type": "LOHA", "lora_rank": 4}, {"network": "loha", "rank": 4, "conv_rank": 4, "conv_alpha": 1}),
        (
            {"peft_type": "LOKR", "lokr_dim": 8, "lokr_decompose_factor": 4, "layer_filter_preset": "attn-mlp"},
            {"network": "lokr", "rank": 8, "lokr_factor": 4, "conv_rank": 0},
        ),
    ],
)
def test_onetrainer_trains_all_layers_unless_it_is_told_which(told: dict[str, Any], network: dict[str, Any]):
    found = recipe_formats.read({"training_method": "LORA", **told}, accept)
    assert found.tables["train"].items() >= {**network, "alpha": 1}.items()
    assert found.count("refused") == 0


def test_all_that_onetrainer_saves_is_of_no_use_where_it_asks_for_nothing():
    """Settings, unlike presets, have every field there is: other models, other kinds, what is off."""
    part = {"train": True, "weight_dtype": "FLOAT_32", "offload_fraction": 0.0, "gradient_checkpointing": True}
    told = {
        "training_method": "LORA", "layer_filter_preset": "attn-mlp", "prior": part, "decoder_vqgan": part,
        "cloud": {"type": "RUNPOD"}, "oft_block_size": 32, "lokr_dim": 16, "mse_strength": 1.0, "huber_delta": 1.0,
        "unmasked_weight": 0.1, "masked_training": False, "loss_weight_fn": "CONSTANT", "loss_weight_strength": 5.0,
        "unet": {**part, "stop_training_after": 0}, "train_dtype": "FLOAT_32",
        "text_encoder": {**part, "train": False, "stop_training_after": 30, "stop_training_after_unit": "EPOCH"},
        "optimizer": {"optimizer": "ADAMW", "fused": True, "d_coef": None, "stochastic_rounding": True},
        "ema": "OFF", "ema_update_step_interval": 5, "save_every": 0, "save_every_unit": "NEVER",
    }  # fmt: skip
    found = recipe_formats.read(told, accept)
    assert why(found, "refused") == {}
    assert found.tables["train"]["network"] == "lora"


def test_a_warmup_of_1_is_all_of_onetrainer_s_steps():
    found = recipe_formats.read({"training_method": "LORA", "learning_rate_warmup_steps": 1}, accept)
    assert "all of the steps" in why(found, "refused")["learning_rate_warmup_steps"]
    assert found.tables["train"]["scheduler"] == "constant"
