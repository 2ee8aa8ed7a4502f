"""Choose a save by the verdict, or by hand, and put a copy of it where interfaces find it.

\b
For example:
  lora pick anna
  lora pick anna --epoch 4
  lora pick anna --step 1500
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from pydantic import Field

from lorafactory import images
from lorafactory.errors import InputError, Problem, SettingsError
from lorafactory.files import whole, write_whole
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._saves import papers

if TYPE_CHECKING:
    from lorafactory.scoring.verdict import Scores, Thresholds, Verdict, Yardstick

VERSION = 1
HEADER = ("trigger", "kind", "class")
SCORES, VERDICT = "scores.json", "verdict.json"
Row = dict[str, Any]


class Settings(StepSettings):
    epoch: int = Field(0, ge=0)
    """The save of this epoch is chosen, whatever the verdict, which is kept beside it; 0 follows the verdict. A choice
    by hand stays until there are new saves, or until `--force`."""
    step: int = Field(0, ge=0)
    """The save after this step is chosen, in the same way; 0 follows the verdict."""
    fit: float = Field(0.9, ge=0, le=1)
    """Prompt fit that a save must reach, as a share of the baseline's, 0 to 1; 0 turns the gate off."""
    diversity: float = Field(0.7, ge=0, le=1)
    """Difference between seeds that a save must reach, as a share of the baseline's or of the training pictures',
    whichever is less, 0 to 1; 0 turns the gate off."""
    copies: float = Field(0.2, ge=0, le=1)
    """Share of its pictures that may copy a training picture, 0 to 1; 1 turns the gate off."""
    artefacts: float = Field(3.0, gt=0)
    """How far sharpness, saturation and detail may be from both the set's and the baseline's, in standard deviations;
    1000 turns the gate off."""
    gain: float = Field(0.2, ge=0, le=1)
    """Share of the way from the baseline's likeness to that among training pictures, 0 to 1, below which nothing has
    been learned; 0 turns the gate off."""
    errors: float = Field(1.0, ge=0, le=10)
    """Standard errors below the best likeness within which an earlier save is preferred; 0 takes the best."""


def check(work: Work, s: Settings) -> list[Problem]:
    try:
        refuse_foreign(work)
    except InputError as error:
        return [Problem(str(error))]
    if s.epoch and s.step:
        return [Problem("pick.epoch and pick.step: a save is chosen by one of both", "--epoch 0", error=SettingsError)]
    return []


def sees(work: Work, s: Settings) -> dict[str, str]:
    paths = [work.place.comparison / SCORES, *work.place.result.glob("*.safetensors")]
    return {path.name: images.sha256(path) for path in paths if path.is_file()}


def stands(last: dict[str, Any], s: Settings) -> bool:
    """A choice by hand stays until there are new saves."""
    return bool(last.get("epoch") or last.get("step")) and not by_person(s)


def by_person(s: Settings) -> bool:
    return bool(s.epoch or s.step)


def outputs(work: Work, s: Settings) -> list[Path]:
    return [*outputs_beside(work), work.place.comparison / VERDICT]


def outputs_beside(work: Work) -> list[Path]:
    """The chosen file, its preview, its sidecar."""
    return [work.place.chosen.with_suffix(suffix) for suffix in (".safetensors", ".png", ".json")]


