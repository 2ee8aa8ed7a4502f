"""What went into a training, as the record and the files tell it; for `why`, `reproduce` and `revoke`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafactory import images, manifest
from lorafactory.commands import _statement
from lorafactory.commands._called import lora_called
from lorafactory.commands._statement import papers
from lorafactory.store import Decision, Store, tidy
from lorafactory.workspace import Workspace


@dataclass(frozen=True)
class Made:
    """What went into a training."""

    run: str
    """Its public id."""
    lora: str
    status: str
    started_at: str
    hours: float | None
    retries: int
    manifest: dict[str, Any]
    """Base, pictures with captions and repeats, settings, machine; empty of a training before there were manifests."""
    begins: str
    """LoRA and file that it went on from; empty if it began anew, or if the record does not know it."""
    writers: dict[str, str]
    """Picture to who wrote its caption: a captioner, `by hand`, ...; none where it has no words but the trigger."""
    excluded: list[Decision]
    """What is not in the set now, and what took it out."""
    revoked: bool


def made(store: Store, lora: str, run_id: int | None = None) -> Made | None:
    """What a LoRA's newest training that is over, or this one, was made of."""
    rows = [row for row in store.ask("lora", lora=tidy(lora)) if row["run_id"] == run_id or run_id is None]
    row = next((row for row in rows if row["definition"]), rows[0] if rows else None)
    if row is None:
        return None
    found = manifest_in(store, row["run_id"])
    names, begins = {p["name"] for p in found.get("pictures", [])}, found.get("from", {}).get("sha256", "")
    writers = store.ask("captions", lora=tidy(lora), run_id=row["run_id"])
    return Made(
        run=row["run"],
        lora=lora,
        status=row["status"],
        started_at=row["started_at"],
        hours=row["hours"],
        retries=store.ask("retries", lora=tidy(lora))[0]["retries"],
        manifest=found,
        begins=next((f"{where}/{n}" for where, n in store.places(begins) if n.endswith(".safetensors")), ""),
        writers={w["image"]: w["rule"] for w in writers if w["image"] in names},
        excluded=excluded(store, lora),
        revoked=bool(row["revoked"]),
    )


def manifest_in(store: Store, run_id: int) -> manifest.Document:
    """The manifest of a training; empty if it has none."""
    rows = store.ask("kept", run_id=run_id, role="manifest")
    return dict(json.loads(rows[0]["text"])) if rows else {}


def training_of(store: Store, path: Path, said: Mapping[str, str]) -> tuple[str, int] | None:
    """LoRA and run of the training that a file is of: by what it was made of, or as one of its saves."""
    for sha in (said.get(manifest.KEY, ""), images.sha256(path)):
        for row in store.ask("trained", sha256=sha):
            return row["lora"], row["run_id"]
    return None


def excluded(store: Store, lora: str) -> list[Decision]:
    """For each picture that is out now, what took it out. It is in if put back, or if a later run saw it."""
    return [Decision(**row) for row in store.ask("excluded", lora=tidy(lora))]


def inputs(store: Store | None, space: Workspace, thing: str) -> manifest.Document:
    """What went into a LoRA, by its name or by a file: from the record, else from the statement beside the file."""
    path = Path(thing).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        run = training_of(store, path, papers(path)) if store else None
        found = manifest_in(store, run[1]) if store and run else {}
        return found or _statement.defined(path)
    lora = lora_called(store, space, thing) if store else None
    known = made(store, lora) if store and lora else None
    return known.manifest if known else {}
