"""Is the save that the verdict picks a good one? Twelve trainings of which the truth is known, in the pocket's world.

Three things that the pocket models never saw, each trained too short, right, too long and at twice the rate, with six
saves. The truth about a save is the share of 128 pictures that pass the thing's pixel grader, from prompts and seeds
that the verdict never uses: 64 from the trigger alone, 64 that also have to have the colours that were asked for.

    .venv/bin/python tests/bench/bench_verdict.py --folder .bench

Hours on two cores. What is in the folder already is not done again, so it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from lorafactory import cli, families
from lorafactory.families import Base
from lorafactory.files import write_whole
from lorafactory.pocket import world
from lorafactory.pocket.concepts import CONCEPTS, VIVID, Concept
from lorafactory.pocket.demo import APART, colours
from lorafactory.pocket.grade import see
from lorafactory.scoring.evidence import evidence
from lorafactory.scoring.verdict import Scores, Thresholds, Yardstick, decide
from lorafactory.workspace import find_workspace, model_set

THINGS = ("eyestar", "mug", "fish")
REGIMES = {
    "short": {"policy": 6, "lr": 1.5e-3},
    "right": {"policy": 40, "lr": 1.5e-3},
    "double": {"policy": 40, "lr": 3e-3},
    "long": {"policy": 64, "lr": 1.5e-3},
}
"""Repeats: 20 pictures x repeats x 6 epochs / batch 4 are 180, 1200 and 1920 steps. The rate stays as it is, as with
sd-scripts where nothing is said: saves differ more than at the end of a cosine, and the last is the best by chance."""
SAVES, SEED, EACH = 6, 11, 64
STEPS = 12
TRIGGER = "d3mo"
ALONE = (
    *("{trigger}, a {class}", "{trigger}, a large {class}", "a {class}, {trigger}", "a large {class}, {trigger}"),
    *("a {trigger} {class}", "a large {trigger} {class}", "{trigger} {class}", "a large {trigger}"),
)
TOLD = "{{trigger}}, a large {} {{class}} in front of a plain {} background"
PLAIN = ("white", "black", "gray")
PAIRS = (
    *colours()[1][8:],
    *((c, b) for b in PLAIN for c in VIVID if math.dist(world.COLOURS[c], world.COLOURS[b]) > APART),
)
"""On grounds on which these colours are neither in the set nor in the truth."""
ASKED = PAIRS[::2]
PROMPTS = (*ALONE, *(TOLD.format(*pair) for pair in ASKED))
"""Half without colours, as half of the truth, but in other words than there; many, as a save can be lucky with one."""
SEEDS = range(1, 17)
"""More than the budget is good for: what drops out leaves it to those that are still in."""


@dataclass(frozen=True)
class Run:
    thing: Concept
    regime: str
    folder: Path
    seed: int
    """Of the training, and of its pictures."""

    @property
    def name(self) -> str:
        return f"{self.thing.name}-{self.regime}"

    @property
    def place(self) -> Path:
        return self.folder / "loras" / self.name

    @property
    def saves(self) -> list[Path]:
        return sorted((self.place / "result_current").glob("*.safetensors"))


# ---------------------------------------------------------------- trainings


def train(run: Run) -> None:
    """Train as a person would: the demo's recipe, this thing's pictures, one run after another."""
    if len(run.saves) == SAVES:
        return
    source = run.folder / "pictures" / run.thing.name
    if not source.exists():
        source.mkdir(parents=True)
        rng = random.Random(SEED + run.seed)
        for i, pair in enumerate(colours()[0]):
            run.thing.draw(rng, *pair).save(source / f"{i + 1:02}.png")
    asked = REGIMES[run.regime]
    kept = {
        "dedupe.act": "auto",
        "filter.act": "auto",
        "repeats.policy": asked["policy"],
        "train.seed": run.seed,
        "train.lr": asked["lr"],
        "train.text_encoder_lr": asked["lr"] / 3,
        "train.epochs": SAVES,
        "train.save_every_epochs": 1,
        "train.scheduler": "constant",
    }
    words = ["--trigger", TRIGGER, "--class", run.thing.word, "--recipe", "demo", "--base", "pocket"]
    sets = [word for key, value in kept.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    call(run, "make", run.name, "--from", str(source), *words, *sets, "--to", "train")


def call(run: Run, *args: str) -> None:
    code = cli.run([*args, "--workspace", str(run.folder)])
    if code not in (0, 4):
        raise SystemExit(f"{' '.join(args)} ended with {code}")


# ---------------------------------------------------------------- the truth


def truth(run: Run) -> dict[str, list[bool]]:
    """Per save, which of its 128 pictures pass."""
    path = run.place / "truth.json"
    if not path.exists():
        found = {save.name: graded(run, save) for save in run.saves}
        write_whole(path, json.dumps(found).encode())
    read: dict[str, list[bool]] = json.loads(path.read_text(encoding="utf-8"))
    return read


def graded(run: Run, save: Path) -> list[bool]:
    from lorafactory.training import lora_file, sample

    pairs = [pair for pair in colours()[1][:8] for _ in range(EACH // 8)]
    told = [f"{TRIGGER}, a large {c} {run.thing.word} in front of a plain {b} background" for c, b in pairs]
    prompts, seeds = [TRIGGER] * EACH + told, list(range(500_000, 500_000 + 2 * EACH))
    with lora_file.applied(base(), save):
        drawn = sample.sample(base(), prompts, seeds, steps=STEPS, cfg=3.0, size=(96, 96), batch=16)
    alone = [run.thing.grade(picture) >= 0.5 for picture in drawn[:EACH]]
    return alone + [right(run.thing, picture, *pair) for picture, pair in zip(drawn[EACH:], pairs, strict=True)]


@cache
def base() -> Base:
    path = model_set(find_workspace(), "pocket").base
    assert path is not None
    return families.get("sd15").load(path)


def right(thing: Concept, picture: Image.Image, colour: str, behind: str) -> bool:
    """The thing is there, in the colours that were asked for."""
    seen = see(picture)
    return thing.grade(picture) >= 0.5 and (seen.colour, seen.background) == (colour, (behind,))


# ---------------------------------------------------------------- the verdict against it


@dataclass(frozen=True)
class Judged:
    """What one run's verdict was worth. Shares are of the truth's 128 pictures."""

    run: Run
    passed: dict[str, list[bool]]
    picks: dict[str, str]
    """Way of choosing to save: the verdict, the last one, the highest CLIP-I, the best likeness of those that pass,
    and the verdict's rule on the verdict's pictures with the grader for eyes, which no encoder can be expected to
    better."""
    kind: str
    """`undertrained` or `overtrained`, as the verdict says; empty if a save passed."""
    drawn: int
    """Pictures that the verdict has seen, the baseline's among them."""

    def regret(self, way: str, rng: np.random.Generator | None = None) -> float:
        """How much better the best save is than the one chosen; with a generator, of pictures drawn again."""
        draw = slice(None) if rng is None else rng.integers(0, 2 * EACH, 2 * EACH)
        shares = {name: float(np.array(p)[draw].mean()) for name, p in self.passed.items()}
        return max(shares.values()) - shares[self.picks[way]]

    def good(self, way: str) -> bool:
        """Within 0.05 of the best save, or within one standard error of the difference."""
        best = max(self.passed.values(), key=sum)
        difference = np.array(best, float) - np.array(self.passed[self.picks[way]], float)
        return self.regret(way) <= max(0.05, float(difference.std(ddof=1) / np.sqrt(difference.size)))


