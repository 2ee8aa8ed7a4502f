"""Draw new originals with a base model: every prompt from several seeds, each with a .json that tells how.

Prompts are templates: `{angle}` and `{scene}` stand for each of the words that [generate.axes] lists under that name,
in every combination. --base draws with another model than the one trained on, such as an SDXL one for an SD 1.5 LoRA.

--over 2 draws twice as many and lets half of each prompt's pictures stay: CLIP finds the densest group that holds more
than half of them, and those nearest to its centre stay (the idea is that of The Chosen One, arXiv:2311.10093). The
others go to set_aside/less_alike; put one back into source/, and it stays.

What is drawn already is not drawn again, so an interrupted run goes on; what a person took out stays out (delete its
.json too to have it drawn again). Train on other words than these prompts: seed 001 says so, and `check` looks.

\b
For example:
  lora generate anna --prompts "photo of a {class}, {angle}" --axes '{angle = ["from the left", "close-up"]}' --count 20
  lora generate anna --base sdxl --over 2
  lora generate ./photos --base pocket --prompts "a large red star" --apply     into the folder itself
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lorafactory import encoders, families, images
from lorafactory.dataset import Picture
from lorafactory.errors import LoraError, Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._synthetic import same_words
from lorafactory.workspace import ModelSet, base_identity, model_set

if TYPE_CHECKING:
    from lorafactory.families import Base

VERSION = 2
HEADER = ("trigger", "class")
ASIDE = "less_alike"
RULE = "less alike"
_NAMED = re.compile(r"\{(\w+)\}")


class Settings(StepSettings):
    """What is drawn."""

    prompts: tuple[str, ...] = ()
    """What to draw; `{class}` and `{trigger}` stand for the LoRA's own, other names in braces for an axis."""
    axes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Lists of words by name, as in `angle = ["from the left", "close-up"]`: a prompt with `{angle}` is drawn with each
    of them, one with two axes with every pair."""
    count: int = Field(4, ge=1)
    """Pictures per prompt that are to stay. From 1; time and disk grow with it."""
    over: float = Field(1.0, ge=1, le=10)
    """Draw so many times more, and keep the most cohesive ones, 1 (all) to 10; asks CLIP."""
    no_clip: bool = False
    """Leave out CLIP: `count` pictures per prompt are drawn, whatever `over` says."""
    base: str = ""
    """The model that draws, named as the base is; empty takes the base that is trained on."""
    lora: str = ""
    """A LoRA file to draw with, at full strength, such as an earlier one's; empty draws with the base alone."""
    seed: int = Field(0, ge=0)
    """Seed of each prompt's first picture; the next ones count up."""
    steps: int = Field(30, ge=1)
    """Denoising steps per picture: more takes longer and changes little above 30. From 1."""
    cfg: float = Field(7.0, ge=0)
    """How closely the picture follows its prompt: 1 not at all, 5 to 9 is usual."""
    negative: str = ""
    """What the pictures should not show."""
    width: int = Field(0, ge=0, multiple_of=8)
    """Pixels, a multiple of 8; 0 takes the base's own size."""
    height: int = Field(0, ge=0, multiple_of=8)
    """Pixels, a multiple of 8; 0 takes the base's own size."""
    batch: int = Field(4, ge=1, json_schema_extra={"neutral": True})
    """Pictures drawn at once: more is faster and needs more memory. From 1."""

    @property
    def chosen(self) -> bool:
        """True if more are drawn than stay."""
        return self.over > 1 and not self.no_clip

    @property
    def drawn(self) -> int:
        """Pictures drawn per prompt."""
        return math.ceil(self.count * self.over) if self.chosen else self.count


@dataclass(frozen=True)
class Drawing:
    """One picture to be drawn: where, and what its .json tells."""

    path: Path
    told: dict[str, Any]

    @property
    def recorded(self) -> dict[str, Any]:
        """The .json as it stands; it has a `sha256` once the picture was whole, and why we set it aside if we did."""
        path = self.path.with_suffix(".json")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def missing(self) -> bool:
        """True if it is still to be drawn; False also if it was taken out after it was."""
        return not self.path.exists() and "sha256" not in self.recorded

    def record(self, **more: Any) -> None:
        text = json.dumps({**self.told, **more}, ensure_ascii=False, indent=1)
        write_whole(self.path.with_suffix(".json"), text.encode())


# ---------------------------------------------------------------- the hooks of a step


