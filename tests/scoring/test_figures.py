"""Numbers beside each other: what is not equal does not look so."""

from __future__ import annotations

import pytest

from lorafactory.scoring.figures import apart


@pytest.mark.parametrize(
    ("score", "threshold", "form", "told"),
    [
        (0.3466, 0.3474, ("f", 3), ("0.3466", "0.3474")),
        (0.31, 0.347, ("f", 3), ("0.310", "0.347")),
        (0.347, 0.347, ("f", 3), ("0.347", "0.347")),
        (0.204, 0.2, ("%", 0), ("20.4%", "20.0%")),
        (0.25, 0.2, ("%", 0), ("25%", "20%")),
        (3.01, 3.0, ("f", 1), ("3.01", "3.00")),
        (1234.5, 1000.0, ("g", 3), ("1.23e+03", "1e+03")),
        (0.98501, 0.985, ("g", 4), ("0.98501", "0.985")),
    ],
)
def test_as_many_digits_as_tell_them_apart(
    score: float, threshold: float, form: tuple[str, int], told: tuple[str, str]
) -> None:
    assert apart(score, threshold, *form) == told