def run(work: Work, s: Settings) -> Result:
    from lorafactory.scoring.verdict import decide

    refuse_foreign(work)
    told = read_scores(work)
    rows = [row for row in told["columns"] if row["save"] and row["strength"] == told["strength"]]
    verdict = decide(*evidence(told, rows), thresholds(s))
    row = by_hand(rows, s) if by_person(s) else next(r for r in rows if r["save"] == verdict.pick)
    save = work.place.result / row["save"]
    if not save.is_file() or images.sha256(save) != row["sha256"]:
        raise InputError(f"{save} is not the file that was compared: `lora compare {work.place.name}` again")
    reason = verdict.reason if not by_person(s) else f"{row['label']}, chosen by hand. The verdict: {verdict.reason}"
    result = told_as(work, row, verdict, reason, hand=by_person(s))
    if not work.apply:
        return replace(result, summary=f"{result.summary}\nnothing was copied; do it with --apply")
    written = write_beside(work, told, row, reason)
    with whole(work.place.chosen) as part:
        shutil.copyfile(save, part)
    sent = publish(work, row)
    document = {
        "pick": row["save"],
        "label": row["label"],
        "epoch": row["epoch"],
        "step": row.get("step", 0),
        "called_by": "step" if any(r["label"].startswith("step") for r in rows) else "epoch",
        "sha256": row["sha256"],
        "passed": result.data["passed"],
        "reason": reason,
        "by_hand": {"epoch": s.epoch, "step": s.step, "agrees": row["save"] == verdict.pick} if by_person(s) else None,
        "verdict": asdict(verdict),
        "thresholds": asdict(thresholds(s)),
        "written": written,
    }
    write_whole(work.place.comparison / VERDICT, as_json(document))
    for role, path in zip(("chosen", "preview", "sidecar", "verdict"), outputs(work, s), strict=True):
        work.note.made(role, path)
    left = [path.name for path in outputs(work, s)[1:3] if written.get(path.name) != images.sha256(path)]
    lines = [*(f"{name}: not ours, left as it is" for name in left), *(f"published {path}" for path in sent)]
    return replace(result, lines=(*result.lines, *lines))


def publish(work: Work, row: Row) -> list[Path]:
    """Copy the chosen file and its companions to every folder of `publish_to`, as NAME-e04 or NAME-s1500."""
    sent = []
    for folder in work.workspace.publish_to:
        folder.mkdir(parents=True, exist_ok=True)
        for path in outputs_beside(work):
            target = folder / f"{work.place.name}-{short(row)}{path.suffix}"
            with whole(target) as part:
                shutil.copyfile(path, part)
            sent.append(target)
    return sent


def short(row: Row) -> str:
    """A save in a file's name: e04, or s1500 within an epoch."""
    return f"e{row['epoch']:02}" if row["label"].startswith("epoch") else f"s{row['step']}"


def told_as(work: Work, row: Row, verdict: Verdict, reason: str, *, hand: bool) -> Result:
    """A person's choice always passes: the chain ends as they wanted."""
    passed = verdict.passed or hand
    data = {
        "pick": row["save"],
        "epoch": row["epoch"],
        "step": row.get("step", 0),
        "file": str(work.place.chosen),
        "passed": passed,
        "kind": None if passed else verdict.kind,
        "reason": reason,
        "runner_up": verdict.runner_up,
        "rejected": dict(verdict.rejected),
        "by_hand": hand,
    }
    return Result(f"pick: {reason}", data, tuple(f"rejected {k}: {v}" for k, v in verdict.rejected.items()))


# ---------------------------------------------------------------- the evidence


def read_scores(work: Work) -> dict[str, Any]:
    path = work.place.comparison / SCORES
    if not path.is_file():
        raise InputError(f"no scores to pick by in {path.parent}: first `lora compare {work.place.name}`")
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        ours = told["version"] == 1 and any(row["save"] for row in told["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): `lora compare {work.place.name} --force`") from error
    if not ours:
        raise InputError(f"{path} is of another version, or has no save: `lora compare {work.place.name} --force`")
    return told


def evidence(told: dict[str, Any], rows: list[Row]) -> tuple[list[Scores], Yardstick]:
    """The numbers that the verdict reads."""
    from lorafactory.scoring.verdict import Scores, Yardstick

    asked = [i for i, prompt in enumerate(told["prompts"]) if prompt["trigger"]]

    def likeness(row: Row) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(c["likeness"] for c in row["cells"] if c["prompt"] == i) for i in asked)

    table = [
        Scores(
            save=row["save"],
            order=order,
            label=row["label"],
            likeness=likeness(row),
            fit=row["fit"],
            diversity=row["diversity"],
            copies=row["copies"],
            artefacts=row["artefacts"],
        )
        for order, row in enumerate(rows)
    ]
    base, known = told["columns"][0], told["set"]
    return table, Yardstick(known["floor"], known["ceiling"], base["fit"], base["diversity"], known["diversity"])


