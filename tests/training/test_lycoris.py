"""lycoris reads our DoRA, LoHa and LoKr as we do, and makes the same of the settings that we write for it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from lorafactory import families
from lorafactory.commands.recipe import accept
from lorafactory.families import Base
from lorafactory.recipe_formats import kohya
from lorafactory.steps.train import Settings
from lorafactory.training import lora_file
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import attached, change


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize(
    "values",
    [
        {"network": "dora"},
        {"network": "loha", "alpha": 3.0},
        {"network": "lokr"},
        {"network": "lokr", "rank": 1, "conv_rank": 1, "decompose_both": True, "lokr_factor": 4},
    ],
)
def test_lycoris_reads_it_as_we_do(family: str, values: dict[str, object], quick: TrainSettings) -> None:
    """Layer by layer: what its own loader makes of the tensors answers as the weight that we changed."""
    from lycoris.modules import get_module, make_module

    base = families.get(family).tiny()
    made = attached(base, change(quick, **values))
    tensors = made.state()
    made.detach()
    paths = {name: path for path, name in families.get(family).key_names(base).items()}
    for name in dict.fromkeys(key.partition(".")[0] for key in tensors):
        part, _, path = paths[name].partition(".")
        layer = base.parts[part].get_submodule(path)
        shape = (2, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 5, 5)
        x = torch.randn(shape, generator=generator(2, name))
        own = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        with torch.no_grad():
            theirs = make_module(*get_module(own, name), name, layer)(x)
            with lora_file.applied(base, own):
                torch.testing.assert_close(layer(x), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({"network": "dora", "rank": 3}, 0),
        ({"network": "loha", "rank": 3, "alpha": 2.0, "conv_rank": 2, "conv_alpha": 1.0, "rank_dropout": 0.1}, 4),
        ({"network": "loha", "conv_rank": 0}, 0),
        ({"network": "lokr", "rank": 2, "conv_rank": 2, "lokr_factor": 4, "decompose_both": True}, 4),
    ],
)
def test_what_is_written_for_sd_scripts_makes_the_same_adapter(
    values: dict[str, object], more: int, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lycoris, given the arguments of `recipe write`, has our layers in our sizes, and four beyond convolutions."""
    from lycoris.kohya import PRESET, create_network

    for preset in ("full", "attn-mlp"):  # that of time steps is named by class and by name: it trips over that
        classes = [name for name in PRESET[preset]["unet_target_module"] if name != "TimestepEmbedding"]
        monkeypatch.setitem(PRESET[preset], "unet_target_module", classes)
    s = Settings.model_validate(values)
    told = kohya.write(s.model_dump(mode="json"), Settings().model_dump(mode="json"), accept)
    args = dict(text.split("=") for text in told["network_args"])
    theirs = create_network(1.0, told["network_dim"], told["network_alpha"], None, [], base.parts["unet"], **args)
    held = {
        f"{layer.lora_name}.{name}": tensor.shape
        for layer in theirs.unet_loras
        for name, tensor in layer.custom_state_dict().items()
    }
    made = attached(base, s)
    ours = {key: tensor.shape for key, tensor in made.state().items() if key.startswith("lora_unet")}
    made.detach()
    beyond = {key.partition(".")[0] for key in held.keys() - ours.keys()}
    assert {key: held[key] for key in ours if key in held} == ours
    assert len(beyond) == more and all(re.search("conv_in|conv_out|time_embedding", name) for name in beyond)
