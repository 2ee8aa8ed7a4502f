"""The header of a LoRA file and the hashes in it: bytes in, bytes out, without torch.

A header is written with sorted keys, so the same contents give the same bytes. *Tensor hash* (`sshs_model_hash`) is
the sha256 of what follows the header: it says whether two files change a base alike, whatever their labels. The
hashes are those of sd-scripts (`library/train_util.py: precalculate_safetensors_hashes`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from lorafactory.errors import InputError

LEGACY_WINDOW = slice(0x100000, 0x110000)


def split(data: bytes) -> tuple[dict[str, object], bytes]:
    """Take a file apart: its header, and the tensors' bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def assemble(header: Mapping[str, object], metadata: Mapping[str, str], body: bytes) -> bytes:
    """Put a file together from the tensors' entries, the metadata, to which the hashes are added, and their bytes."""
    digest = hashlib.sha256(body).hexdigest()
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    legacy = hashlib.sha256(_join(header, training, body)[LEGACY_WINDOW]).hexdigest()[:8]
    hashes = {"sshs_model_hash": digest, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{digest}"}
    return _join(header, {**metadata, **hashes}, body)


def _join(header: Mapping[str, object], metadata: Mapping[str, str], body: bytes) -> bytes:
    """The library writes metadata in no fixed order; here it is sorted."""
    text = json.dumps({**header, "__metadata__": dict(metadata)}, sort_keys=True, separators=(",", ":"))
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + body


def relabelled(path: Path, labels: Mapping[str, str]) -> bytes:
    """A LoRA file as it is, tensors byte for byte, with these labels added to its metadata or in place of its own."""
    header, body = split(path.read_bytes())
    own = header.get("__metadata__")
    return assemble(header, {**(own if isinstance(own, dict) else {}), **labels}, body)


def legacy_hash(path: Path) -> str:
    """A model file's old short hash, of 64 KiB in its middle (sd-scripts `library/train_util.py: model_hash`)."""
    with path.open("rb") as file:
        file.seek(LEGACY_WINDOW.start)
        return hashlib.sha256(file.read(LEGACY_WINDOW.stop - LEGACY_WINDOW.start)).hexdigest()[:8]


def tensor_hash(path: Path) -> str:
    """Sha256 of the file after its header; InputError if it ends before."""
    with path.open("rb") as file:
        start = file.read(8)
        begins = 8 + struct.unpack("<Q", start)[0] if len(start) == 8 else 8
        if path.stat().st_size < begins:
            raise InputError(f"{path}: not a whole .safetensors file.")
        file.seek(begins)
        return hashlib.file_digest(file, "sha256").hexdigest()