def check(work: Work, s: Settings) -> list[Problem]:
    problems = []
    if not [p for p in s.prompts if p.strip()]:
        line = f'lora generate {work.place.name} --prompts "..."'
        problems.append(Problem("generate: no prompts", line, error=SettingsError))
    used = set(_NAMED.findall(" ".join(s.prompts)))
    if "class" in used and not work.recipe.header.class_:
        line = "class = ... in lora.toml, or --class"
        problems.append(Problem("generate: a prompt has {class}, and none is set", line, error=SettingsError))
    unknown = sorted(used - {"class", "trigger", *s.axes})
    line = "[generate.axes] in the recipe, as in " + (unknown[0] if unknown else "angle") + ' = ["from the left"]'
    for name in unknown:
        problems.append(Problem(f"generate: no axis says what {{{name}}} is", line, error=SettingsError))
    for name, words in s.axes.items():
        if name in ("class", "trigger") or not words:
            why = "has no words" if not words else "is the LoRA's own word"
            problems.append(Problem(f"generate.axes: {name} {why}", "take it out", error=SettingsError))
        elif name not in used:
            problems.append(Problem(f"generate.axes: no prompt has {{{name}}}", fatal=False))
    return problems or [*model_problems(work, s), *same_words(work, grid(work, s))]


def model_problems(work: Work, s: Settings) -> list[Problem]:
    """What is wrong with a base of its own, and with CLIP if it is to choose. That no base is named is said later."""
    if s.lora and not Path(s.lora).expanduser().is_file():
        return [Problem(f"generate.lora = {s.lora}: no such file", "give a LoRA's .safetensors file")]
    if not s.base and not work.recipe.header.base:
        return []
    try:
        found = models(work, s)
        if found.base is not None:
            families.inspect(found.base, **found.told)
    except LoraError as error:
        return [Problem(f"generate: {error}", error=type(error))] if s.base else []
    lacking = encoders.get("clip").missing(found.clip) if s.chosen else None
    return [Problem(f"generate.over: {lacking}", "or --no-clip (generate.no_clip = true)")] if lacking else []


def sees(work: Work, s: Settings) -> dict[str, str]:
    """The model that draws. What was drawn is not looked at: a drawing that a person took out stays out."""
    return {"base": base_of(work, s)[1], **lora_of(s)}


def lora_of(s: Settings) -> dict[str, str]:
    """The hash of the LoRA that is drawn with, if there is one."""
    return {"lora_sha256": images.sha256(Path(s.lora).expanduser())} if s.lora else {}


def plan_line(work: Work, s: Settings) -> str:
    """How much is to be drawn, in one line."""
    wanted = drawings(work, s)
    prompts = len(grid(work, s))
    stay = f", {s.count} of each prompt stay" if s.chosen else ""
    line = f"{prompts} prompts x {s.drawn} seeds = {len(wanted)} pictures with {named(work, s)}{stay}"
    return f"generate: {line}, {sum(d.missing for d in wanted)} to be drawn"


def run(work: Work, s: Settings) -> Result:
    """Draw what is missing, picture by picture; then let the most cohesive stay."""
    wanted = drawings(work, s)
    missing = [d for d in wanted if d.missing]
    there = sum(d.path.exists() for d in wanted)
    gone = len(wanted) - len(missing) - there
    data: dict[str, Any] = {"drawn": [d.path.name for d in missing], "there": there, "gone": gone, "set_aside": []}
    stand = f"{there} there already" + (f", {gone} taken out earlier" if gone else "")
    if not work.apply:
        return Result(f"generate: {len(missing)} would be drawn, {stand}", data)
    draw(work, s, missing)
    if s.chosen:  # among what a person did not put back
        data["set_aside"] = choose(work, s, [d for d in wanted if d.path.exists() and "set_aside" not in d.recorded])
    out = f", {len(data['set_aside'])} set aside as less alike" if s.chosen else ""
    return Result(f"generate: {len(missing)} drawn, {stand}{out}", data)


# ---------------------------------------------------------------- what to draw


def models(work: Work, s: Settings) -> ModelSet:
    """The model that draws, and the CLIP that belongs to it."""
    return model_set(work.workspace, s.base) if s.base else work.models


def base_of(work: Work, s: Settings) -> tuple[ModelSet, str]:
    """The model that draws, and its sha256."""
    found = models(work, s)
    if found.base is None:
        raise SettingsError("generate: no base to draw with")
    return found, base_identity(work.workspace, found)


def named(work: Work, s: Settings) -> str:
    """What a person calls the model that draws, without its folder."""
    return Path(s.base or work.recipe.header.base or "").name


def grid(work: Work, s: Settings) -> list[str]:
    """Every prompt: each template with each combination of the axes it names, the last one changing fastest."""
    own = {"class": work.recipe.header.class_, "trigger": work.trigger}
    found = []
    for template in s.prompts:
        axes = [name for name in dict.fromkeys(_NAMED.findall(template)) if name in s.axes]
        for words in itertools.product(*(s.axes[name] for name in axes)):
            text = template
            for name, word in [*zip(axes, words, strict=True), *own.items()]:
                text = text.replace(f"{{{name}}}", word)
            found.append(text.strip())
    return list(dict.fromkeys(filter(None, found)))


