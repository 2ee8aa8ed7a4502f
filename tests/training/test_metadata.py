"""What a LoRA file says of itself, and the hashes by which others know it (trainers.md 1.5)."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lorafactory import families
from lorafactory.families import Base
from lorafactory.families._ddpm import Ddpm
from lorafactory.training import lora_file
from lorafactory.training.loop import Save
from lorafactory.training.memory import Means
from lorafactory.training.metadata import metadata
from lorafactory.training.plan import Example, plan
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import change

MEANS = Means(2, "adamw")
SAVE = Save(2, 8, {}, (), None, MEANS)


def told(base: Base, examples: list[Example], settings: TrainSettings, **more: Any) -> dict[str, str]:
    more = {"label": "epoch 2", "about": "person, woman", "trigger": "zqx", "save": SAVE, **more}
    count = plan(examples, settings)
    return metadata(name="anna", base=base, examples=examples, settings=settings, plan=count, **more)


def test_it_says_what_was_done(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    found = told(base, pictures, quick, started=1.0, finished=2.0)
    assert all(isinstance(value, str) for value in found.values())
    assert (found["ss_output_name"], found["modelspec.trigger_phrase"]) == ("anna", "zqx")
    assert found["modelspec.title"] == "anna epoch 2" and found["modelspec.tags"] == "person, woman"
    assert found["modelspec.description"] == "person, woman, trained on tiny"
    assert (found["ss_steps"], found["modelspec.usage_hint"]) == ("8", "say zqx in the prompt")
    assert found["ss_tag_frequency"].startswith('{"2_zqx": {"zqx": 5, "a dot": 5, "no 0": 1')
    assert found["ss_dataset_dirs"] == '{"2_zqx": {"n_repeats": 2, "img_count": 5}}'
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (found["ss_network_dim"], found["ss_network_alpha"], found["ss_epoch"]) == ("4", "2.0", "2")
    assert found["ss_optimizer"] == "torch.optim.AdamW(fused=True)"
    assert found["modelspec.date"] == "1970-01-01T00:00:02+00:00"
    # 32x32 (twice), 48x32, 32x48 and 40x40, each a bucket of its own size, times 2
    buckets = json.loads(found["ss_bucket_info"])
    assert buckets["mean_img_ar_error"] == 0
    assert {tuple(b["resolution"]): b["count"] for b in buckets["buckets"].values()} == {
        (32, 32): 4,
        (48, 32): 2,
        (32, 48): 2,
        (40, 40): 2,
    }


def test_nothing_of_the_machine_is_in_it(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    found = told(replace(base, vae_name="fine.safetensors"), pictures, quick)
    assert found["ss_vae_name"] == "fine.safetensors"
    assert str(pictures[0].path.parent.parent) not in "".join(found.values())
    assert "/home" not in "".join(found.values())


def test_files_are_told_by_name_and_hashes_alone(
    base: Base, pictures: list[Example], quick: TrainSettings, tmp_path: Path
) -> None:
    """As `library/train_util.py` of sd-scripts: `model_hash` and `calculate_sha256`."""
    models = {"base": tmp_path / "base.safetensors", "vae": tmp_path / "vae.safetensors"}
    models["base"].write_bytes(bytes(range(256)) * 0x1200)
    models["vae"].write_bytes(b"small")
    whole = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in models.items()}
    found = told(base, pictures, quick, files=models, base_sha256=whole["base"], vae_sha256=whole["vae"])
    window = models["base"].read_bytes()[0x100000:][:0x10000]
    assert found["ss_sd_model_hash"] == hashlib.sha256(window).hexdigest()[:8]
    assert found["ss_vae_hash"] == hashlib.sha256(b"").hexdigest()[:8] == "e3b0c442"
    assert (found["ss_new_sd_model_hash"], found["ss_new_vae_hash"]) == (whole["base"], whole["vae"])
    assert str(tmp_path) not in "".join(found.values())
    folder = told(base, pictures, quick)
    assert (folder["ss_sd_model_hash"], folder["ss_vae_hash"], folder["ss_new_vae_hash"]) == ("None",) * 3


def test_what_interfaces_parse_can_be_parsed(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    """A1111 and Forge read values that begin with { as JSON; kohya's empty values are the word None."""
    found = told(base, pictures, change(quick, network="locon"))
    parsed = {key: json.loads(value) for key, value in found.items() if value.startswith(("{", "["))}
    assert {"ss_tag_frequency", "ss_bucket_info", "ss_dataset_dirs", "ss_network_args"} <= set(parsed)
    assert all(value and isinstance(value, str) for value in found.values())
    sai = {key.removeprefix("modelspec.") for key in found if key.startswith("modelspec.")}
    must = {"sai_model_spec", "architecture", "implementation", "title", "resolution"}
    assert must <= sai and {"prediction_type", "trigger_phrase", "description", "tags"} <= sai


def test_every_setting_that_kohya_names_is_there(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    plain = told(base, pictures, TrainSettings(resolution=64, bucket_step=8))
    assert (plain["ss_noise_offset"], plain["ss_ip_noise_gamma"], plain["ss_max_token_length"]) == ("None",) * 3
    assert (plain["ss_text_encoder_lr"], plain["ss_vae_name"], plain["ss_loss_type"]) == ("None", "None", "l2")
    values = {
        "text_encoder_lr": 1e-4,
        "text_encoder_2_lr": 2e-5,
        "loss": "huber",
        "huber_schedule": "exponential",
        "debiased": True,
        "multires_iterations": 6,
        "ip_noise_gamma": 0.1,
        "adaptive_noise_scale": 0.01,
        "caption_dropout_every": 3,
        "max_tokens": 225,
        "random_crop": True,
        "min_timestep": 10,
        "max_timestep": 900,
    }
    found = told(base, pictures, change(quick, **values))
    wanted = {
        "ss_text_encoder_lr": "[0.0001, 2e-05]",
        "ss_loss_type": "huber",
        "ss_huber_schedule": "exponential",
        "ss_debiased_estimation": "True",
        "ss_multires_noise_iterations": "6",
        "ss_multires_noise_discount": "0.3",
        "ss_ip_noise_gamma": "0.1",
        "ss_adaptive_noise_scale": "0.01",
        "ss_caption_dropout_every_n_epochs": "3",
        "ss_max_token_length": "225",
        "ss_random_crop": "True",
        "ss_cache_latents": "False",
        "modelspec.timestep_range": "10,900",
    }
    assert {key: found[key] for key in wanted} == wanted


def test_it_says_what_memory_made_of_the_settings(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    """Five pictures a batch in pieces of two and one, and an optimizer of 8 bits."""
    s, low = change(quick, batch=5, gradient_accumulation=2), Means(2, "adamw8bit", checkpointing=True)
    found = told(base, pictures, s, save=replace(SAVE, means=low))
    sizes = ("batch_size_per_device", "gradient_accumulation_steps", "total_batch_size")
    assert [found[f"ss_{key}"] for key in sizes] == ["2", "6", "10"]
    assert found["ss_optimizer"] == "bitsandbytes.optim.AdamW8bit()"


def test_the_layer_that_sdxl_is_read_at_is_told_whatever_is_set(pictures: list[Example], quick: TrainSettings) -> None:
    for family, layers in (("sd15", ["3", "3"]), ("sdxl", ["2", "None"])):
        found = told(families.get(family).tiny(), pictures, change(quick, clip_skip=3))
        assert [found[key] for key in ("modelspec.encoder_layer", "ss_clip_skip")] == layers


def test_regularisation_pictures_are_told_apart(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    reg = [replace(e, name=f"reg/{e.name}", path=Path("reg/1_dot") / e.name, repeats=1, reg=True) for e in pictures]
    found = told(base, [*pictures, *reg], change(quick, prior_loss_weight=0.5))
    assert (found["ss_num_train_images"], found["ss_num_reg_images"]) == ("10", "10")
    assert found["ss_reg_dataset_dirs"] == '{"1_dot": {"n_repeats": 1, "img_count": 5}}'
    assert found["ss_dataset_dirs"] == '{"2_zqx": {"n_repeats": 2, "img_count": 5}}'
    assert found["ss_prior_loss_weight"] == "0.5"


def test_captions_count_as_they_are_read(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    one = [replace(pictures[0], caption="Zqx ||| red;;; blue\nnever read")]
    found = json.loads(told(base, one, quick)["ss_tag_frequency"])
    assert found == {"2_zqx": {"zqx": 1, "red": 1, "blue": 1}}


def test_zero_terminal_snr_is_said(base: Base, pictures: list[Example], quick: TrainSettings) -> None:
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    zero = Ddpm({**schedule, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, "base")
    found = told(replace(base, schedule=zero), pictures, quick)
    assert (found["ss_zero_terminal_snr"], found["modelspec.prediction_type"]) == ("True", "v")
    assert told(base, pictures, quick)["ss_zero_terminal_snr"] == "False"


def test_the_hashes_are_those_that_others_compute(
    base: Base, pictures: list[Example], quick: TrainSettings, tmp_path: Path
) -> None:
    """As A1111, Forge and SwarmUI compute them, over a file larger than the old hash's window."""
    tensors = {f"x{i}.lora_up.weight": torch.arange(2**17) * 0.5 + i for i in range(3)}
    file = tmp_path / "anna.safetensors"
    papers = told(base, pictures, quick)
    lora_file.write(file, tensors, papers, dtype="fp32")
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    written = json.loads(data[8 : 8 + length])["__metadata__"]
    body = hashlib.sha256(data[8 + length :]).hexdigest()
    assert written["sshs_model_hash"] == body
    assert written["modelspec.hash_sha256"] == f"0x{body}"

    # the old hash: 64 KiB from 1 MiB on, of the file as it would be with the ss_* entries alone
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {key: value for key, value in papers.items() if key.startswith("ss_")}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    small = struct.pack("<Q", len(text)) + text + data[8 + length :]
    assert len(small) > 0x110000
    assert written["sshs_legacy_hash"] == hashlib.sha256(small[0x100000:0x110000]).hexdigest()[:8] != "e3b0c442"
    # labels do not count, tensors do
    lora_file.write(file, tensors, {}, dtype="fp32")
    assert lora_file.read(file)[1]["sshs_model_hash"] == body
