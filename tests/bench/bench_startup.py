"""How long `lora --help` takes, in interpreter starts: what a person feels at every command."""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 7


def seconds(arguments: list[str]) -> float:
    """The fastest of several starts."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    bare = seconds(["-c", "pass"])
    for name, arguments in {
        "lora --help": ["-m", "lorafactory", "--help"],
        "lora caption --help": ["-m", "lorafactory", "caption", "--help"],
    }.items():
        took = seconds(arguments)
        print(f"{name:22} {took * 1000:6.0f} ms   {took / bare:5.1f} interpreter starts")


if __name__ == "__main__":
    main()
