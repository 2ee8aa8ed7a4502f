"""The pages that lorafactory writes: one environment, one look, one policy.

Whatever a person's files bring (names, captions, errors) is escaped by the template. The policy knows the page's own
style and scripts by their sha256, so nothing else runs, and nothing is loaded but the pictures that are named.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif|svg\+xml);base64,[A-Za-z0-9+/=]*")
WITHIN, BESIDE = "data:", "data: 'self' file:"
"""Where a page's pictures are: within it, or in files beside it."""


def render(page: str, *, scripts: Sequence[str] = (), pictures: str = WITHIN, **values: Any) -> str:
    """Return the page of a template, such as `scoring/report.html`, with the look of all pages and its own.

    Files are named from the package's folder; `report.css` beside `report.html` is its own look.
    """
    own = Path(page).with_suffix(".css")
    style = read("pages.css", *([own.as_posix()] if (HERE / own).is_file() else []))
    script = read(*scripts)
    runs = digest(script) if script else "'none'"
    policy = (
        f"default-src 'none'; img-src {pictures}; style-src {digest(style)}; script-src {runs}; "
        "base-uri 'none'; form-action 'none'"
    )
    # ours, and not escaped: the browser takes both as they stand
    own_parts = {"policy": Markup(policy), "style": Markup(style), "script": Markup(script)}
    return environment().get_template(page).render(**own_parts, **values)


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "share": share, "duration": duration, "picture": picture}
    return made


def read(*names: str) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8").strip() for name in names)


def digest(text: str) -> str:
    """A style or script as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# ---------------------------------------------------------------- filters of the template


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"


def duration(seconds: float) -> str:
    """`12 s`, `4 min 10 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def minutes(seconds: float) -> str:
    """What lasts long, without seconds: `4 min`, `2 h 05 min`."""
    whole = round(seconds / 60)
    return f"{whole // 60} h {whole % 60:02} min" if whole >= 60 else f"{max(whole, 1)} min"


def picture(address: str) -> str:
    """The address if it is a picture within the page, else nothing."""
    return address if PICTURE.fullmatch(address) else ""
