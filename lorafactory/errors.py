"""What can go wrong, said so that a person knows what to do next; and the only place that knows exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DONE, BUG, USAGE, NEEDS_YOU, NO_SAVE_PASSES, FAILED, STOPPED = 0, 1, 2, 3, 4, 5, 75


class LoraError(Exception):
    """Root of all errors that are shown as a message, never as a traceback."""

    exit_code = BUG


class SettingsError(LoraError):
    """A recipe, an option or a name that cannot be meant."""

    exit_code = USAGE


class InputError(LoraError):
    """Pictures or files that a person has to bring or mend."""

    exit_code = NEEDS_YOU


class BaseError(InputError):
    """No base model, or one that cannot be used."""


class RecordError(InputError):
    """The record (lorafactory.db) cannot be used as it is."""


class NoSavePasses(LoraError):  # noqa: N818  (an outcome rather than a fault)
    """The chain finished, and no save passed the verdict's gates."""

    exit_code = NO_SAVE_PASSES


class FailedError(LoraError):
    """Work broke off; trying again may help."""

    exit_code = FAILED


class PassingError(FailedError):
    """What is in the way goes by itself, such as another command at work in the same folder."""


class DiskFull(PassingError):  # noqa: N818
    """The disk has no room for what comes next; once it has, the same goes on."""


class OutOfMemory(FailedError):  # noqa: N818  (said of the machine)
    """Neither the card nor the machine has the memory that the work needs."""


@dataclass(frozen=True)
class Problem:
    """One finding of a check: what is wrong with which file, and what to type."""

    message: str
    fix: str = ""
    fatal: bool = True
    error: type[LoraError] = InputError
    """The kind of error if this ends the command."""

    def __str__(self) -> str:
        return f"{self.message}\n    {self.fix}" if self.fix else self.message


def raise_all(problems: Iterable[Problem]) -> None:
    """Raise one error that lists every fatal problem; do nothing if there is none."""
    fatal = [p for p in problems if p.fatal]
    if not fatal:
        return
    kind = min((p.error for p in fatal), key=lambda error: error.exit_code)
    if len(fatal) == 1:
        raise kind(str(fatal[0]))
    raise kind("\n".join([f"{len(fatal)} things are in the way:", *(f"  - {p}" for p in fatal)]))