def judge(run: Run, budget: float) -> Judged:
    """Compare and pick, as a person would."""
    asked = ["--budget", str(budget)]
    asked += [word for text in PROMPTS for word in ("--prompts", text)]
    call(run, "compare", run.name, *asked, *(word for seed in SEEDS for word in ("--seeds", str(seed))))
    call(run, "pick", run.name)
    told = {name: json.loads((run.place / "txt2img-images" / f"{name}.json").read_text()) for name in NAMES}
    columns = [c for c in told["scores"]["columns"] if c["save"] and c["strength"] == told["scores"]["strength"]]
    alike = max(columns, key=lambda c: c["clip_i"])
    picks = {"verdict": told["verdict"]["pick"], "last": run.saves[-1].name, "highest CLIP-I": alike["save"]}
    limits = Thresholds(**told["verdict"]["thresholds"])
    picks["best likeness"] = decide(*evidence(told["scores"]), replace(limits, errors=0.0)).pick
    picks["grader's eyes"] = decide(*regraded(run, told["scores"], columns), replace(limits, gain=0.0)).pick
    drawn = sum(bool(cell["file"]) for column in told["scores"]["columns"] for cell in column["cells"])
    return Judged(run, truth(run), picks, told["verdict"]["verdict"]["kind"] or "", drawn)


