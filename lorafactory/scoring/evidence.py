"""What the verdict reads, out of `scores.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.scoring.verdict import Scores, Yardstick


def evidence(told: Mapping[str, Any]) -> tuple[list[Scores], Yardstick]:
    """The saves at the judged strength with their scores, and what they are measured against.

    A column on another base (`--on`) is not judged. Saves of which nothing was drawn are left out.
    """
    asked = {i: prompt["group"] == "unlike" for i, prompt in enumerate(told["prompts"]) if prompt["trigger"]}
    baseline, known = told["columns"][0], told["set"]
    without = {(cell["prompt"], cell["seed"]): cell["likeness"] for cell in baseline["cells"] if cell["file"]}
    rows = [
        row
        for row in told["columns"]
        if row["save"] and row["strength"] == told["strength"] and row["base"] == baseline["base"]
    ]
    table = [_scores(row, order, asked, without) for order, row in enumerate(rows) if row["likeness"] is not None]
    return table, Yardstick(known["ceiling"], known["diversity"], known["fit"])


def _scores(
    row: Mapping[str, Any], order: int, asked: Mapping[int, bool], without: Mapping[tuple[int, int], float]
) -> Scores:
    """`asked`: prompts that call the LoRA, and whether for something that is not in the set.

    A training picture drawn where something else was asked for counts as the baseline's: copying is no likeness.
    """

    def likeness(cell: Mapping[str, Any]) -> float:
        copied = cell["copy"] and asked[cell["prompt"]]
        return float(without[cell["prompt"], cell["seed"]] if copied else cell["likeness"])

    cells = (cell for cell in row["cells"] if cell["file"] and cell["prompt"] in asked)
    return Scores(
        save=row["save"],
        order=order,
        label=row["label"],
        error=row["likeness_error"],
        likeness={(cell["prompt"], cell["seed"]): likeness(cell) for cell in cells},
        **{key: row[key] for key in ("floor", "fit", "fit_floor", "diversity", "diversity_floor")},
        **{key: row[key] for key in ("copies", "artefacts")},
        fit_error=row.get("fit_error") or 0.0,
        dropped=row.get("dropped"),
    )
