"""The state of a training, kept so that a killed one goes on as if nothing had happened.

A state is one safetensors file: its tensors as they are, all else as canonical JSON in the header, and the sha256 of
both. It is written whole or not at all, and an old one goes only once a newer one is on disk, so a torn file costs
the time since the one before, never the training. Nothing in it is ever run: no pickle.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lorafactory import files
from lorafactory.errors import FailedError

KEPT = 2
STATES = "step-*.safetensors"
PLAN = "plan.json"
FORMAT = "1"
State = dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """A state on the CPU, apart from what goes on training."""

    told: str
    """Canonical JSON of everything but the tensors, which it names."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    def unpack(self) -> State:
        """Build the state again; its tensors are copies, so it can be taken up more than once."""
        found: State = _unpacked(json.loads(self.told), self.tensors)
        return found

    def write(self, folder: Path, step: int) -> Path:
        """Write it as the newest state of a folder; the one before it stays too. DiskFull if there is no room."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATES.replace("*", f"{step:08}")
        papers = {"format": FORMAT, "state": self.told, "sha256": self.digest()}
        data = safetensors.torch.save(dict(self.tensors), papers)
        files.room_for(folder, len(data))
        files.write_whole(path, data)
        for old in sorted(folder.glob(STATES))[:-KEPT]:
            old.unlink()
        return path

    def digest(self) -> str:
        """Sha256 of the JSON and of every tensor: name, kind, shape, bytes."""
        digest = hashlib.sha256(self.told.encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def pack(state: Mapping[str, Any]) -> Packed:
    """Copy a state of tensors, numbers, texts, lists, tuples and tables to the CPU; FailedError on anything else."""
    tensors: dict[str, Tensor] = {}
    told = _packed(state, tensors, "")
    return Packed(json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False), tensors)


def newest(folder: Path, say: Callable[[str], None] = lambda text: None) -> Packed | None:
    """Read the newest state of a folder that is whole; say which were passed over. None if there is none."""
    for path in sorted(folder.glob(STATES), reverse=True):
        try:
            return _read(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            say(f"{path} is not whole ({error}): it is passed over for the one before")
    return None


def _read(path: Path) -> Packed:
    with safetensors.safe_open(path, framework="pt") as file:
        papers = file.metadata() or {}
        found = Packed(papers.get("state", ""), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    if papers.get("format") != FORMAT or papers.get("sha256") != found.digest():
        raise ValueError("its sha256 is another")
    return found


def _packed(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, Tensor):
        # a copy, also of what optimizers share between parameters: a file holds no tensor twice
        tensors[where] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": where}
    if isinstance(value, Mapping):
        pairs = enumerate(value.items())
        return {"table": [[_packed(k, tensors, where), _packed(v, tensors, f"{where}/{i}")] for i, (k, v) in pairs]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(v, tensors, f"{where}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise FailedError(f"The training's state holds a {kind}, which cannot be kept; take another optimizer.")


def _unpacked(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, value),) = told.items()
    if kind == "tensor":
        return tensors[value].clone()
    if kind == "float":
        return float(value)
    if kind == "table":
        return {_unpacked(k, tensors): _unpacked(v, tensors) for k, v in value}
    found = [_unpacked(v, tensors) for v in value]
    return tuple(found) if kind == "tuple" else found


class Keeper:
    """Keeps the states of one training: the newest in memory to go back to, and on disk where there is a folder."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        minutes: float = 5,
        steps: int = 0,
        plan: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep a state every so many minutes, and every so many steps; 0 is off.

        `plan` is what was decided so far, from `read_plan` if this goes on with a training.
        """
        self.folder, self.minutes, self.steps, self.clock = folder, minutes, steps, clock
        self.plan = dict(plan or {})
        self.good: Packed | None = None
        self._last = (clock(), 0)

    def newest(self, say: Callable[[str], None]) -> Packed | None:
        """The newest state of a training that is gone on with."""
        if self.folder is None:
            return None
        self.good = newest(self.folder, say)
        return self.good

    def resumed(self, step: int) -> None:
        """Count from this step, after which the newest state was kept."""
        self._last = (self.clock(), step)

    def due(self, step: int) -> bool:
        """True if so much time or so many steps went by since the newest state."""
        began, before = self._last
        late = self.minutes > 0 and self.clock() - began >= 60 * self.minutes
        return late or (self.steps > 0 and step - before >= self.steps)

    def keep(self, packed: Packed, step: int) -> None:
        """Keep a state after this step as the newest."""
        self.good = packed
        if self.folder is not None:
            packed.write(self.folder, step)
        self._last = (self.clock(), step)

    def decide(self, **values: Any) -> None:
        """Keep what was measured or detected, for whoever goes on with this training."""
        self.plan |= values
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            told = json.dumps(self.plan, sort_keys=True, indent=1) + "\n"
            files.write_whole(self.folder / PLAN, told.encode())


def read_plan(folder: Path) -> dict[str, Any]:
    """What an unfinished training decided; empty if there is none."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finish(folder: Path, log: Path) -> None:
    """Take away the state of a training that has ended well; its plan goes to the log."""
    if (folder / PLAN).is_file():
        log.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).replace(log / PLAN)
    shutil.rmtree(folder, ignore_errors=True)
