"""A toy of each family, its full size without weights, and both layouts on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import build, small_config

from lorafactory import families
from lorafactory.families import Base


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest) -> Any:
    """The family that a test is given by parameter, else that of its module."""
    return families.get(getattr(request, "param", None) or request.module.FAMILY)


@pytest.fixture(scope="module")
def tiny(family: Any) -> Base:
    made: Base = family.tiny()
    return made


@pytest.fixture(scope="module")
def full(family: Any) -> Base:
    """The architecture in its true size without its weights."""
    return build(family, family.CONFIG, "meta")


@pytest.fixture(scope="module")
def folder(family: Any, tiny: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny"
    family.pipeline(tiny).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def made(family: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """A toy with the full model's blocks, which the family takes for the full model."""
    patch = pytest.MonkeyPatch()
    patch.setattr(family, "CONFIG", small_config(family, tmp_path_factory.mktemp("config") / "small"))
    torch.manual_seed(0)
    yield build(family, family.CONFIG)
    patch.undo()
