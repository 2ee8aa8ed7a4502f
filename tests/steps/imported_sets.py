"""What the tests of `rename` share: a LoRA called anna, and the record of what was done to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorafactory import errors
from lorafactory.past import Past
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Note, Result, Work
from lorafactory.steps import rename
from lorafactory.workspace import LoraDir, Workspace

SMALL = rename.Settings(min_side=16)


@dataclass
class Run:
    """Collects what would go into the record."""

    notes: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, sha: str, verdict: str, rule: str, **told: Any) -> None:
        self.notes.append({"name": name, "sha": sha, "verdict": verdict, "rule": rule, **told})

    def derived(self, made: str, source: str, how: str) -> None:
        assert how == "png"
        self.origins[made] = source

    def past(self) -> Past:
        return Past(
            {n["before"]: n["name"] for n in self.told("imported")},
            conversions={n["name"]: (n["sha"], n["note"]) for n in self.told("converted")},
        )

    def told(self, verdict: str) -> list[dict[str, Any]]:
        return [n for n in self.notes if n["verdict"] == verdict]


@dataclass
class Factory:
    """A LoRA called anna, and the record of what was done to it."""

    work: Work
    run: Run = field(default_factory=Run)

    def go(self, settings: rename.Settings = SMALL, *, remembering: bool = True) -> list[str]:
        """Run the step as `make` would; return the new pictures."""
        new: list[str] = self.result(settings, remembering=remembering).data["imported"]
        return new

    def result(self, settings: rename.Settings = SMALL, *, remembering: bool = True) -> Result:
        past = self.run.past() if remembering else Past()
        work = replace(self.work, note=Note(self.run), past=past)  # type: ignore[arg-type]
        errors.raise_all(rename.check(work, settings))
        return rename.run(work, settings)

    def put(self, name: str, seed: int = 0, **options: Any) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(seed).save(path, **options)
        return path

    @property
    def source(self) -> Path:
        return self.work.place.source

    def source_folder(self) -> Path:
        self.source.mkdir(parents=True, exist_ok=True)
        return self.source

    @property
    def root(self) -> Path:
        return self.work.place.root

    @property
    def folder(self) -> Path:
        return self.root / "training_images" / "1_4nna"

    def files(self) -> dict[str, str]:
        """Every file of the LoRA's folder with its hash."""
        return {p.relative_to(self.root).as_posix(): digest(p) for p in self.root.rglob("*") if p.is_file()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def recipe(**header: Any) -> Recipe:
    return Recipe(Header(**header), {}, {})


def made(root: Path) -> Factory:
    space = Workspace(root, "test")
    return Factory(Work(space, space.lora("anna"), recipe(trigger="4nna")))


def foreign(anna: Factory, folder: Path, **header: Any) -> Factory:
    """A folder of photographs somewhere else."""
    place = LoraDir(folder.name, folder, owned=False)
    return Factory(Work(anna.work.workspace, place, recipe(**header), apply=False))
