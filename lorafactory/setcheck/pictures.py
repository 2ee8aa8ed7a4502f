"""How many pictures, how large, and what the trainer's own buckets will make of them."""

from __future__ import annotations

from collections.abc import Sequence

from lorafactory.errors import InputError
from lorafactory.setcheck import SEED, Finding, Verdict, count, some
from lorafactory.setcheck.looks import Look, Seen
from lorafactory.training import buckets
from lorafactory.training.buckets import Fit
from lorafactory.training.settings import TrainSettings

SIZES: tuple[tuple[int, str, Verdict], ...] = (
    (0, "none: bring some", "problem"),
    (4, "too few to learn from: 5 at least", "note"),
    (10, "can work, with little variation", "note"),
    (20, "a good number", "ok"),
    (50, "just right", "ok"),
    (100, "too many, unless portraits and full figures are mixed", "note"),
)
"""Up to how many pictures seed 003 says what."""
ENDLESS = "wasted work: keep the best 50"
MOSTLY = 0.75
"""Share of the pictures that should have the training's resolution."""
CUT = 0.25
"""Share of a picture's area that may fall outside its bucket."""

Fits = dict[str, Fit | None]
"""By the picture's path; None where no bucket takes it."""


def findings(found: Seen, fits: Fits, s: TrainSettings) -> list[Finding]:
    """The rows about number, size and buckets."""
    rows = [set_size(len(found.looks))]
    if found.unreadable:
        names = tuple(found.unreadable)
        told = some([f"{name} ({why})" for name, why in found.unreadable.items()], 3)
        told += "; will be set aside" if found.originals else ""
        verdict: Verdict = "note" if found.originals else "problem"
        rows.append(Finding("unreadable", told, "none", "decoding", verdict, names))
    if not found.looks:
        return rows
    return [*rows, resolution(found.looks, s), *in_buckets(found.looks, fits)]


def set_size(pictures: int) -> Finding:
    top, advice, verdict = next((row for row in SIZES if pictures <= row[0]), (0, ENDLESS, "note"))
    floors = {0: "0", 4: "1-4", 10: "5-10", 20: "11-20", 50: "21-50", 100: "51-100"}
    name = "over 100" if advice == ENDLESS else floors[top]
    return Finding("set size", f"{count(pictures)} ({name}): {advice}", "21 to 50, 11 to 20 is good too", SEED, verdict)


def resolution(looks: Sequence[Look], s: TrainSettings) -> Finding:
    """Seed 000's 75 % over 512, better over 1024, said relative to what the training uses."""
    side, better = s.resolution, max(min(2 * s.resolution, 1024), s.resolution)
    short = [look for look in looks if look.trained[0] * look.trained[1] < side * side]
    large = sum(look.trained[0] * look.trained[1] >= better * better for look in looks)
    enough = 1 - len(short) / len(looks)
    value = f"{enough:.0%} have {side}"
    value += f", {large / len(looks):.0%} have {better}" if better > side else ""
    value += f"; smaller: {some([f'{x.name} ({x.trained[0]}x{x.trained[1]})' for x in short], 3)}" if short else ""
    wanted = f"{MOSTLY:.0%} of at least {side}x{side} pixels" + (f", better {better}" if better > side else "")
    verdict: Verdict = "ok" if enough >= MOSTLY else "note"
    return Finding("resolution", value, wanted, "seed 000", verdict, tuple(x.name for x in short))


# ---------------------------------------------------------------- buckets


def fit_all(looks: Sequence[Look], s: TrainSettings) -> Fits:
    """Every picture's bucket and crop, by the trainer's own function."""
    fits: Fits = {}
    for look in looks:
        try:
            fits[str(look.picture.path)] = buckets.fit(
                look.trained, s.resolution, s.min_bucket, s.max_bucket, s.bucket_step, upscale=s.bucket_upscale
            )
        except InputError:
            fits[str(look.picture.path)] = None
    return fits


def in_buckets(looks: Sequence[Look], fits: Fits) -> list[Finding]:
    groups: dict[buckets.Size, list[Look]] = {}
    strips = []
    for look in looks:
        fit = fits[str(look.picture.path)]
        if fit is None:
            strips.append(look)
        else:
            groups.setdefault(fit.bucket, []).append(look)
    rows = [alone(groups)] if groups else []
    return [*rows, cut_away(looks, fits), no_bucket(strips)]


def alone(groups: dict[buckets.Size, list[Look]]) -> Finding:
    single = {bucket: found[0].name for bucket, found in groups.items() if len(found) == 1}
    value = count(len(groups), "bucket")
    if single:
        told = some([f"{name} ({w}x{h})" for (w, h), name in sorted(single.items())], 3)
        value += f", {len(single)} with one picture: {told}"
    verdict: Verdict = "note" if single and len(groups) > 1 else "ok"
    wanted = "2 pictures or more in each: a batch never mixes buckets"
    return Finding(
        "buckets", value, wanted, "the trainer", verdict, tuple(single.values()) if verdict == "note" else ()
    )


def cut_away(looks: Sequence[Look], fits: Fits) -> Finding:
    lost = {look.name: outside(fit) for look in looks if (fit := fits[str(look.picture.path)])}
    much = sorted((name for name, share in lost.items() if share > CUT), key=lambda name: -lost[name])
    value = f"{max(lost.values(), default=0):.0%} at most"
    value += f"; {some([f'{name} ({lost[name]:.0%})' for name in much], 3)}" if much else ""
    wanted = f"{CUT:.0%} of a picture at most"
    return Finding("cropped away", value, wanted, "the trainer", "note" if much else "ok", tuple(much))


def outside(fit: Fit) -> float:
    """Share of a picture's area that its crop leaves out."""
    return 1 - fit.bucket[0] * fit.bucket[1] / (fit.resized[0] * fit.resized[1])


def no_bucket(strips: Sequence[Look]) -> Finding:
    told = some([f"{look.name} ({look.trained[0]}x{look.trained[1]})" for look in strips])
    value = f"{told}: crop, or take out" if strips else "none"
    names = tuple(look.name for look in strips)
    return Finding("too thin or small for a bucket", value, "none", "the trainer", "problem" if strips else "ok", names)
