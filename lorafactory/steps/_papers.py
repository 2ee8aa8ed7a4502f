"""What a training writes down of itself: its LoRA files, and the manifest of all that went into them."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafactory import images, manifest
from lorafactory.files import write_whole
from lorafactory.manifest import Document
from lorafactory.recording import canonical_json, environment
from lorafactory.step import Work, is_neutral, model_identity
from lorafactory.steps import _begin
from lorafactory.steps._begin import Beginning
from lorafactory.training.lora_header import tensor_hash
from lorafactory.training.plan import Example, Plan
from lorafactory.training.saves import AVERAGE, Point, label, stem
from lorafactory.workspace import identity, schedule

if TYPE_CHECKING:
    from lorafactory.families import Base
    from lorafactory.training.loop import Save

PATHS = ("from_lora", "sample_prompts")
"""Settings that name files: what is in them counts, not where they are."""


def define(work: Work, s: Any, base: Base, beginning: Beginning, shown: list[Example]) -> str:
    """Write the manifest into the log; return the hash of its definition, which every save bears."""
    made = of(work, s, base, beginning, shown)
    path = path_of(work, beginning)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (canonical_json(made) + "\n").encode())
    return manifest.digest(manifest.definition(made))


def path_of(work: Work, beginning: Beginning) -> Path:
    """A training that goes on with another has a manifest beside the other's."""
    return _begin.log_of(work) / f"manifest-{beginning.source.step:08}.json"


def of(work: Work, s: Any, base: Base, beginning: Beginning, shown: list[Example]) -> Document:
    """Everything that went into a training."""
    header, models, fields = work.recipe.header, work.models, type(s).model_fields
    settings = {k: v for k, v in s.model_dump(mode="json").items() if not is_neutral(fields[k]) and k not in PATHS}
    return {
        "version": 1,
        "lora": work.place.name,
        "base": {
            "asked": header.base,
            "sha256": model_identity(work, "base"),
            "family": base.family,
            "vae_sha256": identity(work.workspace, models.vae) if models.vae else "",
            "prediction": models.prediction or "",
            "schedule": schedule(models.base) if models.base else "",
        },
        "from": begun_from(work, beginning),
        "pictures": [picture(example) for example in shown],
        "trigger": work.trigger,
        "kind": header.kind,
        "class": header.class_,
        "settings": settings,
        "threads": beginning.threads,
        "precision": asdict(beginning.decided),
        "device": device(beginning.decided.device),
        "environment": environment_of(),
    }


def begun_from(work: Work, beginning: Beginning) -> Document:
    """The LoRA that a training goes on from, by its content."""
    source = beginning.source
    path = work.place.result / source.file if source.more else Path(source.file).expanduser()
    sha = images.sha256(path) if source.file else ""
    return {"sha256": sha, "epoch": source.epoch, "step": source.step, "more": source.more}


def picture(example: Example) -> Document:
    return {
        "name": example.name,
        "sha256": example.sha256,
        "caption": example.caption,
        "repeats": example.repeats,
        "reg": example.reg,
        "mask_sha256": images.sha256(example.mask) if example.mask else "",
        "crop": list(example.crop) if example.crop else None,
    }


def environment_of() -> Document:
    found: Document = json.loads(environment())
    return found


def device(kind: str) -> Document:
    """What computed: the card and its CUDA, or the kind of processor."""
    import torch

    if kind == "cuda":
        return {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {"name": platform.machine(), "cuda": None}


def record(work: Work, beginning: Beginning, saves: list[Path]) -> None:
    """Put the manifest, what memory made of the plan and the tensor hashes that came out into the record."""
    path = path_of(work, beginning)
    if not path.is_file():  # begun by an earlier version
        return
    made = json.loads(path.read_text(encoding="utf-8"))
    defined = canonical_json(manifest.definition(made))
    work.note.kept("manifest", manifest.sha256(defined), canonical_json(made))
    work.note.kept("definition", "train", defined)
    hashes = {path.name: tensor_hash(path) for path in saves}
    came = {"means": beginning.keeper.plan.get("means"), "saves": hashes}
    work.note.kept("plan", "plan.json", canonical_json(came))
    if begins := made["from"]["sha256"]:
        work.note.used("continued", "LoRA", begins)


def write_save(
    work: Work, s: Any, base: Base, save: Save, shown: list[Example], counted: Plan, started: float, defined: str
) -> list[Path]:
    """Write one LoRA file, with kohya's names and papers and the hash of what it was made of, and its average.

    Returns their paths.
    """
    from lorafactory.training import lora_file
    from lorafactory.training.metadata import metadata

    point = Point(save.epoch, save.step)
    path = work.place.result / f"{stem(work.place.name, point, ends_epoch=save.ends_epoch)}.safetensors"
    header, models = work.recipe.header, work.models
    files = {name: file for name, file in (("base", models.base), ("vae", models.vae)) if file and file.is_file()}
    papers = metadata(
        name=work.place.name,
        label=label(point, ends_epoch=save.ends_epoch),
        about=f"{header.kind}, {header.class_}" if header.class_ else header.kind,
        files=files,
        vae_sha256=identity(work.workspace, models.vae) if models.vae else "",
        base=base,
        examples=shown,
        settings=s,
        plan=counted,
        save=save,
        trigger=work.trigger,
        base_sha256=model_identity(work, "base"),
        started=started,
        finished=time.time(),
    )
    papers[manifest.KEY] = defined
    lora_file.write(path, save.tensors, papers, dtype=s.save_dtype)
    if save.average is None:
        return [path]
    average = path.with_name(f"{path.stem}{AVERAGE}.safetensors")
    papers["ss_training_comment"] += f"; EMA {s.ema_decay:g}"
    lora_file.write(average, save.average, papers, dtype=s.save_dtype)
    return [path, average]
