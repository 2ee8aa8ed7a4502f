"""What the last comparison and the last pick left, and whether the chosen file is still one of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorafactory.errors import InputError
from lorafactory.step import Work
from lorafactory.training.lora_header import tensor_hash

SCORES, VERDICT = "scores.json", "verdict.json"


def read_scores(work: Work) -> dict[str, Any]:
    path = work.place.comparison / SCORES
    if not path.is_file():
        raise InputError(f"no scores to pick by in {path.parent}: first `lora compare {work.place.name}`")
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        ours = told["version"] == 2 and any(row["save"] for row in told["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): `lora compare {work.place.name} --force`") from error
    if not ours:
        raise InputError(f"{path} is of another version, or has no save: `lora compare {work.place.name} --force`")
    return told


def compared(told: dict[str, Any]) -> dict[str, str]:
    """Name to sha256 of the saves that scores are about."""
    return {row["save"]: row["sha256"] for row in told["columns"] if row["save"]}


def last_pick(work: Work) -> dict[str, Any]:
    """What verdict.json of the last pick says; empty if there was none."""
    try:
        told: dict[str, Any] = json.loads((work.place.comparison / VERDICT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def refuse_foreign(work: Work) -> None:
    """The chosen file may be replaced only if its tensors are those of one of our saves."""
    chosen = work.place.chosen
    if not chosen.exists():
        return
    found = content(chosen)
    if found and found == last_pick(work).get("tensors"):
        return
    saves = [*work.place.result.glob("*.safetensors"), *work.place.earlier_results.glob("*/*.safetensors")]
    if not found or not any(content(path) == found for path in saves):
        raise InputError(f"{chosen} is none of this LoRA's saves and is left alone: move it away, then try again")


def content(path: Path) -> str:
    """A LoRA file's tensor hash; nothing if it is none."""
    try:
        return tensor_hash(path)
    except InputError:
        return ""
