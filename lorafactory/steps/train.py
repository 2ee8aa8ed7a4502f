"""Train the LoRA, saving as it goes.

\b
For example:
  lora train anna
  lora train anna --epochs 8 --rank 32
  lora train anna --more 3             three epochs more, from the last save on
  lora train ./12_anna --base pocket --apply
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lorafactory import families, images, networks
from lorafactory.crops import Box
from lorafactory.dataset import Picture, Subset
from lorafactory.errors import BaseError, InputError, LoraError, Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.step import Result, StepSettings, Work, cache_key
from lorafactory.steps import _begin, _diary, _papers
from lorafactory.training import optimizers
from lorafactory.training.plan import Example, plan
from lorafactory.training.plan import check as plan_check
from lorafactory.training.saves import AVERAGE, START, Point, kept, stem
from lorafactory.training.settings import NEUTRAL, TrainSettings

if TYPE_CHECKING:
    from lorafactory.families import Base
    from lorafactory.steps._begin import Beginning
    from lorafactory.training.loop import Begun, Save

VERSION = 1
MODELS = ("base",)
HEADER = ("trigger",)
NEVER_MIRRORED = ("person", "character")


class Settings(TrainSettings, StepSettings):
    """The trainer's settings, as they are, and how a save is written."""

    save_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Precision of the LoRA file; fp16 is what interfaces expect and half the size of fp32."""
    sample_prompts: str = Field("", json_schema_extra=NEUTRAL)
    """What samples are drawn of: a file with a prompt per line in kohya's syntax, such as
    `{trigger}, a beach --n blurry --w 512 --h 768 --d 42 --s 30 --l 7`. None: what a comparison draws."""
    tensorboard: bool = Field(False, json_schema_extra=NEUTRAL)
    """Also write result_current/log/tensorboard/: loss, learning rate and samples. Needs the package tensorboard."""


def check(work: Work, s: Settings) -> list[Problem]:
    problems: list[Problem] = []
    try:
        if work.models.base is not None:
            problems = base_problems(families.inspect(work.models.base, **work.models.told), s)
        problems += [Problem(f"train: {text}", error=SettingsError) for text in plan_check(s)]
        problems += [Problem(f"train.{text}", fatal=False) for text in optimizers.remarks(s)]
        if work.set.pictures and not any(problem.fatal for problem in problems):
            steps = plan(split(work, s)[0], s).steps
            beyond = [f"{step}" for step in s.save_at if step > steps]
            text = f"train.save_at: the training ends at step {steps}, before {', '.join(beyond)}"
            problems += [Problem(text, "more epochs, or earlier steps", fatal=False)] if beyond else []
            if optimizers.is_adaptive(s.optimizer) and steps < optimizers.ENOUGH:
                text = (
                    f"train.optimizer: {s.optimizer} looks for its rate for 100 steps and more, and there are {steps}"
                )
                problems.append(Problem(text, "more epochs or repeats, or adamw", fatal=False))
    except LoraError as error:
        problems.append(Problem(str(error), error=type(error)))
    problems += [*extras_problems(work, s), *_begin.check(work, s)]
    problems += [Problem(f"{p} is not UTF-8 text", "save it again as UTF-8") for p in work.set.garbled]
    kind = work.recipe.header.kind
    if s.flip and kind in NEVER_MIRRORED and not s.force_flip:
        text = f"train.flip would mirror a {kind}, and its left and right sides differ"
        problems.append(Problem(text, "turn flip off, or --force-flip if it may be so", error=SettingsError))
    if s.holdout and work.set.pictures and s.holdout >= len(work.set.pictures):
        problems.append(Problem(f"train.holdout = {s.holdout} leaves no picture to train on", "make it smaller"))
    return problems


def base_problems(found: families.Found, s: Settings) -> list[Problem]:
    """Settings that this base has no use for, or that do not fit it."""
    problems = [Problem(f"train.{text}", error=SettingsError) for text in networks.check_blocks(s, found.family)]
    if s.scale_v_pred_loss and found.prediction_type != "v_prediction":
        text = "train.scale_v_pred_loss is for bases that predict v, and this one predicts the noise"
        problems.append(Problem(text, "take it out, or prediction = 'v_prediction'", error=SettingsError))
    if s.clip_skip > 1 and not found.reads_clip_skip:
        text = f"train.clip_skip = {s.clip_skip} has no effect: SDXL is read at its last but one layer, as by kohya"
        problems.append(Problem(text, "take it out", fatal=False))
    return problems


def extras_problems(work: Work, s: Settings) -> list[Problem]:
    """What is wrong with samples, saves by step, and logs."""
    problems = []
    wanted = bool(s.sample_every_epochs or s.sample_every_steps)
    if s.sample_prompts and not wanted:
        text = "train.sample_prompts is given, and no samples are drawn"
        problems.append(Problem(text, "--sample-every-epochs 1", fatal=False))
    try:
        remarks = _diary.asked(work, s.sample_prompts, s.resolution).remarks if wanted else ()
        problems += [Problem(remark, fatal=False) for remark in remarks]
    except InputError as error:
        problems.append(Problem(str(error), "mend the prompts, or take sample_prompts out"))
    if s.tensorboard and importlib.util.find_spec("tensorboard") is None:
        text = "train.tensorboard: the package tensorboard is not there"
        problems.append(Problem(text, "pip install tensorboard, or --no-tensorboard", error=SettingsError))
    return problems


def sees(work: Work, s: Settings) -> dict[str, str]:
    """Images, captions, masks, crops, and how often each is repeated."""
    seen, cut = {}, work.set.crops
    for subset in work.set.subsets:
        for picture in subset.pictures:
            told = f"{picture.sha256} {subset.repeats} {picture.caption}"
            if (mask := mask_of(work, picture, s)) is not None:
                told += f" {images.sha256(mask)}"
            if picture.name in cut:
                told += f" {cut[picture.name]}"
            seen[picture.name] = hashlib.sha256(told.encode()).hexdigest()
    if s.from_lora:
        seen["from_lora"] = images.sha256(Path(s.from_lora).expanduser())
    return seen


def outputs(work: Work, s: Settings) -> list[Path]:
    """The saves that stay; what there is to come with `more` never is there."""
    if s.more:
        return [work.place.result / "more"]
    if not work.set.pictures:
        return []
    return saves_of(work, s)


def saves_of(work: Work, s: Settings, after: Point = START) -> list[Path]:
    """The files that stay of a training that begins where another ended."""
    counted = plan(split(work, s)[0], s)
    points = [(Point(after.epoch + e, after.step + n), counted.ends_epoch(n)) for e, n in counted.saves]
    names = [stem(work.place.name, point, ends_epoch=ends) for point, ends in kept(points, s.keep_last)]
    files = [f"{name}{ending}" for name in names for ending in ("", AVERAGE)[: 1 + s.ema]]
    return [work.place.result / f"{name}.safetensors" for name in files]


def adds(last: dict[str, Any]) -> bool:
    """With `--more` the epochs before stay, whatever else was asked for those that came."""
    return bool(last.get("more"))


def plan_line(work: Work, s: Settings) -> str:
    """The plan in one line, exact: what is printed is what is run."""
    s = s.model_copy(update={"epochs": s.more, "max_steps": 0}) if s.more else s
    return f"train: {plan(split(work, s)[0], s)}"


def mask_of(work: Work, picture: Picture, s: Settings) -> Path | None:
    """The picture's mask, if there is one and it is to act."""
    path = (work.place.masks / picture.name).with_suffix(".png")
    return path if s.masked_loss and path.is_file() else None


