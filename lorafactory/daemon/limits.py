"""Where the daemon keeps its own files, and what a person may set for it: `[watch]` in lorafactory.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafactory.errors import SettingsError
from lorafactory.workspace import Workspace

FOLDER = ".watch"


class Limits(BaseModel):
    """`[watch]` in lorafactory.toml."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    on_done: tuple[str, ...] = ()
    """A command, word by word, that is run after each job with the LoRA's name and the job's state appended."""
    silence_minutes: float = Field(15.0, gt=0)
    """A job that gives no sign of life for so long is stopped and tried again."""
    free_gb: float = Field(5.0, ge=0)
    """Free space on the workspace's disk below which no job begins."""


def limits(space: Workspace) -> Limits:
    """What is set; SettingsError with all that is wrong."""
    try:
        return Limits.model_validate(space.config.get("watch", {}))
    except ValidationError as error:
        told = [f"`watch.{'.'.join(map(str, e['loc']))}`: {e['msg'].lower()}" for e in error.errors()]
        raise SettingsError("\n".join(f"{space.config_path}: {line}" for line in told)) from error


def short_of_disk(space: Workspace, told: Limits) -> str:
    """Why no job may begin now, in words; empty if one may."""
    free = shutil.disk_usage(space.root).free / 1e9
    return f"{free:.1f} GB free on the disk of {space.root}, less than {told.free_gb:g}" if free < told.free_gb else ""


def own(space: Workspace, name: str) -> Path:
    """A file of the daemon's own; its folder is made."""
    folder = space.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def beat_of(space: Workspace, worker: str) -> Path:
    return own(space, f"{worker}.json")
