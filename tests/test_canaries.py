"""Secrets lay about while LoRAs were made (tests/history.py): none is in anything that was written or said.

What travels with a LoRA, or is made for others, names no folder of this machine either. What stays in the workspace
and what a command says may: they are for the person whose folders these are.
"""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from lorafactory import exports
from tests.conftest import Said
from tests.history import CANARIES, FOLDER, save, secrets

Lora = Callable[..., Said]
SECRET = tuple(canary for canary in CANARIES if canary != FOLDER)
LOCAL = (*SECRET, *(word for word in (platform.node(),) if len(word) > 4))
TRAVELS = (*LOCAL, FOLDER)


@pytest.fixture(autouse=True)
def lying_about() -> Iterator[None]:
    with secrets():
        yield


def words_in(path: Path) -> bytes:
    """A file's bytes, and what they hold packed: the texts of a PNG, the files of a zip."""
    data = path.read_bytes()
    if path.suffix == ".png":
        with Image.open(path) as picture:
            with suppress(OSError):  # the demo has a broken one
                picture.load()
            return data + json.dumps({str(k): str(v) for k, v in picture.info.items()}).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return data + b"".join(archive.read(name) + name.encode() for name in archive.namelist())
    return data


def found_in(paths: Iterator[Path] | list[Path], canaries: tuple[str, ...]) -> list[tuple[str, str]]:
    seen = {path: words_in(path) for path in paths if path.is_file()}
    assert seen
    return [(str(path), canary) for path, data in seen.items() for canary in canaries if canary.encode() in data]


def of_lora(root: Path) -> list[Path]:
    """What of a LoRA's folder is given away."""
    chosen = root / f"{root.name}.safetensors"
    beside = [chosen.with_suffix(suffix) for suffix in (".safetensors", ".png", ".json", ".prov.json")]
    assert all(path.is_file() for path in beside)
    return [*beside, *root.glob("result*/**/*.safetensors"), root / "txt2img-images" / "grid.png"]


def of_workspace(space: Path) -> list[Path]:
    """All that was written; a lora.toml is the person's own."""
    return [path for path in space.rglob("*") if path.name != "lora.toml"]


# ---------------------------------------------------------------- what was written


@pytest.mark.xdist_group("history")
def test_no_secret_is_in_a_file_of_the_history(lora: Lora, copied: Path) -> None:
    travels = (*TRAVELS, str(copied.parent))
    assert found_in(of_lora(copied / "loras" / "anna"), travels) == []
    saves = [path for lora_ in ("cleo", "dora") for path in (copied / "loras" / lora_).rglob("*.safetensors")]
    assert found_in([*saves, *(copied / "loras" / "dora").rglob("*.png")], travels) == []
    assert found_in(of_workspace(copied), LOCAL) == []
    assert found_in([copied / "loras" / "anna" / "lora.toml"], ("canary-config",)), "they can be found"
    assert found_in([copied / "lorafactory.db"], (FOLDER,)), "the record may name a folder"


@pytest.mark.xdist_group("demo")
def test_no_secret_is_in_a_file_of_the_demo(lora: Lora, demo: Path, tmp_path: Path) -> None:
    travels = (*TRAVELS, str(tmp_path))
    assert found_in(of_lora(demo / "loras" / "demo"), travels) == []
    assert found_in((demo / "loras" / "demo" / "txt2img-images" / "cells").iterdir(), travels) == []
    assert lora("report", "demo", "--share").code == 0
    assert found_in([demo / "loras" / "demo" / "report-shared.html"], travels) == []
    assert found_in(of_workspace(demo), LOCAL) == []


@pytest.mark.xdist_group("history")
@pytest.mark.parametrize("form", exports.names())
def test_no_secret_is_in_an_export(lora: Lora, copied: Path, tmp_path: Path, form: str) -> None:
    made = tmp_path / f"export{exports.get(form).SUFFIX}"
    said = lora("export", "anna", "--format", form, "--to", made)
    assert said.code == 0 and clean(said)
    found = found_in([made] if made.is_file() else made.rglob("*"), (*TRAVELS, str(copied)))
    assert found == []


# ---------------------------------------------------------------- what is said


def clean(said: Said) -> bool:
    """Nothing secret was said, and nothing went so wrong that nothing would be."""
    assert not [canary for canary in LOCAL if canary in said.out + said.err], said
    assert "Traceback" not in said.err and said.out + said.err
    return True


@pytest.mark.xdist_group("history")
def test_no_secret_is_said(lora: Lora, copied: Path, history: Path) -> None:
    chosen = copied / "loras" / "anna" / "anna.safetensors"
    lines: list[tuple[object, ...]] = [
        ("why",), ("why", "anna"), ("why", "cleo"), ("why", "anna/0001.png"), ("why", "anna/same.bmp"), ("why", chosen),
        ("why", "anna", "dora"), ("why", save(copied, "anna", 1), save(copied, "anna", 3)), ("why", "nobody"),
        ("verify",), ("verify", "--deep"), ("verify", chosen), ("reproduce", "anna", "--plan"),
        ("undo", "anna", "--list"), ("reproduce", "nobody"), ("status",), ("check", "anna"), ("doctor",),
        ("join", history), ("revoke", "anna/0001.png", "--reason", "x"), ("undo", "anna"),
    ]  # fmt: skip
    assert all(clean(lora(*line)) for line in lines)
    as_json = [line for line in lines if line[0] not in ("undo", "check")]
    assert all(clean(lora(*line, "--json")) for line in as_json)
    assert clean(lora("recipe", "show", "anna"))
    assert found_in(of_workspace(copied), LOCAL) == [], "nor recorded"


@pytest.mark.xdist_group("history")
def test_an_error_of_the_system_tells_no_token(lora: Lora, copied: Path) -> None:
    """What a library says may quote a line with a token; the record keeps it without."""
    token = next(canary for canary in CANARIES if canary.startswith("hf_"))
    toml = copied / "loras" / "anna" / "lora.toml"
    toml.write_text(toml.read_text().replace('trigger = "zqx"', f'trigger = "zqx"\nvae = "https://user:{token}@hub/x"'))
    assert lora("make", "anna").code != 0
    assert found_in(of_workspace(copied), LOCAL) == []
