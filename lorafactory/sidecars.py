"""Captions that came with a picture: a text beside it, or its line in a Hugging Face `metadata.jsonl`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from lorafactory.errors import InputError

CAPTIONS = (".txt", ".caption")
LIST = "metadata.jsonl"
"""One JSON object per line, with `file_name` relative to the list's folder."""
COLUMNS = ("text", "caption", "prompt")
"""What a list's caption may be called; the first one that is there counts."""


class NotText(InputError):  # noqa: N818  (said of a file, not of the program)
    """A text that is not UTF-8."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not UTF-8 text: save it again as UTF-8")
        self.path = path


def caption_beside(original: Path, top: Path | None = None) -> str | None:
    """The text that came with an original and says something; None if there is none.

    Lists are looked for from the original's folder up to `top`. NotText if the text beside it is not UTF-8, another
    InputError if a list cannot be read, as all captions hang on that.
    """
    for suffix in CAPTIONS:
        path = original.with_suffix(suffix)
        if path.is_file() and (text := read(path).strip()):
            return text
    return listed(original, top or original.parent)


def listed(original: Path, top: Path) -> str | None:
    """The caption that the nearest list above an original has for it."""
    for folder in original.parents:
        path = folder / LIST
        if path.is_file():
            return captions_in(path, path.stat().st_mtime_ns).get(original.relative_to(folder).as_posix())
        if folder == top:
            break
    return None


@lru_cache(maxsize=64)
def captions_in(path: Path, changed_ns: int) -> dict[str, str]:
    """File name to caption; `changed_ns` makes a list that was written anew be read anew."""
    found = {}
    try:
        lines = read(path).splitlines()
    except NotText as error:
        raise InputError(str(error)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON; mend it, or move the file away") from error
        text = next((row[c] for c in COLUMNS if row.get(c)), None) if isinstance(row, dict) else None
        if isinstance(text, str) and text.strip() and isinstance(row.get("file_name"), str):
            found[row["file_name"].replace("\\", "/").removeprefix("./")] = text.strip()
    return found


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotText(path) from error
