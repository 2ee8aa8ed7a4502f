"""Keep the machine awake while there is work. A machine that sleeps loses no work, only the night."""

from __future__ import annotations

import ctypes
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

WAIT = 10.0
"""Seconds in which the system's tool has to answer."""
CONTINUOUS, SYSTEM = 0x80000000, 0x00000001
"""ES_CONTINUOUS and ES_SYSTEM_REQUIRED of Windows' SetThreadExecutionState."""
LINUX = ("systemd-inhibit", "--what=idle:sleep", "--who=lorafactory", "--why=a LoRA is being made", "--mode=block")
MACOS = ("caffeinate", "-i", "-s")
NOT_KEPT = "the machine is not kept awake"


@contextmanager
def awake() -> Iterator[str]:
    """Ask the system not to sleep until the block ends; yields in words whether it will. Raises nothing."""
    if sys.platform == "win32":
        with _of_thread(ctypes.windll.kernel32) as told:
            yield told
    else:
        with _held_by(MACOS if sys.platform == "darwin" else LINUX) as told:
            yield told


@contextmanager
def _of_thread(kernel: Any) -> Iterator[str]:
    """Windows: this thread says that the system is needed."""
    kept = kernel.SetThreadExecutionState(CONTINUOUS | SYSTEM)
    try:
        yield "the machine is kept awake meanwhile" if kept else f"{NOT_KEPT}: Windows refuses"
    finally:
        kernel.SetThreadExecutionState(CONTINUOUS)


@contextmanager
def _held_by(command: tuple[str, ...]) -> Iterator[str]:
    """The system's tool holds it awake while it runs `cat`, so until our end of the pipe closes, even if we die."""
    if shutil.which(command[0]) is None:
        yield f"{NOT_KEPT}: there is no {command[0]}"
        return
    with subprocess.Popen(
        [*command, "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # what could not be written is not tried again at the end
        start_new_session=True,  # out of reach of Ctrl-C, and without a terminal to ask for a password on
    ) as process:
        try:
            kept = _answers(process)
            yield f"the machine is kept awake meanwhile ({command[0]})" if kept else f"{NOT_KEPT}: {command[0]} refuses"
        finally:
            process.terminate()


def _answers(process: subprocess.Popen[bytes]) -> bool:
    """True if what is written comes back: `cat` runs, so the system has agreed."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):
        process.stdin.write(b"\n")
        ready, _, _ = select.select([process.stdout], [], [], WAIT)
        return bool(ready and process.stdout.readline())
    return False
