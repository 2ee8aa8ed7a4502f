"""The tests of the daemon write in memory where the system has a folder for that: waiting for disks tests nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dropped import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    place = tempfile.mkdtemp(prefix="lorafactory-test-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    yield Path(place)
    shutil.rmtree(place)
