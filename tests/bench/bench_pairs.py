"""What finding all near pairs costs over one blocked matrix product of the same size, and the memory it takes.

10 000 pictures against the product; 50 000 for memory alone, in a process of its own.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import time

import numpy as np
import psutil

from lorafactory.steps._looks import Look
from lorafactory.steps._pairs import BLOCK, Pairs, Thresholds, calibrated, stars

WIDTH = 512


def looks(count: int, rng: np.random.Generator) -> list[Look]:
    """Pictures that differ in everything, and one in fifty that is a copy of another to the hash."""
    made = []
    for i in range(count):
        if i % 50 == 1:
            made.append(made[-1])
            continue
        bits, mirror = (int(n) for n in rng.integers(0, 2**63, 2))
        thumb = base64.b64encode(rng.integers(0, 255, 3072, dtype=np.uint8).tobytes()).decode()
        made.append(Look(str(i), 512, 512, bits, mirror, thumb, 0.8, 0.0, 0.1, 0.9, 0.9, 0.5))
    return made


def vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def search(count: int) -> tuple[float, float]:
    """Seconds for one product in blocks, and for the whole search."""
    rng = np.random.default_rng(0)
    rows, found = vectors(count, rng), looks(count, rng)
    began = time.perf_counter()
    for start in range(0, count, BLOCK):
        rows[start : start + BLOCK] @ rows.T
    product = time.perf_counter() - began
    began = time.perf_counter()
    pairs = Pairs(found, rows, Thresholds(4, 10, calibrated(rows)))
    taken = stars(pairs, range(count), set(), set(), lambda i, near: None)
    took = time.perf_counter() - began
    assert len(taken) >= count // 50 - 1, "the copies are found"
    return product, took


def main() -> None:
    best = min((search(10_000) for _ in range(3)), key=lambda pair: pair[1] / pair[0])
    print(f"10 000 x {WIDTH}: {best[1]:.1f} s, {best[1] / best[0]:.2f} x one blocked product ({best[0]:.1f} s)")
    large = subprocess.run([sys.executable, __file__, "50000"], check=True, capture_output=True, text=True)
    print(large.stdout, end="")


def alone(count: int) -> None:
    """One search, and the most memory that this process held."""
    product, took = search(count)
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", 0)  # Windows
    if not peak:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(
        f"{count:,} x {WIDTH}: {took:.0f} s, {took / product:.2f} x one blocked product, {peak / 2**30:.2f} GB at most"
    )


if __name__ == "__main__":
    alone(int(sys.argv[1])) if len(sys.argv) > 1 else main()
