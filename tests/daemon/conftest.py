"""The tests of the daemon write in memory where the system has a folder for that: waiting for disks tests nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dropped import MEMORY
from zygote import Zygote


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    place = tempfile.mkdtemp(prefix="lorafactory-test-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    yield Path(place)
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """What forks the processes that are killed."""
    if sys.platform != "linux":
        pytest.skip("processes are forked and traced as Linux does")
    zygote = Zygote(tmp_path_factory.mktemp("zygote") / "log")
    yield zygote
    zygote.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many MB: no quota and no pretended call would stop SQLite's own writes."""
    with ExitStack() as mounts:

        def mounted(size: int) -> Path:
            root, mount = tmp_path / "disk", shutil.which("mount")
            root.mkdir()
            if sys.platform != "linux" or os.geteuid() or not mount:
                pytest.skip("a tmpfs can only be mounted by root on Linux")
            told = [mount, "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(root)]
            if subprocess.run(told, check=False, capture_output=True).returncode:
                pytest.skip("mounting a tmpfs is not allowed here")
            mounts.callback(subprocess.run, ["umount", "-l", str(root)], check=True)
            return root

        yield mounted
