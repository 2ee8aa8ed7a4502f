"""Draw the trigger and the captions' words without the LoRA, and say which mean something to the base already.

A trigger should mean nothing; a word of the captions that brings a look of its own will mix it into what is learned
(seed 001). Made-up words are drawn from the same noise, and two things are measured in CLIP's cosines: `alike`, how
like each other a word's pictures are over the seeds, and `moved`, how far they are from what made-up words give for
the same noise. Both are told in spreads of the made-up words; from --limit on in either, a word means something.

loras/NAME/probe.png shows the pictures. They are kept in cache/, so a second run draws only what is new.

\b
For example:
  lora probe anna
  lora probe anna --word 4nna --word "woman with red hair" --seeds 6
  lora probe ./photos --base pocket --sheet probe.png
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lorafactory import encoders, images, settings, step, steps, trigger
from lorafactory.dataset import Picture
from lorafactory.errors import InputError, Problem, SettingsError, raise_all
from lorafactory.options import header_options, header_values, json_option, workspace_option
from lorafactory.scoring.diversity import diversity
from lorafactory.scoring.grid import Head, grid
from lorafactory.step import Work
from lorafactory.workspace import base_identity, find_workspace, target

Vectors = NDArray[np.float32]
SHEET = "probe.png"
LEAST_SPREAD = 0.02
"""Of cosines; made-up words are never taken to be more alike than that."""
LITTLE = frozenset(("and", "the", "for", "with", "from", "into", "that", "this", "its", "has", "are", "his", "her"))
_WORD = re.compile(r"[^\W_]{3,}")
LETTERS = "bcdfghjkmnpqrvwxz23456789"


@dataclass(frozen=True)
class Told:
    """What a word is to the base."""

    word: str
    role: str
    """trigger, class, word (of the captions or asked for), or made up."""
    alike: float
    """In spreads of the made-up words; above 0 the pictures are more alike than theirs."""
    moved: float
    """The same; above 0 the pictures are farther from the made-up words' than these among each other."""
    means: bool

    def __str__(self) -> str:
        said = "means something" if self.means else "means nothing  "
        return f"{said}  alike {self.alike:+6.1f}  moved {self.moved:+6.1f}  {self.word} ({self.role})"


# ---------------------------------------------------------------- which words


def words_of(work: Work, asked: Sequence[str], most: int) -> dict[str, str]:
    """Word to role: the trigger, the class word, and what was asked for or else the captions' commonest words."""
    found = {work.trigger: "trigger", work.recipe.header.class_: "class"}
    found = {word: role for word, role in found.items() if word}
    for word in asked or common_words(work.set.captions().values(), most, known=found):
        found.setdefault(word.strip(), "word")
    found.pop("", None)
    return found


def common_words(captions: Iterable[str], most: int, known: Iterable[str] = ()) -> list[str]:
    """The words that most captions have, three letters and longer."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(list(dict.fromkeys(_WORD.findall(caption.casefold()))))
    skipped = LITTLE | {word.casefold() for word in known}
    return [word for word, _ in counts.most_common() if word not in skipped][:most]


def made_up(count: int) -> list[str]:
    """Words that no text has, always the same: letters and digits that CLIP reads as two to four tokens."""
    rng, found = random.Random(0), list[str]()
    while len(found) < count:
        word = "".join(rng.choices(LETTERS, k=5))
        if 2 <= len(trigger.tokens(word)) <= 4 and word not in found:
            found.append(word)
    return found


# ---------------------------------------------------------------- pictures


def draw(work: Work, words: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Path]]:
    """Word to its pictures, one per seed; those in the cache are not drawn again."""
    compare = step.settings_of(steps.get("compare"), work.recipe)
    if work.models.base is None:
        raise SettingsError("probe: no base to draw with")
    how = [base_identity(work.workspace, work.models), compare.steps, compare.cfg]
    folder = work.workspace.cache / "probe"

    def place(word: str, seed: int) -> Path:
        key = json.dumps([*how, word, seed], separators=(",", ":"))
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.png"

    found = {word: [place(word, seed) for seed in seeds] for word in words}
    jobs = [(w, s, place(w, s)) for w in words for s in seeds]
    missing = [job for job in jobs if not job[2].exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        loaded = steps.get("generate").load(work.models)
        batches = [missing[i : i + compare.batch] for i in range(0, len(missing), compare.batch)]
        for batch in work.track(batches, "probing"):
            draw_batch(loaded, batch, compare)
    return found


def draw_batch(base: Any, batch: Sequence[tuple[str, int, Path]], compare: Any) -> None:
    from lorafactory.training.sample import sample

    side = base.parts["unet"].config.sample_size * base.latent_factor
    words, seeds = [word for word, _, _ in batch], [seed for _, seed, _ in batch]
    size = {"size": (side, side), "batch": compare.batch}
    for (_, _, path), picture in zip(
        batch, sample(base, words, seeds, steps=compare.steps, cfg=compare.cfg, **size), strict=True
    ):
        images.save_png(picture, path)


# ---------------------------------------------------------------- what they tell


def judge(roles: dict[str, str], vectors: dict[str, Vectors], nothing: Sequence[str], limit: float) -> list[Told]:
    """What each word is, the strongest first; `vectors` has a row of length 1 per seed for it and the made-up ones."""
    null = [vectors[word] for word in nothing]
    alike = [alike_in(rows) for rows in null]
    near = [nearness(rows, [r for r in null if r is not rows]) for rows in null]
    found = []
    for word, role in roles.items():
        likes = spreads(alike_in(vectors[word]), alike)
        moved = -spreads(nearness(vectors[word], null), near)
        found.append(Told(word, role, round(likes, 2), round(moved, 2), max(likes, moved) >= limit))
    return sorted(found, key=lambda told: -max(told.alike, told.moved))


def nearness(rows: Vectors, others: Sequence[Vectors]) -> float:
    """Mean cosine of a word's pictures (seeds, d) to those of other words from the same seed."""
    return float(np.mean([(rows * other).sum(axis=1).mean() for other in others]))


