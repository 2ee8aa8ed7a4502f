"""NAME.prov.json: read beside a LoRA file and held against it, without the record."""

from __future__ import annotations

import struct
from pathlib import Path

from lorafactory import families, images, manifest
from lorafactory.errors import InputError
from lorafactory.files import read_json
from lorafactory.training.lora_header import tensor_hash


def papers(path: Path) -> dict[str, str]:
    """The metadata of a LoRA file; InputError if it is none."""
    try:
        return dict(families.header(path).get("__metadata__", {}))
    except (ValueError, struct.error, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file ({error}).") from error


def defined(path: Path) -> manifest.Document:
    """What the statement beside a file says it was made of; empty if there is none."""
    found = read_json(path.with_suffix(manifest.SUFFIX)).get("predicate", {}).get("buildDefinition", {})
    return dict(found) if isinstance(found, dict) else {}


def problems(path: Path) -> list[str]:
    """What does not fit between a LoRA file, its own header and the statement beside it."""
    said, beside, tensors = papers(path), path.with_suffix(manifest.SUFFIX), tensor_hash(path)
    found = []
    for key in ("sshs_model_hash", "modelspec.hash_sha256"):
        if said.get(key) and said[key].removeprefix("0x") != tensors:
            found.append(f"{path.name}: its tensors are not those that its header names ({key})")
    if not beside.is_file():
        return found
    told = read_json(beside)
    subjects = told.get("subject") or [{}]
    if told.get("_type") != manifest.STATEMENT or told.get("predicateType") != manifest.PREDICATE:
        return [*found, f"{beside.name}: not an in-toto statement of provenance"]
    if images.sha256(path) not in (s.get("digest", {}).get("sha256") for s in subjects):
        found.append(f"{beside.name} is about another file: the sha256 of {path.name} is {images.sha256(path)}")
    if manifest.digest(defined(path)) != said.get(manifest.KEY):
        found.append(f"{beside.name}: its inputs are not those that the header of {path.name} names")
    return found
