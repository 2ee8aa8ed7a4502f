"""The findings as a table for people and as data for machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafactory.errors import Problem
from lorafactory.setcheck import Finding, count

COLOURS = {"ok": "", "note": "yellow", "problem": "bold red"}
WIDTH = 132
"""Columns where the output is no terminal."""


def show(findings: Sequence[Finding]) -> None:
    """Print one row per finding on stdout."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, ratio in (("", None), ("what", 5), ("value", 14), ("should be", 8), ("says", 5)):
        table.add_column(title, ratio=ratio, overflow="fold", no_wrap=title == "")
    for row in findings:
        # as texts, for a name or caption in brackets is no markup
        cells = [Text(cell) for cell in (row.verdict, row.what, row.value, row.wanted, row.rule)]
        table.add_row(*cells, style=COLOURS[row.verdict])
    console.print(table)


def as_data(
    findings: Sequence[Finding], problems: Sequence[Problem], sheet: Path | None, turned: Sequence[str]
) -> dict[str, Any]:
    """Everything as JSON has it."""
    told = [{"message": p.message, "fix": p.fix, "fatal": p.fatal} for p in problems]
    rows = [asdict(row) for row in findings]
    return {"findings": rows, "problems": told, "sheet": str(sheet) if sheet else None, "turned": list(turned)}


def conclusion(findings: Sequence[Finding], problems: Sequence[Problem] = ()) -> str:
    """The last line: how much there is to look at."""
    stops = sum(row.verdict == "problem" for row in findings) + sum(p.fatal for p in problems)
    notes = sum(row.verdict == "note" for row in findings) + sum(not p.fatal for p in problems)
    told = [count(n, kind) for n, kind in ((stops, "problem"), (notes, "note")) if n]
    return ", ".join([*told, "mend the problems first" if stops else "nothing is in the way"])
