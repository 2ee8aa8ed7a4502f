"""What a training writes while it runs: the curve is there as it comes, where somebody watches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorafactory import heartbeat
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import _diary
from lorafactory.steps._begin import read_losses
from lorafactory.workspace import Workspace


@pytest.fixture
def diary(tmp_path: Path) -> Any:
    space = Workspace(tmp_path, "test")
    work = Work(space, space.lora("anna"), Recipe(Header(trigger="4nna"), {}, {}))
    base: Any = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    plan: Any = SimpleNamespace(steps=9, sampled=())
    settings: Any = None
    return _diary.Diary(work, settings, base, plan, (), tensorboard=False)


def test_a_watched_curve_is_on_disk_as_it_comes(diary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    diary.step(1, 0.3, 1e-4)
    assert read_losses(diary.work) == []  # nobody asked
    with heartbeat.beating(tmp_path / "0.json", "anna", silence=900):
        for step in (2, 3):
            diary.step(step, 0.3, 1e-4)
            assert [row[0] for row in read_losses(diary.work)] == list(range(1, step + 1))
        monkeypatch.setattr(_diary, "write_losses", full)
        diary.step(4, 0.3, 1e-4)  # a full disk is no reason to end a step


def full(*args: object, **more: object) -> None:
    raise OSError("no room")
