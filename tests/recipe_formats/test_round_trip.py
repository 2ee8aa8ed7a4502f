"""Settings to sd-scripts' TOML and back are the same settings, whatever they are, and it takes what is written."""

from __future__ import annotations

import tomllib
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import toml
import tomlkit
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from lorafactory import recipe_formats, steps
from lorafactory.commands.recipe import accept, sdscripts
from lorafactory.recipe_formats import kohya
from lorafactory.settings import recipe_names
from lorafactory.steps.train import Settings
from lorafactory.training import optimizers
from lorafactory.workspace import find_workspace
from tests.recipe_formats import sdscripts as sdscripts_facts

NAMED = {
    "network": ("lora", "locon", "loha", "lokr", "dora", "dylora"),
    "scheduler": optimizers.SCHEDULERS,
    "optimizer": ("auto", *optimizers.OPTIMIZERS),
    "optimizer_args": ({}, {"weight_decay": 0.1, "betas": [0.9, 0.99]}, {"relative_step": True, "eps": [1e-30, 0.001]}),
    "from_lora": ("",),
    "sample_prompts": ("",),
}
"""What is drawn of settings whose type says too little; of places only none, for they are never taken over."""


def drawn(name: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values of a setting, by its type and bounds."""
    if name in NAMED:
        return st.sampled_from(NAMED[name])
    origin, inner = get_origin(field.annotation), get_args(field.annotation)
    if origin is Literal:
        return st.sampled_from(inner)
    kinds = inner if origin in (Union, UnionType) else (field.annotation,)
    rules = {k: getattr(rule, k) for rule in field.metadata for k in ("ge", "gt", "le", "lt") if hasattr(rule, k)}
    low, high = rules.get("ge", rules.get("gt", -1)), rules.get("le", rules.get("lt", 1000))
    if bool in kinds:
        return st.booleans()
    if name == "max_tokens":
        return st.sampled_from((75, 150, 225))
    if float in kinds:
        return st.floats(low, high, exclude_min="gt" in rules, exclude_max="lt" in rules, allow_subnormal=False)
    if int in kinds:
        return st.integers(low, high - ("lt" in rules))
    if field.annotation is str:
        return st.text("abc ,;|é'\"{}", min_size=1, max_size=6)
    return st.lists(st.integers(1, 9), max_size=4)


def as_sdscripts_reads(told: dict[str, Any]) -> dict[str, Any]:
    """What is in the file, also for the older parser that it reads with; all has to be known, and of its type."""
    text = tomlkit.dumps(told)
    read: dict[str, Any] = tomllib.loads(text)
    assert '\\"' in text or toml.loads(text) == read  # it trips over quotes within quotes
    assert sdscripts_facts.wrong_arguments(read) == []
    return read


WHOLE = st.fixed_dictionaries({}, optional={name: drawn(name, field) for name, field in Settings.model_fields.items()})


def there_and_back(values: dict[str, Any]) -> dict[str, Any]:
    told = as_sdscripts_reads(kohya.write(values, Settings().model_dump(mode="json"), accept))
    read = recipe_formats.read(told, accept)
    assert not read.count("refused"), [str(line) for line in read.lines.values() if line.verdict == "refused"]
    return Settings.model_validate(read.tables["train"]).model_dump(mode="json")


def come_back(values: dict[str, Any]) -> None:
    settings = Settings.model_validate(values).model_dump(mode="json")
    assert there_and_back(settings) == settings


@hypothesis_settings(max_examples=20, deadline=None, derandomize=True)
@given(WHOLE)
def test_any_settings_come_back_as_they_were(values: dict[str, Any]):
    come_back(values)


@pytest.mark.slow
@hypothesis_settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(WHOLE)
def test_very_many_settings_come_back_as_they_were(values: dict[str, Any]):
    come_back(values)


@pytest.mark.parametrize("name", recipe_names())
def test_a_whole_recipe_comes_back(name: str, space: Any):
    from lorafactory.commands.recipe import found

    recipe = found(find_workspace(), name)
    told = as_sdscripts_reads(sdscripts(find_workspace(), name))
    read = recipe_formats.read(told, accept)
    for table in steps.names():
        model = steps.get(table).Settings
        assert model.model_validate(read.tables.get(table, {})) == model.model_validate(recipe.table(table)), table
    assert read.header.get("kind", "person") == recipe.header.kind
    assert told["network_module"] in ("networks.lora", "lycoris.kohya", "networks.dylora")
    assert told["max_train_epochs"] == read.tables["train"]["epochs"]


def test_what_sd_scripts_takes_otherwise_is_written_its_way():
    """A float is a share of the steps, at 0 the trigger is shuffled too, Prodigy and Adafactor begin otherwise."""
    usual = Settings().model_dump(mode="json")

    def told(**values: Any) -> dict[str, Any]:
        return kohya.write(Settings.model_validate(values).model_dump(mode="json"), usual, accept)

    assert repr(told(warmup=200)["lr_warmup_steps"]) == "200"
    assert told(warmup=0.1)["lr_warmup_steps"] == 0.1
    assert told(shuffle_captions=True)["keep_tokens"] == 1
    assert told(optimizer="prodigy")["optimizer_args"] == ["safeguard_warmup=True", "use_bias_correction=True"]
    assert "relative_step=False" in told(optimizer="adafactor")["optimizer_args"]
    assert told(network="dylora", unit=8)["network_args"] == ["unit=8"]
    assert told(text_encoder_lr=1e-5, text_encoder_2_lr=0)["text_encoder_lr"] == [1e-5, 0]
    assert told()["network_train_unet_only"] is True
    assert told(scheduler="constant", warmup=5)["lr_scheduler"] == "constant_with_warmup"
