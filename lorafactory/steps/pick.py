"""Choose a save by the verdict, or by hand, and put a copy of it where interfaces find it.

A SAVE is called by its epoch, its step or its file. A choice by hand stays until
there are new saves; --force follows the verdict again. More than one are all
copied to the folders of `publish_to`.

\b
For example:
  lora pick anna                       what the verdict says
  lora pick anna 4                     what you say: the save of epoch 4
  lora pick anna 4 6                   two to try; the first is the choice
  lora pick anna step1500 --rank 16    and a smaller file beside it
  lora pick anna anna-000004-ema       by the name of its file
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from lorafactory import images, manifest
from lorafactory.errors import InputError, Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps import _publish
from lorafactory.steps._picked import SCORES, VERDICT, compared, last_pick, read_scores, refuse_foreign
from lorafactory.steps._publish import Choice, Row, as_json
from lorafactory.steps._saves import papers

if TYPE_CHECKING:
    from lorafactory.scoring.verdict import Thresholds, Verdict

VERSION = 4
HEADER = ("trigger", "kind", "class")
FORMERLY = ("epoch", "step")
AGREES = "agrees"
"""Metric of a choice by hand: 1 if the verdict is the same, else 0."""


class Settings(StepSettings):
    saves: tuple[str, ...] = Field((), json_schema_extra={"positional": "[SAVE ...]"})
    """The save that is chosen, whatever the verdict, which is kept beside it: `4` for that of epoch 4, `step1500`, or
    its file; none follows the verdict. More than one are all copied to the folders of `publish_to` in lorafactory.toml,
    to try; the first is the choice. It stays until there are new saves, or until `lora pick NAME --force` follows the
    verdict again."""
    rank: int = Field(0, ge=0)
    """Also write what is chosen as a file of this rank, NAME-e04-r16.safetensors: the nearest there is, by SVD. How
    much of it is kept is said. 0 is off."""
    if_undertrained: str = ""
    """As in `more 3`: when no save passes because all are undertrained, `lora make` trains so many epochs more,
    compares and picks again, once."""
    fit: float = Field(0.9, ge=0, le=1)
    """Prompt fit that a save must reach within its standard error, as a share of the baseline's or of the training
    pictures' to their captions, whichever is less, 0 to 1; 0 turns the gate off."""
    diversity: float = Field(0.7, ge=0, le=1)
    """Difference between seeds that a save must reach, as a share of the baseline's or of the training pictures',
    whichever is less, 0 to 1; 0 turns the gate off."""
    copies: float = Field(0.2, ge=0, le=1)
    """Share of its pictures that may copy a training picture though something else was asked for, 0 to 1; 1 turns the
    gate off."""
    artefacts: float = Field(3.0, gt=0)
    """How far sharpness, saturation and detail may be from both the set's and the baseline's, in standard deviations;
    1000 turns the gate off."""
    gain: float = Field(0.2, ge=0, le=1)
    """Share of the way from the baseline's likeness to that among training pictures, 0 to 1, below which nothing has
    been learned; 0 turns the gate off."""
    errors: float = Field(1.0, ge=0, le=10)
    """Standard errors below the best likeness within which an earlier save is preferred; 0 takes the best."""

    @model_validator(mode="before")
    @classmethod
    def formerly(cls, told: object) -> object:
        """Records and lora.toml of earlier versions say `epoch` or `step`."""
        if not isinstance(told, dict) or not told.keys() & {"epoch", "step"}:
            return told
        numbers = {key: value if isinstance(value := told.get(key, ()), list | tuple) else (value,) for key in FORMERLY}
        saves = [f"{key}{number}" for key in FORMERLY for number in numbers[key]]
        return {key: value for key, value in told.items() if key not in FORMERLY} | {"saves": saves}

    @field_validator("saves", mode="before")
    @classmethod
    def one_or_more(cls, value: object) -> object:
        """A single one is a list of one, and an epoch may be a number."""
        every = value if isinstance(value, list | tuple) else (value,)
        return tuple(str(one) if isinstance(one, int) else one for one in every)

    @field_validator("if_undertrained")
    @classmethod
    def readable(cls, value: str) -> str:
        word, _, number = value.partition(" ")
        if value and not (word == "more" and number.isdecimal() and int(number)):
            raise ValueError('write it as "more 3"')
        return value


def check(work: Work, s: Settings) -> list[Problem]:
    try:
        refuse_foreign(work)
    except InputError as error:
        return [Problem(str(error))]
    if len(s.saves) > 1 and not work.workspace.publish_to:
        text = f"pick: only the first will be {work.place.chosen.name}, and the others have nowhere to go"
        fix = f'publish_to = ["FOLDER"] in {work.workspace.config_path}'
        return [Problem(text, fix, fatal=False)]
    return []


def sees(work: Work, s: Settings) -> dict[str, str]:
    paths = [work.place.comparison / SCORES, *work.place.result.glob("*.safetensors")]
    return {path.name: images.sha256(path) for path in paths if path.is_file()}