def alike_in(rows: Vectors) -> float:
    """How alike the pictures of one word are: the mean cosine of all pairs."""
    return 1 - (diversity(rows) or 0.0)


def spreads(value: float, usual: Sequence[float]) -> float:
    """Distance from the mean of the usual values, in their standard deviations."""
    return float((value - np.mean(usual)) / max(float(np.std(usual)), LEAST_SPREAD))


def probe(
    work: Work, asked: Sequence[str], *, most: int, seeds: int, nulls: int, limit: float
) -> tuple[list[Told], dict[str, list[Path]]]:
    """Draw and judge; the pictures by word, the made-up ones last."""
    roles = words_of(work, asked, most)
    if not roles:
        raise InputError(f"{work.place.name}: no trigger and no captions to probe\n    --word WORD, or --trigger WORD")
    nothing = [word for word in made_up(nulls + len(roles)) if word not in roles][:nulls]
    if lacking := encoders.get("clip").missing(work.models.clip):
        raise_all([Problem(lacking)])
    drawn = draw(work, [*roles, *nothing], range(1, seeds + 1))
    pictures = [Picture(path) for paths in drawn.values() for path in paths]
    rows = encoders.get("clip").embed(pictures, work.models.clip, work.workspace.cache, work.track)
    vectors = {word: rows[i * seeds : (i + 1) * seeds] for i, word in enumerate(drawn)}
    return judge(roles, vectors, nothing, limit), drawn


def sheet(told: Sequence[Told], drawn: dict[str, list[Path]], path: Path) -> None:
    """One row per word, the strongest first, then two of made-up ones; one column per seed."""
    known = {one.word for one in told}
    rest = [word for word in drawn if word not in known][:2]
    heads = [Head(t.word, (t.role, "means something" if t.means else "means nothing")) for t in told]
    heads += [Head(word, ("made up",)) for word in rest]
    cells = [[images.load(p) for p in drawn[word]] for word in (*(t.word for t in told), *rest)]
    columns = [Head(f"seed {seed}") for seed in range(1, len(cells[0]) + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save_png(grid(cells, columns, heads, [], side=128), path)


def conclusion(work: Work, told: Sequence[Told]) -> str:
    """What to do about it."""
    bad = [t.word for t in told if t.role == "trigger" and t.means]
    if bad:
        name = work.place.name
        return f"the trigger {bad[0]} means something to the base: choose another, lora make {name} --trigger WORD"
    words = [t.word for t in told if t.means]
    if not words:
        return "none of the words means anything to the base"
    return f"{', '.join(words)}: bring a look of their own; seed 001 tries such words without the LoRA"


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--word", "asked", multiple=True, help="A word or phrase to probe instead of the captions' own.")
@click.option("--words", "most", default=8, show_default=True, help="So many of the captions' commonest words.")
@click.option("--seeds", default=4, show_default=True, type=click.IntRange(2), help="Pictures per word.")
@click.option("--made-up", "nulls", default=8, show_default=True, type=click.IntRange(4), help="Made-up words.")
@click.option("--limit", default=3.0, show_default=True, help="Spreads from which on a word means something.")
@click.option("--sheet", "asked_sheet", type=click.Path(path_type=Path, dir_okay=False), help="Where the sheet goes.")
@json_option
@header_options
@workspace_option
def command(
    place: str,
    asked: tuple[str, ...],
    most: int,
    seeds: int,
    nulls: int,
    limit: float,
    asked_sheet: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    space = find_workspace(options.pop("workspace"))
    where = target(space, place)
    work = Work(space, where, settings.effective(space, where, header_values(options)))
    told, drawn = probe(work, asked, most=most, seeds=seeds, nulls=nulls, limit=limit)
    path = asked_sheet or (where.root / SHEET if where.owned else None)
    if path is not None:
        sheet(told, drawn, path)
    if as_json:
        click.echo(json.dumps({"words": [asdict(t) for t in told], "sheet": str(path) if path else None}))
        return
    for one in told:
        click.echo(str(one))
    click.echo(conclusion(work, told))
    if path is not None:
        click.echo(f"pictures: {path}")
