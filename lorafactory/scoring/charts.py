"""The report's charts, drawn by matplotlib as SVG: for light and dark, for a wide page and a phone.

An SVG within an `<img>` runs nothing and loads nothing. The same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 240
"""Points of the loss curve; more steps are averaged."""
SMOOTH = 0.9
"""Share of the past in the smooth curve, per point."""
GOOD_LOSS = (0.08, 0.10)
"""Where seed 002, a guide to kohya's trainer, calls a training good; context, never a reason."""
PHONE = "(max-width: 40rem)"
PANELS = {
    "likeness": "likeness to the set",
    "fit": "prompt fit",
    "diversity": "diversity",
    "copies": "copies",
    "artefacts": "artefacts",
}
"""Score to the title of its panel, the first one large."""
FACE = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


INK, SOFT, LINE, GOOD, WARN, ACCENT = "#211f1b", "#6b655b", "#ddd8cd", "#2f6f52", "#9a5a0a", "#2d5f91"
"""The colours of pages.css by day."""
NIGHT = {INK: "#e8e3d9", SOFT: "#a19a8d", LINE: "#3a362f", GOOD: "#7cc3a0", WARN: "#e0a55c", ACCENT: "#8fb8e2"}
Chart = list[tuple[str, str]]
"""(media query, `data:` address), the last for whatever is left."""


@dataclass(frozen=True)
class Mark:
    """A save on the loss curve."""

    step: int
    label: str
    chosen: bool = False