def regraded(run: Run, scores: dict[str, Any], columns: list[Any]) -> tuple[list[Scores], Yardstick]:
    """What the verdict reads, with the grader's word on each picture in place of its likeness."""
    files = {(c["save"], cell["prompt"], cell["seed"]): cell["file"] for c in columns for cell in c["cells"]}
    table, yardstick = evidence(scores)

    def passes(save: str, prompt: int, seed: int) -> float:
        with Image.open(run.place / "txt2img-images" / files[save, prompt, seed]) as picture:
            drawn = picture.convert("RGB")
        alone = prompt < len(ALONE)
        return float(run.thing.grade(drawn) >= 0.5 if alone else right(run.thing, drawn, *ASKED[prompt - len(ALONE)]))

    return [replace(s, likeness={key: passes(s.save, *key) for key in s.likeness}) for s in table], yardstick


NAMES = ("scores", "verdict")
WAYS = ("verdict", "last", "highest CLIP-I", "best likeness", "grader's eyes")


def table(found: list[Judged]) -> Iterator[str]:
    """Markdown, as it stands in the README."""
    yield "| run | truth of the saves | pictures | pick | its truth | last | highest CLIP-I | verdict |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for one in found:
        shares = {name: float(np.mean(passed)) for name, passed in one.passed.items()}
        said = one.kind or "passes"
        order = [list(shares).index(one.picks[way]) + 1 for way in WAYS]
        truths = " ".join(f"{share:.2f}" for share in shares.values())
        own = f"{shares[one.picks['verdict']]:.2f}" + ("" if one.good("verdict") else " (!)")
        yield f"| {one.run.name} | {truths} | {one.drawn} | {order[0]} | {own} | {order[1]} | {order[2]} | {said} |"
    yield ""
    good = {way: sum(one.good(way) for one in found) for way in WAYS}
    yield f"{good['verdict']} of {len(found)} picks are within 0.05, or one standard error, of the best save's truth."
    yield "By other ways of choosing: " + ", ".join(f"{way} {good[way]}" for way in WAYS[1:]) + "."
    rng = np.random.default_rng(SEED)
    for way in WAYS:
        mean = np.mean([one.regret(way) for one in found])
        again = [np.mean([found[i].regret(way, rng) for i in rng.integers(0, len(found), len(found))]) for _ in ROUNDS]
        low, high = np.percentile(again, [2.5, 97.5])
        yield f"Mean regret of {way}: {mean:.3f} (95 % of {len(again)} draws again: {low:.3f} to {high:.3f})."
    late = [one.run.name for one in found if one.run.regime == "long" and one.picks["verdict"] == one.picks["last"]]
    yield f"Too-long runs picked at their last save: {', '.join(late) or 'none'}."


ROUNDS = range(2000)


def runs(folder: Path, seed: int) -> Iterator[Run]:
    for thing in THINGS:
        for regime in REGIMES:
            yield Run(CONCEPTS[thing], regime, folder, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="Where runs are kept. [.bench]")
    parser.add_argument(
        "--budget",
        type=float,
        default=0.25,
        help="Share of the training's time for comparing. [0.25] On a machine that got busier since the training take "
        "more, so that as many pictures are drawn: some 600 to 900 a run.",
    )
    parser.add_argument("--seed", type=int, default=2, help="Of pictures and trainings. [2]")
    asked = parser.parse_args()
    found = list(runs(asked.folder.resolve() / f"seed-{asked.seed}", asked.seed))
    for run in found:
        train(run)
        told = {name: round(float(np.mean(passed)), 3) for name, passed in truth(run).items()}
        print(run.name, *told.values(), flush=True)
    print(*table([judge(run, asked.budget) for run in found]), sep="\n")


if __name__ == "__main__":
    main()