def thresholds(s: Settings) -> Thresholds:
    from lorafactory.scoring.verdict import Thresholds

    return Thresholds(**s.model_dump(exclude={"epoch", "step"}))


def by_hand(rows: list[Row], s: Settings) -> Row:
    """The row of that step, or of that epoch: its last save if there are several."""
    key, wanted = ("step", s.step) if s.step else ("epoch", s.epoch)
    found = [row for row in rows if row.get(key) == wanted]
    if not found:
        known = ", ".join(str(row.get(key) or "?") for row in rows)
        raise SettingsError(f"pick.{key} = {wanted}: no save of that {key} was compared; there are {known}")
    return found[-1]


# ---------------------------------------------------------------- what is put beside the chosen file


def refuse_foreign(work: Work) -> None:
    """The chosen file may be replaced only if it is a copy of one of our saves."""
    chosen = work.place.chosen
    if not chosen.exists():
        return
    found = images.sha256(chosen)
    if found == last_pick(work).get("sha256"):
        return
    saves = [*work.place.result.glob("*.safetensors"), *work.place.earlier_results.glob("*/*.safetensors")]
    if not any(images.sha256(path) == found for path in saves):
        raise InputError(f"{chosen} is none of this LoRA's saves and is left alone: move it away, then try again")


def last_pick(work: Work) -> dict[str, Any]:
    """What verdict.json of the last pick says; empty if there was none."""
    try:
        told: dict[str, Any] = json.loads((work.place.comparison / VERDICT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def write_beside(work: Work, told: dict[str, Any], row: Row, reason: str) -> dict[str, str]:
    """Write preview and sidecar, unless a person has put their own there; return the hashes of ours."""
    written = dict(last_pick(work).get("written") or {})
    for suffix, data in (
        (".png", images.png(preview(work, told, row))),
        (".json", as_json(sidecar(work, told, row, reason))),
    ):
        path = work.place.chosen.with_suffix(suffix)
        if path.exists() and images.sha256(path) != written.get(path.name):
            continue
        write_whole(path, data)
        written[path.name] = images.sha256(path)
    return written


def preview(work: Work, told: dict[str, Any], row: Row) -> Image.Image:
    """Baseline and pick from the same noise, at the pick's best likeness that copies nothing."""
    asked = [i for i, c in enumerate(row["cells"]) if told["prompts"][c["prompt"]]["trigger"]]
    best = max(asked, key=lambda i: (not row["cells"][i]["copy"], row["cells"][i]["likeness"]))
    pair = [images.load(work.place.comparison / r["cells"][best]["file"]) for r in (told["columns"][0], row)]
    gap = max(2, pair[0].width // 48)
    strip = Image.new("RGB", (pair[0].width + gap + pair[1].width, pair[0].height), "white")
    strip.paste(pair[0], (0, 0))
    strip.paste(pair[1], (pair[0].width + gap, 0))
    return strip


def sidecar(work: Work, told: dict[str, Any], row: Row, reason: str) -> dict[str, Any]:
    """What A1111, Forge and SD.Next read beside a LoRA."""
    header = work.recipe.header
    what = f"{header.kind}, {header.class_}" if header.class_ else header.kind
    return {
        "description": f"{work.place.name} ({what})",
        "sd version": sd_version(work.place.result / row["save"]),
        "activation text": work.trigger,
        "preferred weight": row["strength"],
        "notes": reason,
    }


def sd_version(save: Path) -> str:
    """The sidecar's word for the kind of base."""
    told = papers(save)
    said = f"{told.get('modelspec.architecture', '')} {told.get('ss_base_model_version', '')}".lower()
    return "SDXL" if "xl" in said else "SD1" if "v1" in said else "Unknown"


def as_json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