def split(work: Work, s: Settings) -> tuple[list[Example], list[Example]]:
    """What is trained on, and what is held out: the pictures whose hash is smallest, so the choice is stable."""
    cut = work.set.crops
    examples = [example(work, p, subset, s, cut) for subset in work.set.subsets for p in subset.pictures]
    out = set(sorted(e.sha256 for e in examples if not e.reg)[: s.holdout])
    held_out = [e for e in examples if e.sha256 in out and not e.reg]
    return [e for e in examples if e not in held_out], held_out


def example(work: Work, picture: Picture, subset: Subset, s: Settings, cut: Mapping[str, Box]) -> Example:
    """A picture as the trainer wants it; without a caption it is called by the trigger, in reg/ by its class."""
    width, height = images.size(picture.path)
    caption = picture.caption
    return Example(
        name=picture.name,
        path=picture.path,
        sha256=picture.sha256,
        caption=(subset.word if subset.reg else work.trigger) if caption is None else caption,
        repeats=subset.repeats,
        width=width,
        height=height,
        trigger="" if subset.reg else work.trigger,
        reg=subset.reg,
        mask=mask_of(work, picture, s),
        crop=cut.get(picture.name),
    )


def run(work: Work, s: Settings) -> Result:
    if not work.apply:
        return Result(f"train: would be {plan(split(work, s)[0], s)}; --apply does it")
    import torch

    threads = torch.get_num_threads()
    same = _begin.identity(cache_key(sys.modules[__name__], work, s), sees(work, s))
    over = _begin.ended(work, s, same)
    if over and all(path.is_file() for path in saves_of(work, over.settings(s), over.after)):
        return told(work, over.settings(s), over)
    beginning = _begin.settle(work, s, same, threads)
    torch.set_num_threads(beginning.threads)  # another number gives other last bits
    try:
        return train(work, beginning.settings(s), beginning)
    finally:
        torch.set_num_threads(threads)


