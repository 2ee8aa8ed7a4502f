"""What is in a complete drop: read whole, unpacked, its settings understood; or refused, with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from lorafactory import dataset, images, sidecars, unzip
from lorafactory.daemon import request, stability
from lorafactory.daemon.moving import remove
from lorafactory.daemon.quarantine import Refused
from lorafactory.daemon.request import Request
from lorafactory.daemon.stability import MANIFEST, MOST_FILES, Tree
from lorafactory.errors import InputError

UNPACKED = ".unpacked"
"""Folder beside a claimed zip."""
REFUSED = {
    "symlink": "It has links, which are not followed: put the files themselves there.",
    "hard_link": "It has files with a second name elsewhere (hard links): put copies there.",
    "special_file": "It has pipes, sockets or devices, which are no files.",
}


def read(payload: Path, home: Path, tree: Tree, recipes: Collection[str]) -> tuple[str, Path, Request]:
    """sha256 of all that a drop is, the folder of its pictures, and what it asks for; Refused if it cannot be used.

    `recipes` are the names of those that it may choose.
    """
    for kind, sentence in REFUSED.items():
        if files := [e.path or payload.name for e in tree if e.kind == kind]:
            raise Refused(kind, sentence, files)
    if len(tree) > MOST_FILES:
        raise Refused("too_many_files", f"It has more than {MOST_FILES} files.")
    sha256 = fingerprint(payload, tree)
    if payload.is_dir() and (payload / MANIFEST).is_file() and (lacks := stability.missing(payload)):
        raise Refused("manifest_mismatch", f"{len(lacks)} files of {MANIFEST} are missing or have other bytes.", lacks)
    folder = payload if payload.is_dir() else unpack(payload, home)
    asked = request.read(folder, recipes)
    examine(folder, asked)
    return sha256, folder, asked


def fingerprint(payload: Path, tree: Tree) -> str:
    """sha256 of the names and bytes of all files of a drop."""
    sums = [f"{stability.sha256(payload / e.path)}  {e.path}" for e in tree if e.kind == "file"]
    return hashlib.sha256("\n".join(sums).encode(errors="surrogateescape")).hexdigest()


def unpack(payload: Path, home: Path) -> Path:
    """Unpack a zip beside itself; what an earlier attempt left there goes. The one folder around all is no subset."""
    folder = home / UNPACKED
    remove(folder)
    folder.mkdir()
    try:
        unzip.unpack(payload, folder)
    except unzip.NotTaken as error:
        sentence = {
            "archive_broken": "The zip cannot be unpacked: pack it again.",
            "archive_encrypted": "The zip is locked with a password: pack it without one.",
            "bomb": "The zip unpacks to more than pictures do; if you trust it, drop the unpacked folder.",
            "archive_unsafe": "The zip has what no set of pictures has; if you trust it, drop the unpacked folder.",
        }
        raise Refused(error.code, sentence[error.code], error.wrong) from error
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        if dataset.subset_of(inside[0]) or inside[0].name in (dataset.REG, dataset.IMG):
            break
        folder = inside[0]
    return folder


def examine(folder: Path, asked: Request) -> None:
    """Refuse what no training can begin with."""
    pictures = images.find_sources(folder)
    if not pictures and not asked.draws:
        raise Refused(
            "no_images", "There is no picture in it (jpg, png, webp, ... are looked for, also in subfolders)."
        )
    if pictures and not any(map(stability.decodes, pictures)):
        broken = [str(p.relative_to(folder)) for p in pictures]
        raise Refused("undecodable", "None of its pictures can be read.", broken)
    try:
        for path in pictures:
            sidecars.listed(path, folder)
    except InputError as error:
        raise Refused(
            "bad_captions", f"Its list of captions cannot be read: {str(error).replace(str(folder), '')}."
        ) from error
