"""The report: one HTML file that needs nothing else, and lets nothing in that a file name or a caption might bring.

Everything is escaped by the template; the page's own policy forbids scripts and every address that is not `data:`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]*")
POINTS = 240
"""Points of the loss curve; more steps are averaged."""
LABEL = 18
"""Least distance between two labels, in percent of the axis; a phone has room for five."""
SMOOTH = 0.9
"""Share of the past in the smooth curve, per point."""


@dataclass(frozen=True)
class Row:
    """One column of the grid as a row of the score table: the baseline, or a save. None is not known."""

    label: str
    likeness: float | None = None
    error: float | None = None
    """Standard error of the likeness."""
    gain: float | None = None
    """Share of the way from floor to ceiling."""
    fit: float | None = None
    diversity: float | None = None
    copies: float | None = None
    """0 to 1."""
    artefacts: float | None = None
    leak: float | None = None
    said: str = ""
    """What the verdict says of it: `chosen`, `passes`, or why it was rejected."""
    chosen: bool = False


@dataclass(frozen=True)
class Shown:
    """A picture of the set."""

    name: str
    picture: str
    """A `data:` address."""
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Noticed:
    """A picture that was set aside or flagged."""

    name: str
    picture: str
    """A `data:` address; empty if it cannot be shown."""
    what: str
    """`set aside`, `flagged`, ..."""
    why: str


@dataclass(frozen=True)
class Setting:
    """One effective value, and which layer it comes from."""

    table: str
    key: str
    value: str
    origin: str = "default"


@dataclass(frozen=True)
class Mark:
    """A save on the loss curve."""

    step: int
    label: str
    chosen: bool = False


@dataclass(frozen=True)
class Report:
    """All that the page shows, as plain data."""

    name: str
    trigger: str
    file: str
    """Name of the published file."""
    pick: str
    """The save that was chosen, in words: `epoch 4`."""
    passed: bool
    reason: str
    kind: str = ""
    """What was learned, in words: `person, woman`."""
    by_hand: bool = False
    weight: float = 1.0
    """Strength to use it with."""
    another: str = ""
    """What to type for another save."""
    preview: str = ""
    """Baseline and pick from the same noise, a `data:` address."""
    grid: str = ""
    """The grid as a `data:` address; JPEG keeps the page small."""
    scores: Sequence[Row] = ()
    ceiling: float | None = None
    """Likeness of training pictures to each other."""
    losses: Sequence[tuple[int, float]] = ()
    """(step, loss)."""
    marks: Sequence[Mark] = ()
    pictures: Sequence[Shown] = ()
    noticed: Sequence[Noticed] = ()
    settings: Sequence[Setting] = ()
    facts: Sequence[tuple[str, str]] = ()
    """What was run, on what, when: (name, value)."""
    remarks: Sequence[str] = ()
    """What `check` had to say, and other things to know."""


@dataclass(frozen=True)
class Tick:
    """A label on an axis, at a percentage of its length."""

    at: float
    label: str
    chosen: bool = False
    shown: bool = True
    """False: only the tick, where labels would overlap."""


@dataclass(frozen=True)
class Chart:
    """The loss curve in a square of 100 x 100, y downwards; the labels are the page's, so they stay legible."""

    raw: str
    smooth: str
    x: Sequence[Tick]
    y: Sequence[Tick]
    first: float
    last: float


def render(report: Report) -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "share": share, "picture": picture}
    tables: dict[str, list[Setting]] = {}
    for setting in report.settings:
        tables.setdefault(setting.table, []).append(setting)
    curve = chart(report.losses, report.marks)
    return environment.get_template("report.html").render(r=report, tables=tables, chart=curve)


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"


def picture(address: str) -> str:
    """The address if it is a picture within the page, else nothing."""
    return address if PICTURE.fullmatch(address) else ""


# ---------------------------------------------------------------- the loss curve


def chart(losses: Sequence[tuple[int, float]], marks: Sequence[Mark]) -> Chart | None:
    """Lay the curve out; None if there is too little to draw."""
    finite = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    if len(finite) < 2:
        return None
    points = thinned(finite)
    smooth = smoothed([loss for _, loss in points])
    low, high = bounds([loss for _, loss in points], smooth)
    first, last = finite[0][0], finite[-1][0]

    def x(step: float) -> float:
        return round((step - first) / (last - first) * 100, 2)

    def y(loss: float) -> float:
        return round(min(100, max(0, (high - loss) / (high - low) * 100)), 2)

    def line(values: Sequence[float]) -> str:
        return " ".join(f"{x(step)},{y(value)}" for (step, _), value in zip(points, values, strict=True))

    ticks = [Tick(x(mark.step), mark.label, mark.chosen) for mark in marks if first <= mark.step <= last]
    return Chart(
        raw=line([loss for _, loss in points]),
        smooth=line(smooth),
        x=spaced(ticks),
        y=[Tick(y(value), f"{value:.3g}") for value in (low + (high - low) * part for part in (0, 0.5, 1))],
        first=smooth[0],
        last=smooth[-1],
    )


def spaced(ticks: Sequence[Tick]) -> list[Tick]:
    """Show the chosen label, then from the end as many as have room."""
    taken: list[float] = []
    for tick in sorted(ticks, key=lambda t: (not t.chosen, -t.at)):
        if all(abs(tick.at - at) >= LABEL for at in taken):
            taken.append(tick.at)
    return [replace(tick, shown=tick.at in taken) for tick in ticks]


def thinned(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of equally many neighbours."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if points else []
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean without the pull of its first value."""
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = SMOOTH * total + value, SMOOTH * weight + 1
        found.append(total / weight)
    return found


def bounds(values: Sequence[float], smooth: Sequence[float]) -> tuple[float, float]:
    """A range that holds the whole smooth curve, and that a few outliers of the raw one do not flatten."""
    ordered = sorted(values)
    low = min(ordered[len(ordered) // 50], *smooth)
    high = max(ordered[-1 - len(ordered) // 50], *smooth)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return max(0.0, low - room) if low >= 0 else low - room, high + room
