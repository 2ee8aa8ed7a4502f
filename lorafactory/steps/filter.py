"""Find pictures that spoil a set: too small, blurred, dark, pale, empty, gray, oddly shaped, with text, off topic.

Rules of your own act: --drop-text takes out what CLIP thinks the words describe, --keep-text what they do not. A
phrase such as `with a hat` is weighed as `a CLASS with a hat` against `a CLASS`. Pictures that were generated must also
fit the prompt they came from.

\b
For example:
  lora filter anna
  lora filter ./photos --min-side 512 --no-clip
  lora filter anna --drop-text "with sunglasses" --act strict
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lorafactory.dataset import Picture
from lorafactory.errors import Problem, SettingsError
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps import _words
from lorafactory.steps._judging import FLOOR, Verdicts, acting, clip_problems, prompts_of, robust_z, room
from lorafactory.steps._looks import Look, Seen, see

VERSION = 2
MODELS = ("clip",)
HEADER = ("class",)
SHRINKS = True
NEIGHBOURS = 3
BLOCK = 256
ENOUGH = 5
"""Pictures from which on a set says something about one of them."""
LEAST_BLUR, LEAST_OUTLIER = 0.2, 0.02
"""The least spread of log sharpness and of CLIP cosine that a set is taken to have."""
SUSPECT = ("with text", "with a watermark")
POCKET_SUSPECT = ("with text",)
"""The pocket's CLIP has read of text and never of watermarks."""


class Settings(StepSettings):
    min_side: int = Field(256, ge=1, le=4096)
    """Shorter side in pixels below which a picture is too small, 1 to 4096; enlarged, it teaches blur."""
    sharp: float = Field(0.3, ge=0, le=1)
    """Sharpness of the best edges, at 512 pixels, below which a picture is blurred, 0 to 1: a sharp photograph has
    0.5 to 0.9, one seen through a Gaussian of 2 pixels 0.3 or less. 0 leaves it to the comparison with the set."""
    dark: float = Field(0.28, ge=0, le=1)
    """Brightness, 0 to 1, that the brightest hundredth of a picture must reach."""
    light: float = Field(0.95, ge=0, le=1)
    """Brightness, 0 to 1, that the darkest twentieth of a picture must stay below."""
    information: float = Field(0.15, ge=0, le=1)
    """Range, 0 to 1, that the levels of red, green or blue must span, the extreme 50ths left out; in fog, or on an
    empty page, none does. Not how many levels there are: a flat drawing has few, and is no worse for it."""
    ratio: float = Field(0.35, ge=0, le=1)
    """Shorter by longer side below which the shape is odd, 0 to 1; buckets would crop most of such a picture."""
    grey: float = Field(0.05, ge=0, le=1)
    """Difference of a pixel's largest and smallest colour value, 0 to 1, that a hundredth of the pixels must reach;
    gray photographs saved as colour have 0 to 0.02. Says nothing where half of the set is gray."""
    spread: float = Field(3.0, ge=1, le=20)
    """How many times the set's own spread a picture may be blurrier than its middle, 1 to 20."""
    outlier: float = Field(3.0, ge=1, le=20)
    """The same for likeness to the rest (mean CLIP cosine to the three nearest), 1 to 20; beyond, it is off topic."""
    prompt: float = Field(3.0, ge=1, le=20)
    """The same for how well a generated picture fits its prompt (CLIP cosine), among the generated ones, 1 to 20."""
    suspect: tuple[str, ...] = SUSPECT
    """What spoils a picture, in words that follow `a picture`; CLIP weighs them against `a picture` alone."""
    keep_text: tuple[str, ...] = ()
    """Your rule: pictures that none of these words describe leave, such as `a photo of a woman`."""
    drop_text: tuple[str, ...] = ()
    """Your rule: pictures that these words describe leave, such as `with sunglasses`."""
    words: float = Field(2.0, ge=0, le=20)
    """How many times the set's own spread a picture must fit words better (or worse) than its middle for the three
    settings above to speak, 0 to 20; it must also fit them better (or worse) than the neutral words."""
    no_clip: bool = False
    """Leave out CLIP, so that no model is needed; text and pictures of something else are then not found."""
    act: Literal["auto", "facts", "strict"] = "auto"
    """`facts` sets too small pictures aside and flags the rest. `strict` sets all of them aside, the worst first, as
    long as ten pictures and two thirds of the set stay. `auto` is strict with generated pictures and goes by facts for
    others. Your own rules act always, within the same bounds."""


@dataclass(frozen=True)
class Finding:
    """What a rule says of a picture."""

    rule: str
    score: float
    threshold: float
    bad: bool
    words: str
    severity: float = 0.0
    """How far beyond, in units that are comparable between rules; the worst leave first."""
    reason: str = ""
    """Folder of `set_aside/` that its pictures go to."""
    named: bool = False
    """True of a rule that a person named: it acts."""


