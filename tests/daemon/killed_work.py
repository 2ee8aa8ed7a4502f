"""What is killed and begun again, of the work that needs no torch: jobs for the zygote, each with its workspace."""

from __future__ import annotations

from pathlib import Path

from dropped import Desk

from lorafactory import options, settings
from lorafactory.step import Work
from lorafactory.steps import pick
from lorafactory.workspace import Workspace


def take(root: str) -> None:
    """Claim what is in the inbox and bring it to where it belongs."""
    desk = Desk(Path(root))
    for _ in range(2):  # what was copied when it died settles once more
        desk.settled()
    desk.store.close()


def publish(root: str) -> None:
    """What `lora pick anna` does."""
    space = Workspace(Path(root), "a test")
    place = space.lora("anna")
    work = Work(space, place, settings.effective(space, place))
    options.in_lock(pick, work, pick.Settings(), force=False)