def loss_curve(losses: Sequence[tuple[int, float]], marks: Sequence[Mark]) -> Chart:
    """Loss by step, raw and smooth, with the saves; empty if there is too little to draw."""
    points = thinned([(step, loss) for step, loss in losses if math.isfinite(loss)])
    if len(points) < 2:
        return []
    steps, raw = zip(*points, strict=True)
    smooth = smoothed(raw)

    def draw(narrow: bool) -> Figure:
        figure = page(3.75 if narrow else 9.6, 2.5 if narrow else 3.0)
        axes = plain(figure.subplots())
        axes.axhspan(*GOOD_LOSS, color=GOOD, alpha=0.14, linewidth=0)
        axes.plot(steps, raw, color=ACCENT, alpha=0.35, linewidth=0.7)
        axes.plot(steps, smooth, color=ACCENT, linewidth=1.6)
        axes.set_ylim(0, max(GOOD_LOSS[1] * 1.1, max(smooth) * 1.1, sorted(raw)[-1 - len(raw) // 50] * 1.05))
        axes.set_xlim(steps[0], steps[-1])
        axes.set_xlabel("step", color=SOFT)
        for mark in marks:
            axes.axvline(mark.step, 0, 1 if mark.chosen else 0.03, color=GOOD if mark.chosen else SOFT,
                         linewidth=1, linestyle=(0, (4, 3)) if mark.chosen else "-")  # fmt: skip
        for mark in (m for m in marks if m.chosen):
            late = mark.step > (steps[0] + steps[-1]) / 2
            note(
                axes,
                mark.label,
                (mark.step, 1),
                (-4 if late else 4, -14),
                GOOD,
                right=late,
                coords=("data", "axes fraction"),
            )
        return figure

    return charted(draw)


def score_curves(
    saves: Sequence[Mapping[str, Any]], chosen: str | None, lines: Mapping[str, Mapping[str, Sequence[float | None]]]
) -> Chart:
    """Each score over the saves, the chosen one marked; empty for a single save.

    `saves` are columns of scores.json, the earliest first; `lines` has per score and name the levels to draw at each.
    """
    there = [key for key in PANELS if any(save.get(key) is not None for save in saves)]
    if len(saves) < 2 or "likeness" not in there:
        return []

    def draw(narrow: bool) -> Figure:
        figure = page(3.75 if narrow else 9.6, 5.8 if narrow else 4.1)
        small = [there[i : i + 2] for i in range(1, len(there), 2)]
        small = [[*row, "."] if len(row) == 1 else row for row in small]
        if narrow or not small:
            rows, heights = [["likeness"] * 2, *small], [1.4, *(1.0 for _ in small)]
        else:
            rows, heights = [["likeness"] * 2 + row for row in small], [1.0 for _ in small]
        for key, axes in figure.subplot_mosaic(cast("Any", rows), height_ratios=heights).items():
            panel(plain(axes), str(key), saves, chosen, lines.get(str(key), {}), narrow)
        return figure

    return charted(draw)


def panel(
    axes: Axes,
    key: str,
    saves: Sequence[Mapping[str, Any]],
    chosen: str | None,
    lines: Mapping[str, Sequence[float | None]],
    narrow: bool,
) -> None:
    """One score over the saves, with the levels that it is measured against."""
    values = [math.nan if save.get(key) is None else float(save[key]) for save in saves]
    x = range(len(saves))
    late = any(save["save"] == chosen for save in saves[len(saves) * 2 // 3 :])  # names go where the mark is not
    axes.set_title(PANELS[key], loc="left", color=INK, fontsize=10, pad=8)
    for name, levels in lines.items():
        gate = name == "limit"
        known = [math.nan if level is None else level for level in levels]
        axes.plot(x, known, color=WARN if gate else SOFT, linewidth=0.9, linestyle=(0, (2, 2)))
        at = known[0] if late else known[-1]
        if not math.isnan(at):
            where, coords = (0.0 if late else 1.0, at), ("axes fraction", "data")
            note(axes, name, where, (0, 2), WARN if gate else SOFT, coords=coords, right=not late)
    errors = [save.get(f"{key}_error") or 0.0 for save in saves]
    if any(errors):
        low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=ACCENT, alpha=0.16, linewidth=0)
    axes.plot(x, values, color=ACCENT, linewidth=1.5, marker="o", markersize=3)
    for i in (i for i, save in enumerate(saves) if save["save"] == chosen):
        axes.axvline(i, color=GOOD, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.plot([i], [values[i]], "o", color=GOOD, markersize=6)
    most = (4 if narrow else 8) if key == "likeness" else 3
    shown = range(0, len(saves), math.ceil(len(saves) / most))
    axes.set_xticks(list(shown), [short(saves, i) for i in shown])
    axes.margins(x=0.06, y=0.15)


def note(
    axes: Axes, said: str, at: tuple[float, float], off: tuple[int, int], colour: str, *, coords: tuple[str, str],
    right: bool = True,
) -> None:  # fmt: skip
    """A few words beside a line, to the left of its point, or to the right of it."""
    side = "right" if right else "left"
    made = axes.annotate(said, at, off, coords, "offset points", ha=side, color=colour, fontsize=8)
    made.set_in_layout(False)


def short(saves: Sequence[Mapping[str, Any]], i: int) -> str:
    """A save below the axis: its label, the word only once where all have the same."""
    words = {str(save["label"]).partition(" ")[0] for save in saves}
    label = str(saves[i]["label"])
    return label if i == 0 or len(words) > 1 else label.partition(" ")[2] or label


def page(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr,call-arg]
    return figure


def plain(axes: Axes) -> Axes:
    """Nothing but a base line and quiet numbers."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(length=0, colors=SOFT, labelsize=9, pad=5)
    axes.locator_params(axis="y", nbins=4)
    return axes


def charted(draw: Callable[[bool], Figure]) -> Chart:
    """Draw for every kind of page: at night the same drawing in other colours."""
    wide, narrow = svg(draw, narrow=False), svg(draw, narrow=True)
    dark = "(prefers-color-scheme: dark)"
    kinds = ((f"{PHONE} and {dark}", by_night(narrow)), (PHONE, narrow), (dark, by_night(wide)), ("", wide))
    return [(media, f"data:image/svg+xml;base64,{base64.b64encode(s.encode()).decode()}") for media, s in kinds]


def svg(draw: Callable[[bool], Figure], *, narrow: bool) -> str:
    """One drawing, without dates or random ids; text stays text, in the page's own font."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # nobody's own style
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lorafactory", "text.parse_math": False})
        mpl.rcParams["font.sans-serif"] = ["DejaVu Sans"]
        draw(narrow).savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found = buffer.getvalue().replace("'DejaVu Sans'", FACE)
    return found[found.index("<svg") :]


def by_night(drawn: str) -> str:
    for day, night in NIGHT.items():
        drawn = drawn.replace(day, night)
    return drawn


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of equally many neighbours."""
    size = max(1, math.ceil(len(points) / POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean without the pull of its first value."""
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = SMOOTH * total + value, SMOOTH * weight + 1
        found.append(total / weight)
    return found
