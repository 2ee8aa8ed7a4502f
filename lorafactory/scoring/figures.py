"""Numbers beside each other, as people read them."""

from __future__ import annotations


def apart(score: float, threshold: float, kind: str = "f", digits: int = 3) -> tuple[str, str]:
    """Both as texts of this format (`f`, `g`, `%`), with more digits where they would look equal and are not."""
    told = [(f"{score:.{n}{kind}}", f"{threshold:.{n}{kind}}") for n in range(digits, 17)]
    return next((pair for pair in told if pair[0] != pair[1]), told[0])
