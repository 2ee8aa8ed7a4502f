"""Everything that went into a training, as one document; and the part of it that travels with the LoRA.

The manifest is the record's: it has the captions and the names of the pictures, so a training can be done again from
it. What travels is `definition`: hashes instead of names and words, no path, nobody's name. It is the
`buildDefinition` of NAME.prov.json, an in-toto statement with an SLSA provenance predicate (slsa.dev/provenance/v1),
and the sha256 of its canonical JSON is `lorafactory.manifest` in the LoRA's header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lorafactory import __version__
from lorafactory.recording import canonical_json

KEY = "lorafactory.manifest"
"""In a LoRA file: the sha256 of its `definition`."""
SUFFIX = ".prov.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:lorafactory:train:v1"
Document = dict[str, Any]
TABLES = ("from", "trigger", "kind", "class", "settings", "version", "precision", "threads", "device", "environment")
"""In which order they matter, after base and pictures."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest(document: Mapping[str, Any]) -> str:
    """Sha256 of the canonical JSON."""
    return sha256(canonical_json(document))


def definition(manifest: Document) -> Document:
    """What of a manifest travels: nothing in it says who, where, or what a picture shows."""
    base, begins = manifest["base"], manifest["from"]
    materials = [material("base", base["sha256"], family=base["family"], prediction=base["prediction"])]
    materials += [material("vae", base["vae_sha256"])] if base["vae_sha256"] else []
    materials += [material("lora", begins["sha256"])] if begins["sha256"] else []
    for picture in manifest["pictures"]:
        told = {key: picture[key] for key in ("repeats", "reg", "mask_sha256", "crop") if picture.get(key)}
        materials.append(material("picture", picture["sha256"], caption_sha256=sha256(picture["caption"]), **told))
    return {
        "buildType": BUILD,
        "externalParameters": {key: manifest[key] for key in ("settings", "trigger", "kind", "class")},
        "internalParameters": {
            **{key: manifest[key] for key in ("version", "precision", "threads", "device", "environment")},
            "from": {key: value for key, value in begins.items() if key != "sha256"},
        },
        "resolvedDependencies": materials,
    }


def material(name: str, sha256: str, **annotations: object) -> Document:
    """One input, as an in-toto resource descriptor."""
    return {"name": name, "digest": {"sha256": sha256}, **({"annotations": annotations} if annotations else {})}


def statement(
    name: str, sha256: str, tensors: str, defined: Document, started: str | None, finished: str | None
) -> Document:
    """The in-toto statement about one LoRA file; `tensors` is the tensor hash of the save that it was made of."""
    times = {"startedOn": started, "finishedOn": finished}
    builder = {"id": "urn:lorafactory", "version": {"lorafactory": __version__}}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}, "annotations": {"save": tensors}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": defined,
            "runDetails": {"builder": builder, "metadata": {k: v for k, v in times.items() if v}},
        },
    }


# ---------------------------------------------------------------- two of them


def difference(one: Document, other: Document) -> tuple[str, str, str] | None:
    """The first input in which two trainings differ: what, here, there; None if all are the same.

    The base comes first, then pictures and captions, then settings; what the machine was comes last. Two manifests
    are compared, or two definitions.
    """
    ours, theirs = dict(flat(one)), dict(flat(other))
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        here, there = ours.get(key, "-"), theirs.get(key, "-")
        if here != there:
            return key, here, there
    return None


def flat(document: Document) -> Iterator[tuple[str, str]]:
    """A manifest, or a definition, as named values in the order in which they matter."""
    if "resolvedDependencies" in document:
        numbers: dict[str, int] = {}
        for item in document["resolvedDependencies"]:
            numbers[item["name"]] = numbers.get(item["name"], 0) + 1
            told = {"sha256": item["digest"]["sha256"], **item.get("annotations", {})}
            yield from (_pair(f"{item['name']} {numbers[item['name']]}", key, value) for key, value in told.items())
        tables = {**document["externalParameters"], **document["internalParameters"]}
    else:
        yield from (_pair("base", key, value) for key, value in document["base"].items() if key != "asked")
        for picture in document["pictures"]:
            yield from (_pair(picture["name"], key, value) for key, value in picture.items() if key != "name")
        tables = document
    for table in TABLES:
        values = tables.get(table)
        pairs = list(values.items()) if isinstance(values, dict) else [("", values)]
        pairs.sort(key=lambda pair: pair[0] != "sha256")
        yield from (_pair(table, key, value) for key, value in pairs)


def _pair(what: str, key: str, value: object) -> tuple[str, str]:
    told = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return f"{what}: {key}" if key else what, told
