"""What a captioner says of pictures, remembered by the picture's bytes, the model and what it was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lorafactory import captioners, images
from lorafactory.dataset import Picture
from lorafactory.errors import LoraError
from lorafactory.files import write_whole
from lorafactory.step import Work


@dataclass(frozen=True)
class Teller:
    """A captioner that is asked in one way; loaded only for bytes that it has not seen."""

    work: Work
    name: str
    model: str
    how: Mapping[str, Any]
    batch: int
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a picture to why there is no sentence for it."""

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that a sentence comes from, except the picture."""
        return {"captioner": self.name, "model": captioners.get(self.name).identity(self.model), **self.how}

    def file(self, picture: Picture) -> Path:
        """Where the sentence for this picture is kept."""
        return kept(self.work, json.dumps({**self.key, "picture": picture.sha256}, sort_keys=True))

    def tell(self, pictures: Sequence[Picture]) -> dict[Picture, str]:
        """Return the sentences; pictures for which there is none are in `failed`. A killed run loses one batch."""
        files = {p: self.file(p) for p in pictures}
        told = {p: file.read_text(encoding="utf-8") for p, file in files.items() if file.is_file()}
        unseen = [p for p in pictures if p not in told]
        if unseen:
            files[unseen[0]].parent.mkdir(parents=True, exist_ok=True)
            captioner = captioners.get(self.name).load(self.model)
            chunks = [unseen[i : i + self.batch] for i in range(0, len(unseen), self.batch)]
            for some in self.work.track(chunks, "captioning"):
                for picture, text in self._describe(captioner, some).items():
                    write_whole(files[picture], text.encode())
                    told[picture] = text
        return {p: told[p] for p in pictures if p in told}

    def _describe(self, captioner: captioners.Captioner, pictures: Sequence[Picture]) -> dict[Picture, str]:
        """Describe some pictures at once; if that fails, one by one, to find whose fault it is."""
        try:
            loaded = [images.load(p.path) for p in pictures]
            found = captioner.caption(loaded, batch=self.batch, **self.how)
        except (LoraError, RuntimeError, ValueError) as error:
            if len(pictures) > 1:
                return {p: t for one in pictures for p, t in self._describe(captioner, [one]).items()}
            self.failed[pictures[0].name] = str(error).partition("\n")[0] or type(error).__name__
            return {}
        told = dict(zip(pictures, found, strict=True))
        self.failed.update({p.name: f"{self.name} said nothing" for p, text in told.items() if not text})
        return {p: text for p, text in told.items() if text}


def kept(work: Work, about: str) -> Path:
    return work.workspace.cache / "captions" / f"{hashlib.sha256(about.encode()).hexdigest()}.txt"


def promise(work: Work, about: str, picture: Picture, text: str) -> None:
    """Keep the caption that is about to be written, to know it again if the run is killed before it is recorded."""
    file = kept(work, f"{about} {picture.sha256}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text.encode())


def promised(work: Work, about: str, picture: Picture) -> str | None:
    """The caption that was to be written for these bytes and settings, if there was one."""
    file = kept(work, f"{about} {picture.sha256}")
    return file.read_text(encoding="utf-8") if file.is_file() else None
