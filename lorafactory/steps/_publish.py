"""What goes out with a chosen save: papers in the file, preview, sidecar, and copies under names of their own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from lorafactory import images, manifest
from lorafactory.errors import InputError
from lorafactory.files import write_whole
from lorafactory.step import Work
from lorafactory.steps._saves import papers
from lorafactory.training.lora_header import relabelled, tensor_hash
from lorafactory.training.saves import AVERAGE

THUMB = 256
"""Longest side of the picture inside the file, in pixels."""
SOURCE = "lorafactory.save"
"""In a published file: the tensor hash of the save that it was made of."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """A save that goes out, and what is said with it."""

    row: Row
    """Its column of scores.json."""
    verdict: str
    """On this save: passed, rejected, undertrained or overtrained."""
    reason: str
    by_hand: bool


@dataclass(frozen=True)
class Made:
    """What is to be written."""

    files: dict[str, bytes]
    """By suffix: the LoRA, its preview, its sidecar, what it was made of."""
    note: str = ""
    """What is not as in the save."""


def short(row: Row) -> str:
    """A save in a file's name: e04, or s1500 within an epoch."""
    found = f"e{row['epoch']:02}" if row["label"].startswith("epoch") else f"s{row['step']}"
    return found + AVERAGE * Path(row["save"]).stem.endswith(AVERAGE)


def make(work: Work, told: dict[str, Any], choice: Choice, rank: int = 0) -> Made:
    """The LoRA with its papers, at this rank if one is given, and what belongs to it."""
    save = work.place.result / choice.row["save"]
    labels, beside, note = metadata(work, told, choice), sidecar(work, choice), ""
    if rank:
        from lorafactory.training.resize import resized_file

        data, kept = resized_file(save, rank, labels)
        note = f"rank {rank}, {kept:.1%} of the change kept"
        beside["notes"] = f"{note}. {beside['notes']}"
    else:
        data = relabelled(save, labels)
    strip = images.png(preview(work, told, choice.row))
    files = {".safetensors": data, ".png": strip, ".json": as_json(beside)}
    if defined := definition_of(save):
        files[manifest.SUFFIX] = as_json(provenance(work, save, data, defined))
    return Made(files, note)


def definition_of(save: Path) -> dict[str, Any] | None:
    """What a save was made of, by the manifests in the log of its training; None if none of them is its own."""
    asked = papers(save).get(manifest.KEY)
    for path in sorted((save.parent / "log").glob("manifest-*.json")):
        defined = manifest.definition(json.loads(path.read_text(encoding="utf-8")))
        if manifest.digest(defined) == asked:
            return defined
    return None


def provenance(work: Work, save: Path, data: bytes, defined: dict[str, Any]) -> dict[str, Any]:
    """The statement that goes with the file whose bytes these are."""
    said = papers(save)
    times = [said.get(f"ss_training_{what}_at", "None") for what in ("started", "finished")]
    begun, ended = (
        None if t == "None" else datetime.fromtimestamp(float(t), UTC).isoformat(timespec="seconds") for t in times
    )
    name, sha256 = f"{work.place.name}.safetensors", hashlib.sha256(data).hexdigest()
    return manifest.statement(name, sha256, tensor_hash(save), defined, begun, ended)


def metadata(work: Work, told: dict[str, Any], choice: Choice) -> dict[str, str]:
    """What the published file says beyond what the save does.

    A1111 and Forge list all of it; SwarmUI and others read `modelspec.*` (Stability AI model metadata standard 1.0.1)
    and draw `thumbnail` on the card. The save is named by its content: no path is in it.
    """
    save = work.place.result / choice.row["save"]
    said = {
        "lorafactory.verdict": choice.verdict,
        "lorafactory.reason": choice.reason,
        "lorafactory.chosen": "by hand" if choice.by_hand else "by the verdict",
        SOURCE: tensor_hash(save),
        "modelspec.thumbnail": thumbnail(best_pair(work, told, choice.row)[1]),
        "modelspec.lora_default_weight": str(choice.row["strength"]),
    }
    if work.trigger:
        said["modelspec.trigger_phrase"] = work.trigger
    if choice.verdict != "passed":
        about = papers(save).get("modelspec.description", work.place.name)
        said["modelspec.description"] = f"{about}. The comparison says: {choice.verdict}"
    return said


