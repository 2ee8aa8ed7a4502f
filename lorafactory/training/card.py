"""What nvidia-smi tells of the graphics card; without torch, which may not be able to use it."""

from __future__ import annotations

import os
import shutil
import subprocess


def nvidia_smi(*query: str) -> list[list[str]]:
    """Answer of nvidia-smi as rows of values; none where it is not installed or does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, *query, "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[value.strip() for value in line.split(",")] for line in told.splitlines()]


def others() -> str:
    """Name other programs on the card and their megabytes, in a sentence; Windows does not tell how many."""
    told = []
    for pid, *name, used in (row for row in nvidia_smi("--query-compute-apps=pid,process_name,used_memory") if row[2:]):
        if pid.isdigit() and int(pid) != os.getpid():
            program = ",".join(name).replace("\\", "/").rpartition("/")[2]
            told.append(f"{program} ({used} MB)" if used.isdigit() else program)
    return f" Also on the card: {', '.join(told)}." if told else ""
