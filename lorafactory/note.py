"""How a step records: decisions about pictures, files read and written, numbers; all into the row of its run."""

from __future__ import annotations

from pathlib import Path

from lorafactory import images
from lorafactory.dataset import Picture
from lorafactory.recording import Run


class Note:
    """Writes into the run row: the only way a step records."""

    def __init__(self, run: Run | None) -> None:
        self._run = run

    def __call__(
        self,
        picture: Picture,
        verdict: str,
        rule: str,
        *,
        score: float | None = None,
        threshold: float | None = None,
        rival: Picture | None = None,
        before: str | None = None,
        after: str | None = None,
        why: str | None = None,
    ) -> None:
        """Record a decision about a picture that is still where `picture.path` says."""
        if self._run is None:
            return
        other = (rival.name, rival.sha256) if rival else (None, None)
        self._run.note(
            picture.name,
            picture.sha256,
            verdict,
            rule,
            score=score,
            threshold=threshold,
            rival=other[0],
            rival_sha256=other[1],
            before=before,
            after=after,
            note=why,
        )

    def derived(self, made: Path, source: Path, how: str) -> None:
        """Record that the file `made` came from the file `source`."""
        if self._run is not None:
            self._run.derived(images.sha256(made), images.sha256(source), how)

    def used(self, role: str, name: str, sha256: str) -> None:
        """Record a file that the run read, beside what it `sees`."""
        if self._run is not None:
            self._run.used(role, name, sha256)

    def made(self, role: str, path: Path) -> None:
        """Record a file that the run wrote."""
        if self._run is not None:
            self._run.made(role, path.name, images.sha256(path))

    def kept(self, role: str, name: str, text: str) -> None:
        """Record a text that the run wrote, with its words."""
        if self._run is not None:
            self._run.kept(role, name, text)

    def looked(self, picture: Picture, pixels: str, phash: int) -> None:
        """Record what a picture looks like, to know it by that when its file is another."""
        if self._run is not None:
            self._run.looked(picture.sha256, pixels, phash)

    def metric(self, step: int, name: str, value: float) -> None:
        if self._run is not None:
            self._run.metric(step, name, value)