def train(work: Work, s: Settings, beginning: Beginning) -> Result:
    """Train as it was settled, from the base's loading to the last file."""
    from lorafactory.training import footprint, loop

    shown, held_out = split(work, s)
    counted, start = plan(shown, s), beginning.start
    base = load(work, s, beginning, shown)
    if not beginning.resumed and not beginning.source.more:
        keep_earlier(work)  # only now: what is wrong with set or base has ended this run before
    started = time.time()
    defined = _papers.define(work, s, base, beginning, shown)
    prompts = _diary.asked(work, s.sample_prompts, s.resolution).prompts if counted.sampled else ()
    with _diary.Diary(work, s, base, counted, prompts, tensorboard=s.tensorboard) as diary:

        def on_begin(begun: Begun) -> None:
            went = [(start.step + i, *row) for i, row in enumerate(begun.history, 1)]
            diary.begin([*beginning.earlier, *went], start.step + counted.steps)
            expected = footprint.expected(base, s, counted)
            diary.event(start.step + len(went), f"{beginning.decided}{expected}")
            if begun.seconds:
                total = begun.seconds * counted.steps
                told = f"{total / 3600:.1f} hours" if total > 5400 else f"{total / 60:.0f} min"
                diary.event(start.step, f"a step takes {begun.seconds:.2g} s, all of them about {told}")
            if beginning.resumed:
                diary.event(start.step + len(went), f"goes on after step {start.step + len(went)}, where it broke off")

        def on_save(save: Save) -> None:
            diary.saved(save, _papers.write_save(work, s, base, save, shown, counted, started, defined))

        outcome = loop.train(
            base,
            shown,
            s,
            cache=work.workspace.cache,
            on_begin=on_begin,
            on_step=diary.step,
            on_save=on_save,
            on_sample=diary.sample,
            on_event=diary.event,
            held_out=held_out,
            start=start,
            keeper=beginning.keeper,
        )
        diary.event(start.step + counted.steps, f"held at most {footprint.peak(base) / 1e9:.1f} GB")
    if outcome.holdout_before is not None:
        measured = {"before": outcome.holdout_before, "after": list(outcome.holdout_after)}
        write_whole(diary.log / "holdout.json", (json.dumps(measured) + "\n").encode())
    return told(work, s, beginning)


def load(work: Work, s: Settings, beginning: Beginning, shown: list[Example]) -> Base:
    """Load the base; BaseError before or after if it is a real one and the CPU would train it unasked."""
    import torch

    from lorafactory.training import loop, memory, precision

    path, decided = work.models.base, beginning.decided
    assert path is not None
    slow = decided.device == "cpu" and not (s.cpu or beginning.resumed) and memory.parameters(path) >= memory.REAL
    if slow:
        memory.refuse_cpu(path)
    memory.hold_to_free(torch.device(decided.device))
    base = precision.load(path, decided, vae=work.models.vae, prediction=work.models.prediction)
    if slow:
        steps = plan(shown, s).steps

        def refuse(begun: Begun) -> None:
            seconds = begun.seconds or 0.0
            raise BaseError(
                f"There is no card that torch can use. On this CPU a step takes {seconds:.1f} s, so {steps} steps "
                f"about {seconds * steps / 3600:.1f} hours.\n    --cpu trains all the same"
            )

        loop.train(base, shown, s, cache=work.workspace.cache, on_begin=refuse)
    return base


def keep_earlier(work: Work) -> None:
    """Move an earlier training to results/<start time>/, whole: nothing of it is lost."""
    result = work.place.result
    if not result.is_dir() or not any(result.iterdir()):
        return
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(min(p.stat().st_mtime for p in result.rglob("*"))))
    target, number = work.place.earlier_results / stamp, 2
    while target.exists():
        target, number = work.place.earlier_results / f"{stamp}~{number}", number + 1
    target.parent.mkdir(exist_ok=True)
    result.rename(target)


def told(work: Work, s: Settings, beginning: Beginning) -> Result:
    """Close a training that is over, and tell by its files what came of it, whichever process wrote them."""
    from lorafactory.training import checkpoint

    shown, log = split(work, s)[0], _begin.log_of(work)
    counted = plan(shown, s)
    saves = [path for path in saves_of(work, s, beginning.after) if path.is_file()]
    losses = [loss for step, loss, _ in _begin.read_losses(work) if step > beginning.after.step]
    each = counted.steps_per_epoch
    means = [sum(losses[i : i + each]) / each for i in range(0, len(losses), each)]
    few = max(1, len(losses) // 10)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    summary = f"train: {counted.steps} steps, {len(counted.saves)} saves, loss {first:.4f} -> {last:.4f}"
    data: dict[str, Any] = {"steps": counted.steps, "saves": [path.name for path in saves], "epoch_losses": means}
    if s.holdout:
        held = json.loads((log / "holdout.json").read_text(encoding="utf-8"))
        before, after = held["before"], held["after"][-1]
        summary += f", held out {before:.4f} -> {after:.4f} ({after / before:.3f})"
        data |= {"holdout_before": before, "holdout_after": held["after"]}
    for one in shown:
        work.note.used("trained on", one.name, one.sha256)
    for path in saves:
        work.note.made("save", path)
    _papers.record(work, beginning, saves)
    checkpoint.finish(_begin.state_of(work), log)
    return Result(summary, data)
