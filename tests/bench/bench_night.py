"""What does a night cost beside the work? Its wall time over the seconds inside the steps, by the record: at most 1.15.

Good sets of drawings are made on the pocket's base by `lora overnight`, one after another in one worker that keeps the
base; so what is left over is copying, claiming, starting the worker, and what lies between two jobs. A set of its own
tells before how many steps it takes to be at work for so long.

    .venv/bin/python tests/bench/bench_night.py
    .venv/bin/python tests/bench/bench_night.py --drops 2 --seconds 10       a quick look
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lorafactory import images
from lorafactory.chain import CHAIN
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.store import Store
from lorafactory.workspace import Workspace

WANTED = 1.15
PICTURES, FIRST = 4, 50
"""Of a set; and repeats of each, in one epoch of batches of one, to tell how long a step takes."""
CONFIG = """
base = "pocket"
kind = "object"
class = "star"
[caption]
text = "{{trigger}}, a star"
[repeats]
policy = {repeats}
[train]
epochs = 1
batch = 1
[compare]
seeds = [1, 2]
[watch]
free_gb = 0
"""


def draw(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{number}.png")


def night(drops: int, repeats: int) -> tuple[float, list[float]]:
    """Wall seconds of a night, and those inside the steps of each LoRA."""
    with tempfile.TemporaryDirectory() as place:
        space, sets = Workspace(Path(place, "ws"), "bench"), Path(place, "sets")
        space.root.mkdir()
        space.config_path.write_text(CONFIG.format(repeats=repeats), encoding="utf-8")
        for number in range(drops):
            draw(sets / f"set{number}", number)
        command = [sys.executable, "-m", "lorafactory", "overnight", str(sets), "--workspace", str(space.root)]
        began = time.perf_counter()
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        wall = time.perf_counter() - began
        with Store(space.record, readonly=True) as store:
            runs = [run for run in store.runs(limit=100 * drops) if run.step in CHAIN]
        made = [run.lora for run in runs if run.step == "pick" and run.status == "done"]
        assert sorted(made) == sorted(p.name for p in sets.iterdir()), said.stdout + said.stderr
        work = [sum(run.wall_s or 0.0 for run in runs if run.lora == lora) for lora in made]
        return wall, work


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--drops", type=int, default=4)
    asked.add_argument("--seconds", type=float, default=40.0, help="of pure work that each takes at least")
    told = asked.parse_args()
    busy = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    repeats, (wall, work) = FIRST, night(1, FIRST)
    while len(work) < told.drops or min(work) < told.seconds:
        repeats = math.ceil(1.1 * repeats * max(told.seconds / min(work), 1.1))
        wall, work = night(told.drops, repeats)
    print(
        f"{told.drops} sets of {PICTURES} pictures x {repeats} repeats, {busy}: {min(work):.0f} s of work or more each"
    )
    print(f"  {wall:.0f} s in all, {sum(work):.0f} s inside the steps: {wall / sum(work):.3f} (at most {WANTED})")
    print(f"  beside the work {(wall - sum(work)) / told.drops:.1f} s a set")


if __name__ == "__main__":
    main()
