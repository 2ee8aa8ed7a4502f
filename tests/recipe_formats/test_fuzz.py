"""No file ends in a traceback: whatever JSON, TOML or bytes it holds, it is read, or there is a message."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from lorafactory import recipe_formats
from lorafactory.commands import recipe as command
from lorafactory.errors import LoraError
from lorafactory.recipe_formats._values import leaves

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.iterdir() if path.suffix in (".json", ".toml"))
KNOWN = [
    *sorted({name for path in FILES for name, _, _ in leaves(recipe_formats.parse(path))}),
    "datasets", "subsets", "concepts", "lorafactory", "general_args", "args", "optimizer", "ss_optimizer",
    "total_steps", "ss_datasets", "ss_network_args", "__metadata__", "lorafactory.train", "#", "max_train_epochs#2",
    "network_args",
]  # fmt: skip
TEXTS = ["", "0", "None", "1e999", "nan", "-1", "betas=0.9,", "a=b=c", "x=[[", "'", '"', "--a --b=", "9" * 400, "/x/y"]
ALONE = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=8)
VALUES = st.recursive(
    ALONE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN), inner, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=6), VALUES, max_size=12)
PHASES = (Phase.explicit, Phase.generate)
FUZZ = settings(
    phases=PHASES, max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


APART = ("additional_parameters", "network_args", "ss_network_args", "ss_datasets", "ss_dataset_dirs")
"""Fields whose every part has a line of its own instead."""


def unsaid(data: dict[str, Any], reading: recipe_formats.Reading) -> list[str]:
    """Paths of what the file holds and no line tells of, in tables and lists of tables."""
    if "__metadata__" in data:  # beside it are tensors
        data = data["__metadata__"] if isinstance(data["__metadata__"], dict) else {}
    said = [line.field.name for line in reading.lines.values()]
    whole = tuple(f"{line.field.name}." for line in reading.lines.values() if isinstance(line.field.value, dict))

    def missing(table: dict[str, Any], before: str) -> Iterator[str]:
        for key, path, value in leaves(table):
            here = before + path
            if key in APART or here.startswith(whole) or any(here in name for name in said):
                continue
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                yield from (inner for i, one in enumerate(value) for inner in missing(one, f"{here}.{i}."))
            else:
                yield here

    return list(missing(data, ""))


def read_and_keep(data: dict[str, Any]) -> None:
    """All that `recipe read --as` does but for the disk; what it makes is TOML again, and settings."""
    with contextlib.suppress(LoraError):
        reading = recipe_formats.read(data, command.accept)
        assert len(reading.lines) == len(reading.fields)
        assert unsaid(data, reading) == []
        told = "\n".join(command.receipt(reading))
        told.encode()
        kept = tomlkit.parse(command.text_of(reading, Path("x.json"))).unwrap()
        assert kept == {**reading.header, **reading.tables}


@FUZZ
@given(DATA)
@example({"LoRA_type": "x", "seed": float("inf"), "max_resolution": "1e400,2"})
@example({"unetLR": 10**400, "resolution": float("nan")})
@example({"LoRA_type": {"optimizer_args": {"a": None, "b": [float("nan")], "c": {"d": 1}}}})
@example({"datasets": [1, {"subsets": [2, {"num_repeats": []}]}]})
def test_any_table_is_read_or_refused(data: dict[str, Any]):
    read_and_keep(data)


@FUZZ
@given(st.sampled_from(FILES), st.data())
def test_any_value_in_a_file_is_read_or_refused(path: Path, data: st.DataObject):
    table = recipe_formats.parse(path)
    for key in data.draw(st.lists(st.sampled_from(sorted(table)), min_size=1, max_size=4, unique=True)):
        table[key] = data.draw(VALUES)
    read_and_keep(table)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_table_or_list_in_any_field_is_read_or_refused(path: Path):
    table = recipe_formats.parse(path)
    for key in table:
        for odd in ({}, [{}], [["a"], None], {"a": {"args": [None]}}):
            read_and_keep({**table, key: odd})


@FUZZ
@given(path=st.sampled_from(FILES), cut=st.integers(0, 400), put=st.binary(max_size=12), suffix=st.sampled_from(
    (".json", ".toml", ".safetensors", "")))  # fmt: skip
def test_any_bytes_are_read_or_refused(
    path: Path, cut: int, put: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
):
    file = tmp_path_factory.getbasetemp() / f"fuzzed{suffix}"
    whole = path.read_bytes()
    file.write_bytes(whole[: cut * len(whole) // 400] + put + whole[cut * len(whole) // 400 + len(put) :])
    with contextlib.suppress(LoraError):
        read_and_keep(recipe_formats.parse(file))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, '{"unetLR": ' + "9" * 5000 + "}", "x = 0x" + "f" * 9000, "a = 1979-05-27"]
)
@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_what_a_parser_chokes_on_is_a_message(text: str, suffix: str, tmp_path: Path):
    file = tmp_path / f"x{suffix}"
    file.write_text(text)
    with pytest.raises(LoraError):
        recipe_formats.read(recipe_formats.parse(file), command.accept)


def test_json_s_own_infinities_are_no_numbers(tmp_path: Path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"unetLR": float("inf"), "textEncoderLR": float("nan"), "networkDim": 4}))
    reading = recipe_formats.read(recipe_formats.parse(file), command.accept)
    assert reading.tables == {"train": {"rank": 4}}
