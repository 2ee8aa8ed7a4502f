"""The tests of the daemon write in memory where the system has a folder for that: waiting for disks tests nothing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
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