FACT = "too small"


def check(work: Work, s: Settings) -> list[Problem]:
    problems = []
    if s.no_clip and (s.keep_text or s.drop_text):
        message = "filter: keep_text and drop_text ask CLIP, and no_clip leaves it out"
        problems.append(Problem(message, "take out one of the two", error=SettingsError))
    if any(not phrase.strip() for phrase in (*s.keep_text, *s.drop_text, *s.suspect)):
        problems.append(Problem("filter: a rule without words", '--drop-text "with a hat"', error=SettingsError))
    return [*problems, *clip_problems(work, s.no_clip)]


def run(work: Work, s: Settings) -> Result:
    verdicts = Verdicts(work)
    seen = see(work, clip=not s.no_clip and len(work.set.pictures) >= ENOUGH, exact=False)
    verdicts.unreadable(seen)
    decide(seen.pictures, findings(work, seen, s), s, verdicts)
    return Result(verdicts.summary("filter", len(seen.looks)), verdicts.data, verdicts.lines)


# ---------------------------------------------------------------- judging


def findings(work: Work, seen: Seen, s: Settings) -> list[list[Finding]]:
    """What every rule says of every picture."""
    looks = seen.looks
    found = [absolute(one, s) for one in looks]
    gray = [one.chroma < s.grey for one in looks]
    common = sum(gray) * 2 >= len(looks)
    for i, one in enumerate(looks):
        said = f"gray (colours differ by {one.chroma:.2f}, at least {s.grey:g})"
        found[i].append(Finding("grey", one.chroma, s.grey, gray[i] and not common, said, 1.0, "grey"))
    if len(looks) < ENOUGH:
        return found
    for i, z in enumerate(robust_z(np.log([max(one.sharpness, 1e-3) for one in looks]), LEAST_BLUR)):
        said = f"less sharp than the set ({z:.1f} spreads, at least {-s.spread:g})"
        found[i].append(below("blur in the set", "blurred", z, -s.spread, said, -z / s.spread))
    if seen.vectors is not None:
        for i, one_finding in by_clip(work, seen, seen.vectors, s):
            found[i].append(one_finding)
    return found


def absolute(one: Look, s: Settings) -> list[Finding]:
    """What can be said of a picture without the others."""
    short, long = sorted((one.width_px, one.height_px))
    ratio = short / long
    small = f"too small ({short} pixels, at least {s.min_side})"
    blurred = f"blurred (sharpness {one.sharpness:.2f}, at least {s.sharp:g})"
    dark = f"dark (brightest {one.p99:.2f}, at least {s.dark:g})"
    light = f"washed out (darkest {one.p5:.2f}, at most {s.light:g})"
    empty = f"with little in it (levels span {one.span:.2f}, at least {s.information:g})"
    odd = f"oddly shaped ({ratio:.2f} of its length wide, at least {s.ratio:g})"
    return [
        below(FACT, "small", short, s.min_side, small, 1.0),
        below("blur", "blurred", one.sharpness, s.sharp, blurred),
        below("dark", "dark", one.p99, s.dark, dark),
        Finding("light", one.p5, s.light, one.p5 > s.light, light, one.p5 / max(s.light, 0.01), "light"),
        below("low information", "flat", one.span, s.information, empty),
        below("odd ratio", "ratio", ratio, s.ratio, odd),
    ]


def below(rule: str, reason: str, score: float, least: float, words: str, severity: float | None = None) -> Finding:
    """A finding that is bad where the score is below the least."""
    beyond = least / max(score, 0.01) if severity is None else severity
    return Finding(rule, float(score), least, bool(score < least), words, float(beyond), reason)


# ---------------------------------------------------------------- CLIP's opinions


def by_clip(work: Work, seen: Seen, vectors: NDArray[np.float32], s: Settings) -> Iterator[tuple[int, Finding]]:
    """Index of a picture, and a finding of it."""
    like = likeness(vectors)
    for i, z in enumerate(robust_z(like, LEAST_OUTLIER)):
        said = f"unlike the others (CLIP {like[i]:.3f}, {z:.1f} spreads, at least {-s.outlier:g})"
        yield i, below("outlier", "outlier", z, -s.outlier, said, -z / s.outlier)
    suspect = POCKET_SUSPECT if work.judges.pocket and s.suspect == SUSPECT else s.suspect
    for phrase in suspect:
        yield from described(_words.fit(work, vectors, [phrase], _words.PICTURE), s, f"text: {phrase}", phrase)
    for phrase in s.drop_text:
        fit = _words.fit(work, vectors, [phrase], _words.neutral(work))
        yield from described(fit, s, f"drop: {phrase}", phrase, named=True)
    if s.keep_text:
        plain = _words.neutral(work) if not any(map(_words.is_whole, s.keep_text)) else _words.PICTURE
        yield from undescribed(_words.fit(work, vectors, s.keep_text, plain), s)
    told = prompts_of(work)
    prompts = {i: told[p.name] for i, p in enumerate(seen.pictures) if p.name in told}
    for i, (cosine, z) in (_words.agreement(work, vectors, prompts) if len(prompts) >= ENOUGH else {}).items():
        said = f"unlike its prompt (CLIP {cosine:.3f}, {z:.1f} spreads, at least {-s.prompt:g})"
        yield i, below("prompt", "prompt", z, -s.prompt, said, -z / s.prompt)