def drawings(work: Work, s: Settings) -> list[Drawing]:
    """Every prompt with every seed. The name is a hash of all that makes the picture."""
    folder = work.place.source if work.place.owned else work.place.root
    model = base_of(work, s)[1]
    found = []
    for prompt in grid(work, s):
        for seed in range(s.seed, s.seed + s.drawn):
            told = {"prompt": prompt, "seed": seed, "base": named(work, s), "base_sha256": model}
            told |= s.model_dump(include={"steps", "cfg", "negative", "width", "height"})
            told |= lora_of(s)
            digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            found.append(Drawing(folder / f"generated-{digest[:16]}.png", told))
    return found


# ---------------------------------------------------------------- drawing


def draw(work: Work, s: Settings, missing: Sequence[Drawing]) -> None:
    """Draw batch by batch; what was drawn before an interruption stays."""
    if not missing:
        return
    missing[0].path.parent.mkdir(parents=True, exist_ok=True)
    from lorafactory.training import lora_file

    base = load(base_of(work, s)[0])
    batches = [missing[i : i + s.batch] for i in range(0, len(missing), s.batch)]
    with lora_file.applied(base, Path(s.lora).expanduser()) if s.lora else nullcontext():
        for batch in work.track(batches, "generating"):
            draw_batch(work, s, base, batch)


def load(models: ModelSet) -> Base:
    import torch

    assert models.base is not None
    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    return families.load(models.base, dtype=dtype, device="cuda" if gpu else "cpu", **models.told)


def draw_batch(work: Work, s: Settings, base: Base, batch: Sequence[Drawing]) -> None:
    """Draw one batch and write it, the .json first: a picture is never there without telling what it is."""
    from lorafactory.training.sample import sample

    unet: Any = base.parts["unet"]
    own = unet.config.sample_size * base.latent_factor
    pictures = sample(
        base,
        [d.told["prompt"] for d in batch],
        [d.told["seed"] for d in batch],
        steps=s.steps,
        cfg=s.cfg,
        size=(s.width or own, s.height or own),
        negative=s.negative,
        batch=s.batch,
    )
    for drawing, picture in zip(batch, pictures, strict=True):
        drawing.record()
        images.save_png(picture, drawing.path)
        drawing.record(sha256=images.sha256(drawing.path))
        work.note.made("original", drawing.path)
        if s.lora:
            work.note.derived(drawing.path, Path(s.lora).expanduser(), "drawn with")
        why = f"seed {drawing.told['seed']}: {drawing.told['prompt']}"
        work.note(Picture(drawing.path), "generated", "generate", why=why)


# ---------------------------------------------------------------- choosing


def choose(work: Work, s: Settings, there: Sequence[Drawing]) -> list[str]:
    """Let `count` pictures of each prompt stay, by nearness; set the others aside and return their names."""
    by_prompt: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in there:
        by_prompt[drawing.told["prompt"]].append(drawing)
    if all(len(own) <= s.count for own in by_prompt.values()):
        return []
    clip = encoders.get("clip")
    seen = clip.embed([Picture(d.path) for d in there], models(work, s).clip, work.workspace.cache, work.track)
    vectors = dict(zip((d.path for d in there), seen, strict=True))
    overall = dict(zip((d.path for d in there), nearness(seen), strict=True))
    out = []
    for own in by_prompt.values():
        # of two pictures alone neither is the odd one: then all prompts together tell
        scores = nearness(np.stack([vectors[d.path] for d in own])) if len(own) > 2 else [overall[d.path] for d in own]
        out += part(work, own, [float(x) for x in scores], s.count)
    return out


def part(work: Work, own: Sequence[Drawing], scores: Sequence[float], count: int) -> list[str]:
    """Set the less near of one prompt's pictures aside, all scores recorded; return their names."""
    used = [images.sha256(drawing.path) in work.past.imported for drawing in own]  # the set has it: too late
    order = sorted(range(len(own)), key=lambda i: (not used[i], -scores[i]))
    kept = min(max(count, sum(used)), len(own))
    threshold = scores[order[kept - 1]]
    for i in order[:kept]:
        work.note(Picture(own[i].path), "kept", RULE, score=scores[i], threshold=threshold)
    for i in order[kept:]:
        work.aside(Picture(own[i].path), ASIDE, RULE, score=scores[i], threshold=threshold)
        own[i].record(**{**own[i].recorded, "set_aside": RULE, "nearness": round(scores[i], 4)})
    return [own[i].path.name for i in order[kept:]]


def nearness(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine (n,) of each row of unit vectors (n, d) to the centre of the densest group of more than half of them.

    That group is the row whose n // 2 nearest rows are nearest in the mean, and these. The Chosen One
    (arXiv:2311.10093) takes the densest of the clusters that k-means finds; one that has the majority needs no k, and
    a few pictures that happen to be twins are none.
    """
    cosines = vectors @ vectors.T
    size = len(vectors) // 2 + 1
    densest = int(np.sort(cosines, axis=1)[:, -size:].mean(axis=1).argmax())
    centre = vectors[np.argsort(-cosines[densest], kind="stable")[:size]].mean(axis=0)
    found: NDArray[np.float32] = vectors @ (centre / np.linalg.norm(centre))
    return found