def thumbnail(path: Path) -> str:
    """A picture as a `data:` address; JPEG, which whatever reads the standard can draw."""
    picture, data = images.load(path), io.BytesIO()
    picture.thumbnail((THUMB, THUMB))
    picture.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def best_pair(work: Work, told: dict[str, Any], row: Row) -> tuple[Path, Path]:
    """Baseline and save from the same noise, where the save is likest and copies nothing."""
    asked = {i for i, prompt in enumerate(told["prompts"]) if prompt["trigger"]}
    without = {(c["prompt"], c["seed"]): c["file"] for c in told["columns"][0]["cells"]}
    cells = [c for c in row["cells"] if c["file"] and c["prompt"] in asked]
    best = max(cells, key=lambda c: (not c["copy"], c["likeness"]))
    folder = work.place.comparison
    return folder / without[best["prompt"], best["seed"]], folder / best["file"]


def preview(work: Work, told: dict[str, Any], row: Row) -> Image.Image:
    pair = [images.load(path) for path in best_pair(work, told, row)]
    gap = max(2, pair[0].width // 48)
    strip = Image.new("RGB", (pair[0].width + gap + pair[1].width, pair[0].height), "white")
    strip.paste(pair[0], (0, 0))
    strip.paste(pair[1], (pair[0].width + gap, 0))
    return strip


def sidecar(work: Work, choice: Choice) -> dict[str, Any]:
    """What A1111, Forge and SD.Next read beside a LoRA."""
    header = work.recipe.header
    what = f"{header.kind}, {header.class_}" if header.class_ else header.kind
    return {
        "description": f"{work.place.name} ({what})",
        "sd version": sd_version(work.place.result / choice.row["save"]),
        "activation text": work.trigger,
        "preferred weight": choice.row["strength"],
        "notes": choice.reason,
    }


def sd_version(save: Path) -> str:
    """The sidecar's word for the kind of base."""
    told = papers(save)
    said = f"{told.get('modelspec.architecture', '')} {told.get('ss_base_model_version', '')}".lower()
    return "SDXL" if "xl" in said else "SD1" if "v1" in said else "Unknown"


def as_json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


# ---------------------------------------------------------------- into a folder


def put(folder: Path, stem: str, made: Made, written: dict[str, str]) -> list[str]:
    """Write a LoRA and what belongs to it; say which files are not ours, and so were left as they are.

    `written` has the hashes of what was written before, by name, and gets those of this time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = []
    for suffix, data in made.files.items():
        path = folder / f"{stem}{suffix}"
        sha256 = hashlib.sha256(data).hexdigest()
        ours = (written.get(path.name), sha256)  # the very same: of a run that was killed before it could say so
        if suffix != ".safetensors" and path.exists() and images.sha256(path) not in ours:
            left.append(f"{path.name}: not ours, left as it is")
            continue
        write_whole(path, data)
        written[path.name] = sha256
    return left


def put_own(folder: Path, stem: str, made: Made, written: dict[str, str], save: str) -> list[str]:
    """`put` under a name that stands for this save, by its tensor hash, alone: ComfyUI keeps what it read of a path.

    Where the name is another LoRA's it gets ~2, ~3 ...
    """
    number, found = 2, stem
    while not ours(folder / f"{found}.safetensors", save):
        found, number = f"{stem}~{number}", number + 1
    left = put(folder, found, made, written)
    return [*left, ", ".join(filter(None, (f"published {folder / found}.safetensors", made.note)))]


def ours(path: Path, save: str) -> bool:
    """True if there is no such file, or it was made of this save."""
    try:
        return not path.exists() or save in (papers(path).get(SOURCE), tensor_hash(path))
    except InputError:
        return False
