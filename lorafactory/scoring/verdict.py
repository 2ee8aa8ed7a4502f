"""Which save to publish: gates first, then the earliest save within one standard error of the best likeness.

Never the highest likeness alone, which rewards memorising. Pure: scores in, a verdict in words out; the order in
which saves are given does not matter, and an exact copy of a save never wins over the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lorafactory.scoring.likeness import standard_error

Outcome = Literal["undertrained", "overtrained"]
MEASURABLE = 0.02
"""With less between floor and ceiling CLIP cannot tell the set from the baseline, and gain says nothing."""


@dataclass(frozen=True)
class Thresholds:
    """Where the gates stand; `pick`'s settings of the same names explain them."""

    fit: float = 0.9
    diversity: float = 0.7
    copies: float = 0.2
    artefacts: float = 3.0
    gain: float = 0.2
    errors: float = 1.0


@dataclass(frozen=True)
class Yardstick:
    """What scores are measured against."""

    floor: float
    """Likeness of the baseline, without the LoRA."""
    ceiling: float
    """Likeness of training pictures to each other."""
    fit: float | None
    """Prompt fit of the baseline; None where no prompt says more than the trigger."""
    diversity: float | None
    """Of the baseline."""
    set_diversity: float
    """Of the training pictures. A LoRA of one face cannot be more diverse than its pictures."""

    def gain(self, likeness: float) -> float | None:
        """Share of the way from floor to ceiling; None if there is no way to speak of."""
        way = self.ceiling - self.floor
        return (likeness - self.floor) / way if way >= MEASURABLE else None


@dataclass(frozen=True)
class Scores:
    """One save's scores."""

    save: str
    order: int
    """Epoch or step: earlier saves have lower numbers."""
    label: str
    """What people read, such as `epoch 4`."""
    likeness: tuple[tuple[float, ...], ...]
    """By prompt, then by seed."""
    fit: float | None = None
    diversity: float | None = None
    copies: float = 0.0
    """Share of pictures that copy a training picture."""
    artefacts: float = 0.0
    """Mean oddness, in standard deviations."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.likeness))


@dataclass(frozen=True)
class Verdict:
    """The save to publish, and why."""

    pick: str
    passed: bool
    reason: str
    runner_up: str | None
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Save to what it failed, in words."""
    kind: Outcome | None = None
    """What went wrong if no save passes."""


@dataclass(frozen=True)
class Failure:
    """A gate that a save did not pass. `short` is by which share of the threshold it missed."""

    gate: str
    words: str
    short: float


def decide(table: Sequence[Scores], yardstick: Yardstick, limits: Thresholds | None = None) -> Verdict:
    """Judge all saves; at least one is needed."""
    limits = limits or Thresholds()
    saves = sorted(table, key=lambda s: (s.order, s.save))
    failures = {s.save: gates(s, yardstick, limits) for s in saves}
    rejected = {name: "; ".join(f.words for f in found) for name, found in failures.items() if found}
    passing = [s for s in saves if not failures[s.save]]
    if passing:
        return _chosen(saves, passing, rejected, limits)
    return _none_passes(saves, failures, rejected)


def gates(s: Scores, y: Yardstick, limits: Thresholds) -> list[Failure]:
    """What the save fails, in words with its numbers."""
    found = []
    gain = y.gain(s.mean)
    if limits.gain and gain is not None and gain < limits.gain:
        words = f"not learned yet: {gain:.0%} of the way from baseline to set, {limits.gain:.0%} needed"
        found.append(Failure("gain", words, limits.gain - gain))
    if s.fit is not None and y.fit is not None and y.fit > 0 and s.fit < (need := limits.fit * y.fit):
        words = f"ignores prompts: fit {s.fit:.3f}, {need:.3f} needed ({limits.fit:.0%} of the baseline's)"
        found.append(Failure("fit", words, _short(s.fit, need)))
    if s.diversity is not None and y.diversity is not None:
        whose = "baseline's" if y.diversity <= y.set_diversity else "set's"
        need = limits.diversity * min(y.diversity, y.set_diversity)
        if s.diversity < need:
            words = f"seeds look alike: diversity {s.diversity:.3f}, {need:.3f} needed"
            words += f" ({limits.diversity:.0%} of the {whose})"
            found.append(Failure("diversity", words, _short(s.diversity, need)))
    if s.copies > limits.copies:
        words = f"copies training pictures: {s.copies:.0%} of its pictures, {limits.copies:.0%} allowed"
        found.append(Failure("copies", words, s.copies - limits.copies))
    if s.artefacts > limits.artefacts:
        words = f"artefacts: {s.artefacts:.1f} standard deviations off, {limits.artefacts:g} allowed"
        found.append(Failure("artefacts", words, _short(-s.artefacts, -limits.artefacts)))
    return found


def _short(value: float, need: float) -> float:
    return (need - value) / max(abs(need), 1e-9)


def _chosen(saves: list[Scores], passing: list[Scores], rejected: Mapping[str, str], limits: Thresholds) -> Verdict:
    best = max(passing, key=lambda s: (s.mean, -saves.index(s)))
    error = standard_error(np.array(best.likeness))
    pick = next(s for s in passing if s.mean >= best.mean - limits.errors * error)
    rest = [s for s in passing if s is not pick]
    runner_up = max(rest, key=lambda s: (s.mean, -saves.index(s)), default=None)
    if pick is best:
        reason = f"{pick.label}: the best likeness of the saves that pass, {pick.mean:.3f} ± {error:.3f}"
    else:
        reason = f"{pick.label}: likeness {pick.mean:.3f}, within one standard error of the best"
        reason += f" ({best.label}, {best.mean:.3f} ± {error:.3f}), and earlier"
    if runner_up:
        reason += f". Runner-up: {runner_up.label}, likeness {runner_up.mean:.3f}"
    if rejected:
        reason += ". Rejected: " + ", ".join(s.label for s in saves if s.save in rejected)
    if pick is saves[-1] and runner_up and pick.mean > runner_up.mean + error:
        reason += ". Likeness was still rising at the last save: more epochs may help"
    return Verdict(pick.save, True, reason, runner_up.save if runner_up else None, dict(rejected))


def _none_passes(saves: list[Scores], failures: Mapping[str, list[Failure]], rejected: Mapping[str, str]) -> Verdict:
    """Undertrained if the last save only has not learned yet; else training went past what was good, or broke."""
    undertrained = all(f.gate == "gain" for f in failures[saves[-1].save])
    if undertrained:
        ranked = sorted(saves, key=lambda s: (len(failures[s.save]), -s.mean, saves.index(s)))
    else:
        worst = {name: (len(found), sum(f.short for f in found)) for name, found in failures.items()}
        ranked = sorted(saves, key=lambda s: (*worst[s.save], saves.index(s)))
    pick, runner_up = ranked[0], ranked[1] if len(ranked) > 1 else None
    kind: Outcome = "undertrained" if undertrained else "overtrained"
    less = "train with fewer epochs or a lower learning rate, or save more often"
    cure = "train for more epochs" if undertrained else less
    reason = f"no save passes, {kind}: {cure}. Best-ranked is {pick.label} ({rejected[pick.save]})"
    if runner_up:
        reason += f". Runner-up: {runner_up.label} ({rejected[runner_up.save]})"
    return Verdict(pick.save, False, reason, runner_up.save if runner_up else None, dict(rejected), kind)
