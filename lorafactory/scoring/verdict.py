"""Which save to publish: gates first, then the earliest save within one standard error of the best likeness.

Never the highest likeness alone, which rewards memorising. Pure: scores in, a verdict in words out; the order in
which saves are given does not matter, and an exact copy of a save never wins over the earlier one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lorafactory.scoring.figures import apart
from lorafactory.scoring.likeness import standard_error

Outcome = Literal["undertrained", "overtrained"]
Cells = Mapping[tuple[int, int], float]
"""A score by prompt (its index) and seed."""
MEASURABLE = 0.02
"""With less between floor and ceiling CLIP cannot tell the set from the baseline, and gain says nothing."""
DROPPED = 0.975
"""How sure it has to be that a save is below the best for it not to be drawn any further."""
ADAPTIVE = 0.1
"""A learning rate from which on it is only a factor on what the optimizer finds, as in Prodigy."""
FAR = 0.25
"""Share of a threshold, or of all pictures, by which four pictures do not miss a gate by chance."""
STAY = 2
"""Saves that are drawn to the end in any case."""


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
    """What all saves are measured against: the training pictures."""

    ceiling: float
    """Their likeness to each other."""
    diversity: float
    """A LoRA of one face cannot be more diverse than its pictures."""
    fit: float | None = None
    """To their own captions; a thing like no other of its class fits no words well. None where there are none."""


@dataclass(frozen=True)
class Scores:
    """One save's scores. A floor is the baseline's score, without the LoRA, over the same cells."""

    save: str
    order: int
    """Epoch or step: earlier saves have lower numbers."""
    label: str
    """What people read, such as `epoch 4`."""
    likeness: Cells
    """Where the trigger was asked for; saves may have different cells."""
    floor: float
    """Of likeness."""
    error: float = 0.0
    """Standard error of what likeness is above its floor."""
    fit: float | None = None
    """Prompt fit; None where no prompt says more than the trigger."""
    fit_floor: float | None = None
    fit_error: float = 0.0
    """Standard error of prompt fit."""
    diversity: float | None = None
    """None where there is one seed only."""
    diversity_floor: float | None = None
    copies: float = 0.0
    """Share of pictures that copy a training picture though something else was asked for."""
    artefacts: float = 0.0
    """Mean oddness, in standard deviations."""
    dropped: str | None = None
    """Why no more of it was drawn. What is left to compare it by is few pictures, which it may win by luck."""

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.likeness.values())))

    def gain(self, yardstick: Yardstick) -> tuple[float, float] | None:
        """Share of the way from floor to ceiling, and its standard error; None if there is no way to speak of."""
        way = yardstick.ceiling - self.floor
        return ((self.mean - self.floor) / way, self.error / way) if way >= MEASURABLE else None


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
    next: str | None = None
    """What to type then."""


@dataclass(frozen=True)
class Failure:
    """A gate that a save did not pass. `short` is by which share of the threshold it missed."""

    gate: str
    words: str
    short: float


def decide(
    table: Sequence[Scores],
    yardstick: Yardstick,
    limits: Thresholds | None = None,
    *,
    name: str = "NAME",
    rate: float | None = None,
) -> Verdict:
    """Judge all saves; at least one is needed. `name` and `rate` (the training's) are for the line to type next."""
    limits = limits or Thresholds()
    saves = in_order(table)
    failures = {s.save: gates(s, yardstick, limits) for s in saves}
    rejected = {name: "; ".join(f.words for f in found) for name, found in failures.items() if found}
    passing = [s for s in saves if not failures[s.save]]
    if passing:
        drawn = [s for s in passing if not s.dropped]
        rejected |= {s.save: s.dropped for s in passing if s.dropped and drawn}
        return _chosen(saves, drawn or passing, rejected, limits)
    undertrained = all(f.gate == "gain" for f in failures[_best(saves).save]) and not _stalled(saves, yardstick, limits)
    return _none_passes(saves, failures, rejected, undertrained, _next(undertrained, name, rate))


def standing(table: Sequence[Scores], yardstick: Yardstick, limits: Thresholds | None = None) -> dict[str, str]:
    """Between two stages: which saves drop out of the comparison, and why, in words. At least two always stay.

    As there are few pictures yet, a gate stops only a save that misses it by far. What has not learned yet is behind;
    where all have not, the best of them are looked at all the same.
    """
    limits = limits or Thresholds()
    saves = in_order(table)
    failures = {s.save: [f for f in gates(s, yardstick, limits) if f.short > FAR and f.gate != "gain"] for s in saves}
    out = {s.save: failures[s.save][0].words for s in saves if failures[s.save]}
    best = _best([s for s in saves if s.save not in out] or saves)
    behind = {s.save: lead(best, s) for s in saves}
    for s in saves:
        gap, error = behind[s.save]
        if s.save not in out and _fell(best, s):
            out[s.save] = f"likeness {gap:.3f} ± {error:.3f} below that of {best.label}"
    ranked = sorted(saves, key=lambda s: (s.save in out, len(failures[s.save]), behind[s.save][0], saves.index(s)))
    return {s.save: out[s.save] for s in ranked[STAY:] if s.save in out}


def _surely(cells: int) -> float:
    """Standard errors that as many cells need; few cells tell their own error badly (Student's t)."""
    from scipy.stats import t

    return float(t.ppf(DROPPED, max(cells, 2) - 1) * np.sqrt(cells / max(cells - 1, 1)))


def in_order(table: Sequence[Scores]) -> list[Scores]:
    """The earliest first."""
    return sorted(table, key=lambda s: (s.order, s.save))


def lead(one: Scores, other: Scores) -> tuple[float, float]:
    """By how much likeness of one save is above another's, and the standard error, over the cells that both have."""
    shared = sorted(one.likeness.keys() & other.likeness.keys())
    if not shared:
        return one.mean - other.mean, float("inf")
    gaps = np.array([one.likeness[key] - other.likeness[key] for key in shared])
    return float(gaps.mean()), standard_error(gaps)


def _best(saves: Sequence[Scores]) -> Scores:
    """The save of the best likeness, two at a time over what they share; those with most cells first, then earlier.

    Of those that dropped out only if all did.
    """
    order = sorted([s for s in saves if not s.dropped] or saves, key=lambda s: -len(s.likeness))
    best = order[0]
    for s in order[1:]:
        if lead(s, best)[0] > 0:
            best = s
    return best


def gates(s: Scores, y: Yardstick, limits: Thresholds) -> list[Failure]:
    """What the save fails, in words with its numbers."""
    found = []
    if limits.gain and (told := s.gain(y)) and (sure := told[0] - told[1]) < limits.gain:
        least, need = apart(sure, limits.gain, "%", 0)
        words = f"not learned yet: {told[0]:.0%} ± {told[1]:.0%} of the way from baseline to set"
        found.append(Failure("gain", f"{words}, so {least} at least; {need} needed", limits.gain - told[0]))
    found += _below("fit", "ignores prompts", s.fit, limits.fit, (s.fit_floor, y.fit), s.fit_error)
    found += _below("diversity", "seeds look alike", s.diversity, limits.diversity, (s.diversity_floor, y.diversity))
    if s.copies > limits.copies:
        share, most = apart(s.copies, limits.copies, "%", 0)
        words = f"copies training pictures: {share} of the pictures that it is held against, {most} allowed"
        found.append(Failure("copies", words, s.copies - limits.copies))
    if s.artefacts > limits.artefacts:
        off, most = apart(s.artefacts, limits.artefacts, "f", 1)
        words = f"artefacts: {off} standard deviations off, {most} allowed"
        found.append(Failure("artefacts", words, _short(-s.artefacts, -limits.artefacts)))
    return found


def _below(
    gate: str,
    fault: str,
    score: float | None,
    share: float,
    known: tuple[float | None, float | None],
    error: float = 0.0,
) -> list[Failure]:
    """A failure if a score is, by more than its error, below its share of the baseline's and of the set's, whichever
    is less: that something was learned has to be shown, that prompts are ignored as well."""
    base, own = known
    if score is None or base is None:
        return []
    least, whose = min((base, "baseline's"), (base if own is None else own, "set's"), key=lambda told: told[0])
    need = share * least
    if least <= 0 or score + error >= need:
        return []
    low, least_needed = apart(score, need)
    doubt = f" ± {error:.3f}" if error else ""
    words = f"{fault}: {gate} {low}{doubt}, {least_needed} needed ({share:.0%} of the {whose})"
    return [Failure(gate, words, _short(score + error, need))]


def _short(value: float, need: float) -> float:
    return (need - value) / max(abs(need), 1e-9)


def _chosen(saves: list[Scores], passing: list[Scores], rejected: Mapping[str, str], limits: Thresholds) -> Verdict:
    best = _best(passing)
    behind = {s.save: lead(best, s) for s in passing}
    pick = next(s for s in passing if behind[s.save][0] <= limits.errors * behind[s.save][1])
    rest = [s for s in passing if s is not pick]
    runner_up = min(rest, key=lambda s: (behind[s.save][0], saves.index(s)), default=None)
    gap, error = behind[pick.save]
    if pick is best:
        reason = f"{pick.label}: the best likeness of the saves that pass, {pick.mean:.3f}"
    else:
        reason = f"{pick.label}: likeness {best.mean - gap:.3f}, within one standard error of the best"
        reason += f" ({best.label}, {best.mean:.3f}; {gap:.3f} ± {error:.3f} between them), and earlier"
    if runner_up:
        reason += f". Runner-up: {runner_up.label}, likeness {best.mean - behind[runner_up.save][0]:.3f}"
    if rejected:
        reason += ". Rejected: " + ", ".join(s.label for s in saves if s.save in rejected)
    if pick.dropped:
        reason += f". It had dropped out and was seen in {len(pick.likeness)} pictures only: draw more with --full"
    if pick is saves[-1] and runner_up and np.greater(*lead(pick, runner_up)):
        reason += ". Likeness was still rising at the last save: more epochs may help"
    elif _fell(pick, saves[-1]):
        lost, doubt = lead(pick, saves[-1])
        reason += f". By the last save likeness had fallen again, by {lost:.3f} ± {doubt:.3f}: fewer epochs may do"
    return Verdict(pick.save, True, reason, runner_up.save if runner_up else None, dict(rejected))


def _stalled(saves: list[Scores], yardstick: Yardstick, limits: Thresholds) -> bool:
    """Much was learned and nothing since the first save, or half of that was lost again: steps that are too large,
    which more of do not mend."""
    best, first, last = _best(saves), saves[0], saves[-1]
    gain = best.gain(yardstick)
    if gain is None or gain[0] <= limits.gain / 2 or len(saves) < 2:
        return False
    gap, error = lead(best, first)
    if gap <= error and not first.dropped:  # what dropped out was behind, for all that its few pictures tell
        return True
    return lead(best, last)[0] > (gap + error) / 2 and _fell(best, last)


def _fell(one: Scores, later: Scores) -> bool:
    """Likeness is surely less at the later save."""
    lost, doubt = lead(one, later)
    return lost > max(0, _surely(len(one.likeness.keys() & later.likeness.keys())) * doubt)


def _none_passes(
    saves: list[Scores],
    failures: Mapping[str, list[Failure]],
    rejected: Mapping[str, str],
    undertrained: bool,
    line: str,
) -> Verdict:
    """Undertrained if the last save only has not learned yet; else training went past what was good, or broke."""
    if undertrained:
        ranked = sorted(saves, key=lambda s: (len(failures[s.save]), s.floor - s.mean, saves.index(s)))
    else:
        worst = {save: (len(found), sum(f.short for f in found)) for save, found in failures.items()}
        ranked = sorted(saves, key=lambda s: (*worst[s.save], saves.index(s)))
    pick, runner_up = ranked[0], ranked[1] if len(ranked) > 1 else None
    kind: Outcome = "undertrained" if undertrained else "overtrained"
    cure = "train for more epochs" if undertrained else "train at a lower learning rate, or save more often"
    reason = f"no save passes, {kind}: {cure}. Best-ranked is {pick.label} ({rejected[pick.save]})"
    if runner_up:
        reason += f". Runner-up: {runner_up.label} ({rejected[runner_up.save]})"
    return Verdict(pick.save, False, reason, runner_up.save if runner_up else None, dict(rejected), kind, line)


def _next(undertrained: bool, name: str, rate: float | None) -> str:
    """The line to type after a training of which no save passes; a name may hold what a shell acts upon."""
    name = shlex.quote(name)
    if undertrained:
        return f"lora train {name} --more 3 && lora make {name}"
    # optimizers that find their own rate take 1 for it: less of that would not be less
    if rate is None or rate >= ADAPTIVE:
        return f"lora make {name} --set train.save_every_epochs=1"
    return f"lora make {name} --set train.lr={rate / 2:g}"