def likeness(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean cosine of each picture to the three that are most like it, a block of rows at a time."""
    means = []
    most = min(NEIGHBOURS, len(vectors) - 1)
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -2
        means.append(np.partition(cosines, -most, axis=1)[:, -most:].mean(axis=1))
    return np.concatenate(means).astype(np.float64)


def described(
    fit: _words.Fit, s: Settings, rule: str, phrase: str, named: bool = False
) -> Iterator[tuple[int, Finding]]:
    """Pictures that words describe: better than the neutral ones, and better than the set's middle."""
    for i, (margin, z) in enumerate(zip(fit.margins, fit.z, strict=True)):
        said = f'"{phrase}" to CLIP ({margin:+.3f}, {z:.1f} spreads, at most {s.words:g})'
        reason, beyond = "unwanted" if named else "text", float(z) / max(s.words, 0.1)
        yield i, Finding(rule, float(z), s.words, bool(margin > 0 and z > s.words), said, beyond, reason, named)


def undescribed(fit: _words.Fit, s: Settings) -> Iterator[tuple[int, Finding]]:
    """Pictures that no words of `keep_text` describe."""
    asked = " or ".join(f'"{phrase}"' for phrase in s.keep_text)
    for i, (margin, z) in enumerate(zip(fit.margins, fit.z, strict=True)):
        said = f"not {asked} to CLIP ({margin:+.3f}, {z:.1f} spreads, at least {-s.words:g})"
        bad, beyond = bool(margin < 0 and z < -s.words), -float(z) / max(s.words, 0.1)
        yield i, Finding("keep", float(z), -s.words, bad, said, beyond, "unwanted", named=True)


# ---------------------------------------------------------------- deciding


def decide(pictures: Sequence[Picture], found: list[list[Finding]], s: Settings, verdicts: Verdicts) -> None:
    """Record every rule's finding for every picture; set aside what is too small, and the worst of what may act."""
    may = acting(verdicts.work, s.act)
    bad = {i: [f for f in row if f.bad] for i, row in enumerate(found) if any(f.bad for f in row)}
    by_hand = {i for i in bad if verdicts.kept_by_hand(pictures[i], ", ".join(f.words for f in bad[i]))}
    acts = {i: [f for f in row if f.rule == FACT or f.named or may(pictures[i])] for i, row in bad.items()}
    last = {i: max(row, key=order) for i, row in acts.items() if row and i not in by_hand}
    facts = [i for i, f in last.items() if f.rule == FACT]
    opinions = sorted((i for i in last if i not in facts), key=lambda i: order(last[i]), reverse=True)
    small = {i for i, row in bad.items() if row[0].rule == FACT}
    left = room(verdicts.work, [p for i, p in enumerate(pictures) if i not in small])
    leaving = {*facts, *opinions[:left]}
    for i, row in enumerate(found):
        for finding in row:
            if i not in leaving or finding is not last[i]:
                note(pictures[i], finding, verdicts, quiet=i in leaving or i in by_hand)
        if i in leaving:
            told = {"score": last[i].score, "threshold": last[i].threshold}
            verdicts.found(pictures[i], last[i].rule, **told)
            verdicts.aside(pictures[i], last[i].reason, last[i].rule, last[i].words, **told)
    if stay := len(opinions) - min(left, len(opinions)):
        verdicts.lines.append(f"{stay} of the flagged stay, as {FLOOR} pictures and two thirds of a set always do")


def order(finding: Finding) -> tuple[bool, bool, float]:
    """Sorts what should go first to the back: facts, then rules that a person named, then the worst."""
    return (finding.rule == FACT, finding.named, finding.severity)


def note(picture: Picture, finding: Finding, verdicts: Verdicts, quiet: bool) -> None:
    """Record one rule by which the picture stays."""
    score, threshold = finding.score, finding.threshold
    if finding.bad and not quiet:
        verdicts.found(picture, finding.rule, score=score, threshold=threshold)
        verdicts.flag(picture, finding.rule, finding.words, score=score, threshold=threshold)
    else:
        verdict = "flagged" if finding.bad else "kept"
        verdicts.work.note(picture, verdict, finding.rule, score=score, threshold=threshold)
