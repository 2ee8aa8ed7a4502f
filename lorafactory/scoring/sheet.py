"""`scores.json` as people read it: the grid's heads, a line per column, a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from lorafactory.scoring.grid import Head

PER_CELL = ("likeness", "fit", "nearest", "mirrored", "nearest_clip", "nearest_pixels", "copy", "artefacts", "file")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def column_heads(told: Mapping[str, Any]) -> list[Head]:
    """Name, strength and base where there are several, and the scores that matter most; of what was drawn.

    Where columns have not equally many cells each says how many its scores are over.
    """
    columns = drawn(told)
    counts = [len(_there(column)) for column in columns]
    several = len({c["strength"] for c in columns if c["save"]}) > 1
    bases = len({c["base"] for c in columns}) > 1
    heads = []
    for column, count in zip(columns, counts, strict=True):
        kind = f"strength {column['strength']:g}" if several else "with the LoRA"
        lines = [kind if column["save"] else "without the LoRA", *([f"on {column['base']}"] if bases else [])]
        lines += [f"over {count} of {max(counts)} cells"] if len(set(counts)) > 1 else []
        lines += [f"{name} {column[name]:.3f}" for name in ("likeness", "fit", "diversity") if column[name] is not None]
        heads.append(Head(column["label"], tuple(lines)))
    return heads


def row_heads(told: Mapping[str, Any]) -> list[Head]:
    """Each prompt's text at its first seed; rows of which nothing was drawn are left out."""
    rows = sorted({(cell["prompt"], told["seeds"].index(cell["seed"])) for c in drawn(told) for cell in _there(c)})
    first = dict(reversed(rows))
    return [
        Head(told["prompts"][prompt]["text"] if first[prompt] == number else "", (f"seed {told['seeds'][number]}",))
        for prompt, number in rows
    ]


def foot(told: Mapping[str, Any]) -> str:
    """How much was left out of the grid, and what draws it; empty if nothing was."""
    spent = told["budget"]
    left = spent["planned"] - spent["drawn"]
    return f"{left} of {spent['planned']} cells are not drawn: {spent['full_command']}" if left else ""


def drawn(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The columns of which anything was drawn."""
    return [column for column in told["columns"] if _there(column)]


def _there(column: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell for cell in column["cells"] if cell["file"]]


def line(column: Mapping[str, Any]) -> str:
    said = []
    for name in ("likeness", "fit", "diversity"):
        if column[name] is not None:
            error = column.get(f"{name}_error")
            said.append(f"{name} {column[name]:.3f}" + (f" ± {error:.3f}" if error is not None else ""))
    said += [f"copies {column['copies']:.0%}"] if column["copies"] else []
    said += [f"over {len(_there(column))} cells"]
    said += [f"no more of it was drawn: {column['dropped']}"] if column["dropped"] else []
    strength = f" at {column['strength']:g}" if column["save"] and column["strength"] != 1 else ""
    return f"{column['label'] + strength:<15} {'  '.join(said)}"


def as_csv(told: Mapping[str, Any]) -> str:
    """Every cell that was drawn as a row. Text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["save", "epoch", "step", "strength", "base", "prompt", "seed", *PER_CELL])
    for column in told["columns"]:
        for cell in _there(column):
            prompt = told["prompts"][cell["prompt"]]["text"]
            whose = [column["save"] or "baseline", column["epoch"], column["step"], column["strength"]]
            whose += [column["base"], prompt, cell["seed"]]
            writer.writerow([_safe(value) for value in [*whose, *(cell[name] for name in PER_CELL)]])
    return out.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
