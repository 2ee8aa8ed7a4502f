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
    """Name, strength where there are several, and the scores that matter most."""
    columns = told["columns"]
    several = len({c["strength"] for c in columns if c["save"]}) > 1
    heads = []
    for column in columns:
        kind = f"strength {column['strength']:g}" if several else "with the LoRA"
        lines = [kind if column["save"] else "without the LoRA"]
        lines += [f"{name} {column[name]:.3f}" for name in ("likeness", "fit", "diversity") if column[name] is not None]
        heads.append(Head(column["label"], tuple(lines)))
    return heads


def row_heads(told: Mapping[str, Any]) -> list[Head]:
    """Each prompt's text at its first seed."""
    return [
        Head(prompt["text"] if i == 0 else "", (f"seed {seed}",))
        for prompt in told["prompts"]
        for i, seed in enumerate(told["seeds"])
    ]


def line(column: Mapping[str, Any]) -> str:
    said = [f"likeness {column['likeness']:.3f} ± {column['likeness_error']:.3f}"]
    said += [f"{name} {column[name]:.3f}" for name in ("fit", "diversity") if column[name] is not None]
    said += [f"copies {column['copies']:.0%}"] if column["copies"] else []
    strength = f" at {column['strength']:g}" if column["save"] and column["strength"] != 1 else ""
    return f"{column['label'] + strength:<16}{'  '.join(said)}"


def as_csv(told: Mapping[str, Any]) -> str:
    """Every cell as a row. Text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["save", "epoch", "step", "strength", "prompt", "seed", *PER_CELL])
    for column in told["columns"]:
        for cell in column["cells"]:
            prompt = told["prompts"][cell["prompt"]]["text"]
            whose = [column["save"] or "baseline", column["epoch"], column.get("step", 0), column["strength"]]
            whose += [prompt, cell["seed"]]
            writer.writerow([_safe(value) for value in [*whose, *(cell[name] for name in PER_CELL)]])
    return out.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