def stands(last: dict[str, Any], s: Settings) -> bool:
    """A choice by hand stays until there are new saves; what else is asked for is done."""
    return bool(last.get("saves")) and s.model_dump(mode="json") == {**last, "saves": []}


def keeps(work: Work, s: Settings) -> Settings:
    """The settings with the choice by hand, which stays until there are new saves."""
    last = last_pick(work)
    hand = last.get("by_hand")
    with suppress(InputError):  # no scores: `ready` says it
        if hand and not s.saves and last.get("saves") == compared(read_scores(work)):
            # an earlier version kept numbers of epochs or steps
            return s.model_copy(update={"saves": tuple(hand.get("saves") or [last["pick"], *last["to_try"]])})
    return s


def outputs(work: Work, s: Settings) -> list[Path]:
    """The chosen file, its preview, its sidecar, and what was decided."""
    beside = [work.place.chosen.with_suffix(suffix) for suffix in (".safetensors", ".png", ".json")]
    return [*beside, work.place.comparison / VERDICT]


def asks_more(work: Work, s: Settings) -> int:
    """Epochs that the chain is to train on now; 0 if no more are asked for, or this training went on once already."""
    verdict = last_pick(work)
    if not s.if_undertrained or verdict.get("passed", True) or verdict["verdict"]["kind"] != "undertrained":
        return 0
    try:
        plan = json.loads((work.place.result / "log" / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return 0 if plan["from"]["more"] else int(s.if_undertrained.partition(" ")[2])


def ready(work: Work, s: Settings) -> None:
    """There is what is to be chosen, and it is what was compared."""
    decision(work, read_scores(work), s)


def run(work: Work, s: Settings) -> Result:
    refuse_foreign(work)
    told = read_scores(work)
    verdict, chosen = decision(work, told, s)
    choices = [choice(row, chosen[0], verdict, hand=bool(s.saves)) for row in chosen]
    result = told_as(work, choices, verdict)
    if not work.apply:
        return replace(result, summary=f"{result.summary}\nnothing was copied; do it with --apply")
    written = dict(last_pick(work).get("written") or {})
    lines = publish(work, told, choices, s.rank, written)
    document = decided(work.place.name, choices, verdict, s) | {"saves": compared(told), "written": written}
    write_whole(work.place.comparison / VERDICT, as_json(document))
    for role, path in zip(("chosen", "preview", "sidecar", "verdict"), outputs(work, s), strict=True):
        work.note.made(role, path)
    work.note.derived(work.place.chosen, work.place.result / choices[0].row["save"], "chosen")
    if (told_of := work.place.chosen.with_suffix(manifest.SUFFIX)).is_file():
        work.note.made("provenance", told_of)
    if s.saves:
        work.note.metric(0, AGREES, float(document["by_hand"]["agrees"]))
    return replace(result, lines=(*result.lines, *lines))


def publish(work: Work, told: dict[str, Any], choices: list[Choice], rank: int, written: dict[str, str]) -> list[str]:
    """Write the choice beside the set, everything to every folder of `publish_to`; return what there is to say."""
    lines: list[str] = []
    most = int(papers(work.place.result / choices[0].row["save"]).get("ss_network_dim") or 0)
    if rank and rank >= most > 0:
        lines, rank = [f"no smaller file: --rank {rank}, and the LoRA is of rank {most}"], 0
    small = [_publish.make(work, told, c, rank) for c in choices] if rank else []  # first, as it may be refused
    for i, one in enumerate(choices):
        made = _publish.make(work, told, one)
        if i == 0:
            lines += _publish.put(work.place.root, work.place.name, made, written)
        stem = f"{work.place.name}-{_publish.short(one.row)}"
        for folder in work.workspace.publish_to:
            lines += _publish.put_own(folder, stem, made, written, one.row["tensors"])
        for folder in (work.place.root, *work.workspace.publish_to) if rank else ():
            lines += _publish.put_own(folder, f"{stem}-r{rank}", small[i], written, one.row["tensors"])
    return lines


# ---------------------------------------------------------------- the decision


def decision(work: Work, told: dict[str, Any], s: Settings) -> tuple[Verdict, list[Row]]:
    """The verdict, and the columns that go out, the choice first."""
    verdict, rows = judged(work, told, s)
    chosen = by_hand(rows, s.saves) if s.saves else [next(r for r in rows if r["save"] == verdict.pick)]
    for row in chosen:
        save = work.place.result / row["save"]
        if not save.is_file() or images.sha256(save) != row["sha256"]:
            raise InputError(f"{save} is not the file that was compared: `lora compare {work.place.name}` again")
    return verdict, chosen


def judged(work: Work, told: dict[str, Any], s: Settings) -> tuple[Verdict, list[Row]]:
    """The verdict, and the columns that it is about."""
    from lorafactory.scoring.evidence import evidence
    from lorafactory.scoring.verdict import decide

    table, yardstick = evidence(told)
    names = {scores.save for scores in table}
    base = told["columns"][0]["base"]
    rows = [r for r in told["columns"] if (r["strength"], r["base"]) == (told["strength"], base) and r["save"] in names]
    rate = None
    with suppress(KeyError, ValueError):
        rate = float(papers(work.place.result / rows[-1]["save"])["ss_learning_rate"])
    return decide(table, yardstick, thresholds(s), name=work.place.name, rate=rate), rows


def thresholds(s: Settings) -> Thresholds:
    from lorafactory.scoring.verdict import Thresholds

    return Thresholds(**{field.name: getattr(s, field.name) for field in dataclasses.fields(Thresholds)})


def by_hand(rows: list[Row], names: Sequence[str]) -> list[Row]:
    """The rows of the saves that a person called so."""
    found = {name: called(rows, name) for name in names}
    missing = [name for name, row in found.items() if row is None]
    if missing:
        text = f"pick: no save was compared that is called {missing[0]}; there are "
        raise SettingsError(text + ", ".join(f"{Path(row['save']).stem} ({row['label']})" for row in rows))
    return list({row["save"]: row for row in found.values() if row}.values())


def called(rows: list[Row], name: str) -> Row | None:
    """The save of that file or label, or else of that epoch or step: the last one if there are several."""
    path = Path(name)
    if len(path.parts) > 1:  # saves of other trainings have the same names
        sha256 = images.sha256(path) if path.is_file() else ""
        return next((row for row in rows if row["sha256"] == sha256), None)
    stem, number = name.removesuffix(".safetensors"), re.fullmatch(r"(epoch|step|) ?0*(\d+)", name)
    found = [row for row in rows if stem in (row["save"].removesuffix(".safetensors"), row["label"])]
    if number and not found:
        found = [row for row in rows if row[number[1] or "epoch"] == int(number[2])]
    return found[-1] if found else None


def choice(row: Row, first: Row, verdict: Verdict, *, hand: bool) -> Choice:
    """What is said of a save that goes out."""
    failed = verdict.rejected.get(row["save"], "")
    outcome = (verdict.kind or "rejected") if failed else "passed"
    if not hand:
        return Choice(row, outcome, verdict.reason, by_hand=False)
    how = "chosen by hand" if row is first else f"to try beside {first['label']}"
    fails = f" It fails: {failed}." if failed else ""
    return Choice(row, outcome, f"{row['label']}, {how}.{fails} The verdict: {verdict.reason}", by_hand=True)


def told_as(work: Work, choices: list[Choice], verdict: Verdict) -> Result:
    """A person's choice always passes: the chain ends as they wanted."""
    first = choices[0]
    passed = verdict.passed or first.by_hand
    data = {
        "pick": first.row["save"],
        "epoch": first.row["epoch"],
        "step": first.row["step"],
        "file": str(work.place.chosen),
        "to_try": [c.row["save"] for c in choices[1:]],
        "passed": passed,
        "kind": None if passed else verdict.kind,
        "next": None if passed else verdict.next,
        "reason": first.reason,
        "runner_up": verdict.runner_up,
        "rejected": dict(verdict.rejected),
        "by_hand": first.by_hand,
    }
    lines = [f"rejected {save}: {why}" for save, why in verdict.rejected.items()]
    lines += [f"next: {data['next']}"] if data["next"] else []
    return Result(f"pick: {first.reason}", data, tuple(lines))


def decided(name: str, choices: list[Choice], verdict: Verdict, s: Settings) -> dict[str, Any]:
    """What verdict.json keeps: the choice and, beside it, the verdict."""
    first = choices[0]
    row, agrees = first.row, first.row["save"] == verdict.pick
    other = next((save for save in (verdict.runner_up, verdict.pick) if save not in (None, row["save"])), None)
    return {
        "pick": row["save"],
        "label": row["label"],
        "epoch": row["epoch"],
        "step": row["step"],
        "sha256": row["sha256"],
        "tensors": row["tensors"],
        "passed": verdict.passed or first.by_hand,
        "reason": first.reason,
        "by_hand": {"saves": s.saves, "agrees": agrees} if first.by_hand else None,
        "to_try": [c.row["label"] for c in choices[1:]],
        "another": shlex.join(["lora", "pick", name, Path(other).stem]) if other else None,
        "verdict": asdict(verdict),
        "thresholds": asdict(thresholds(s)),
    }


# ---------------------------------------------------------------- taken back


def take_away(work: Work) -> list[str]:
    """Remove the published copy and what lies beside it, as they were written; the save stays. Say what is not ours."""
    written, lines = last_pick(work).get("written") or {}, []
    for suffix in (".safetensors", ".png", ".json", manifest.SUFFIX):
        path = work.place.chosen.with_suffix(suffix)
        if path.is_file() and images.sha256(path) == written.get(path.name):
            path.unlink()
        elif path.is_file():
            lines.append(f"{path.name}: not ours, left as it is")
    (work.place.comparison / VERDICT).unlink(missing_ok=True)
    return lines
