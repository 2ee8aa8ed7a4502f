"""How long steps take, and which one took strangely long."""

from __future__ import annotations

import statistics
from collections import deque

STRANGE = 5.0
"""Times the median at which a step is worth a word."""
WARM = 8
"""Steps before anything is usual."""


class Pace:
    """The latest steps' seconds."""

    def __init__(self, window: int = 50) -> None:
        self.seconds: deque[float] = deque(maxlen=window)

    def took(self, seconds: float) -> str:
        """Take note of a step; a sentence if it took over STRANGE times the median of those before, else nothing."""
        usual = statistics.median(self.seconds) if len(self.seconds) >= WARM else 0.0
        self.seconds.append(seconds)
        if not usual or seconds <= STRANGE * usual:
            return ""
        return f"took {seconds:.1f} s, {seconds / usual:.0f} times the usual {usual:.2g} s"
