"""Train a LoRA again from its record, and say whether it came out the same to the last bit.

Everything is taken by content: the base, the pictures, masks and captions as they were, wherever they lie now. What
is made goes to loras/NAME/reproduced/ and changes nothing else.

The verdict is one of: bit-identical (the same tensor hashes); same settings (all inputs are there, the bits differ,
as on another device or with other packages); impossible, with what is missing.

\b
For example:
  lora reproduce anna --plan       what it takes, and what is missing
  lora reproduce anna
  lora reproduce loras/anna/results/2026-01-02T03-04-05/anna-000004.safetensors     an earlier training
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from lorafactory import images, manifest, settings, step
from lorafactory.commands._called import SLASHES, lora_called
from lorafactory.commands._made import manifest_in, training_of
from lorafactory.commands._statement import papers
from lorafactory.errors import InputError, LoraError, SettingsError
from lorafactory.manifest import Document
from lorafactory.options import json_option, workspace_option
from lorafactory.recipe import Header, Recipe
from lorafactory.recording import environment
from lorafactory.step import Work
from lorafactory.steps import _papers, train
from lorafactory.store import Store, tidy
from lorafactory.training.lora_header import tensor_hash
from lorafactory.training.plan import Example, plan
from lorafactory.workspace import (
    LoraDir,
    ModelSet,
    Workspace,
    checkpoints,
    find_workspace,
    identity,
    model_set,
    schedule,
)

IDENTICAL, SAME = "bit-identical", "same settings"


@dataclass
class Recovered:
    """A training's inputs, as far as they are there still."""

    manifest: Document
    run: str
    """The training's public id."""
    saves: dict[str, str]
    """Name to tensor hash, as it came out."""
    means: Any
    models: ModelSet | None = None
    examples: list[Example] = field(default_factory=list)
    begins: Path | None = None
    missing: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    """What of the machine is not as it was."""


# ---------------------------------------------------------------- what is there


def recover(space: Workspace, store: Store, thing: str) -> tuple[LoraDir, Recovered]:
    """Find everything that a LoRA was trained on; SettingsError if the record does not know it."""
    path = Path(thing).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        found = training_of(store, path, papers(path))
        lora, run_id = found or (None, None)
    else:
        lora, run_id = lora_called(store, space, thing), None
    rows = store.ask("lora", lora=tidy(lora)) if lora else []
    row = next((r for r in rows if r["definition"] and run_id in (None, r["run_id"])), None)
    if row is None or lora is None:
        raise SettingsError(f"no training of {thing} in {space.record} left a manifest: lora why {thing}")
    made, came = manifest_in(store, row["run_id"]), store.ask("kept", run_id=row["run_id"], role="plan")
    told = json.loads(came[0]["text"]) if came else {"saves": {}, "means": None}
    owned = not SLASHES.intersection(lora)  # its folder may be gone
    place = space.lora(lora) if owned else LoraDir(made["lora"], Path(lora).expanduser(), owned=False)
    recovered = Recovered(made, row["run"], told["saves"], told["means"])
    look_for_models(space, place, recovered)
    look_for_files(place, recovered, json.loads(row["settings"]).get("from_lora") or "")
    recovered.differs = machine(made)
    return place, recovered


def look_for_models(space: Workspace, place: LoraDir, found: Recovered) -> None:
    """The base by its content: as it was named, as it is named now, then any checkpoint; and its VAE."""
    base, now = found.manifest["base"], settings.effective(space, place).header
    vae = None
    if base["vae_sha256"]:
        tried = [path for name in (now.vae, *checkpoints(space)) if name and (path := Path(name).expanduser()).exists()]
        vae = next((str(path) for path in tried if identity(space, path) == base["vae_sha256"]), None)
        found.missing += [] if vae else [f"the VAE (sha256 {base['vae_sha256']})"]
    for name in dict.fromkeys((base["asked"], now.base, *map(str, checkpoints(space)))):
        with suppress(LoraError):
            models = model_set(space, name, vae=vae, prediction=base["prediction"] or None)
            if models.base and is_base(space, models.base, base):
                found.models = models
                break
    if found.models is None:
        found.missing.append(f"the base {base['asked']} (sha256 {base['sha256']})")


def is_base(space: Workspace, path: Path, told: Mapping[str, Any]) -> bool:
    """Weights and schedule are those that were written down; earlier manifests do not know the schedule."""
    says = schedule(path)
    return bool(told.get("schedule", says) == says and identity(space, path) == told["sha256"])


def look_for_files(place: LoraDir, found: Recovered, from_lora: str) -> None:
    """Pictures, masks and the LoRA that was gone on from, by their content, wherever in the LoRA's folder they are."""
    inside = [
        p for p in place.root.rglob("*") if p.suffix.lower() in (*images.SUFFIXES, ".safetensors") and p.is_file()
    ]
    there = {images.sha256(path): path for path in inside}
    begins = found.manifest["from"]["sha256"]
    if begins:
        asked = Path(from_lora).expanduser()
        known = {images.sha256(asked): asked} if asked.is_file() else {}
        found.begins = (known | there).get(begins)
        found.missing += [] if found.begins else [f"the LoRA that it went on from (sha256 {begins})"]
    for told in found.manifest["pictures"]:
        path, mask = there.get(told["sha256"]), there.get(told["mask_sha256"])
        if path is None or (told["mask_sha256"] and mask is None):
            what = "" if path is None else "the mask of "
            found.missing.append(f"{what}{told['name']} (sha256 {told['mask_sha256' if what else 'sha256']})")
            continue
        known_as = {key: told[key] for key in ("name", "sha256", "caption", "repeats", "reg")}
        trigger = "" if told["reg"] else found.manifest["trigger"]
        width, height = images.size(path)
        known_as |= {"crop": (*told["crop"],) if told.get("crop") else None, "mask": mask}
        found.examples.append(Example(path=path, width=width, height=height, trigger=trigger, **known_as))


def machine(made: Document) -> list[str]:
    """In what this machine and its packages are not those of the training."""
    now, then = json.loads(environment()), made["environment"]
    pairs = {**{f"package {name}": (then["packages"].get(name), v) for name, v in now["packages"].items()}}
    pairs |= {key: (then[key], now[key]) for key in ("python", "platform")}
    pairs["device"] = (made["device"], _papers.device(made["precision"]["device"]))
    return [f"{what} was {was}, and is {here}" for what, (was, here) in pairs.items() if was != here]


# ---------------------------------------------------------------- once more


def rebuild(space: Workspace, place: LoraDir, found: Recovered) -> dict[str, str]:
    """Train once more; return name and tensor hash of each save."""
    import torch

    from lorafactory.training import loop, lora_file, precision
    from lorafactory.training.checkpoint import Keeper
    from lorafactory.training.session import Start

    made, models = found.manifest, found.models
    assert models is not None
    s, begins = train.Settings.model_validate(made["settings"]), made["from"]
    counted = plan(found.examples, s)
    header = Header.model_validate({key: made[key] for key in ("kind", "class", "trigger")})
    to = replace(place, name=made["lora"], root=place.root / "reproduced", owned=True)
    work = Work(space, to, Recipe(header, {}, {}))
    work.__dict__["models"] = models
    to.result.mkdir(parents=True, exist_ok=True)
    threads, started, hashes = torch.get_num_threads(), time.time(), {}
    torch.set_num_threads(made["threads"])
    try:
        decided = precision.Decision(**made["precision"])
        base = precision.load(models.base, decided, vae=models.vae, prediction=models.prediction)  # type: ignore[arg-type]
        defined = manifest.digest(manifest.definition(made))

        def on_save(save: loop.Save) -> None:
            for path in _papers.write_save(work, s, base, save, found.examples, counted, started, defined):
                hashes[path.name] = tensor_hash(path)

        tensors = lora_file.read(found.begins)[0] if found.begins else None
        start = Start(tensors, begins["epoch"], begins["step"])
        keeper = Keeper(plan={"means": found.means} if found.means else {})
        loop.train(base, found.examples, s, cache=space.cache, on_save=on_save, start=start, keeper=keeper)
    finally:
        torch.set_num_threads(threads)
    return hashes


def recorded(space: Workspace, place: LoraDir, found: Recovered) -> dict[str, Any]:
    """Do it as a run of its own; return what came out, and the verdict."""
    told: dict[str, Any] = {"version": 1, "key": "", "settings": {"of": found.run}}
    with step.locked(place), Store(space.record) as store, store.run(place.recorded, "reproduce", **told) as run:
        made = rebuild(space, place, found)
        said = verdict(found, made)
        run.metric(0, IDENTICAL, float(said == IDENTICAL))
    return {"made": made, "verdict": said}


def verdict(found: Recovered, hashes: dict[str, str]) -> str:
    """Bit-identical if every save that stayed came out with the same tensors."""
    same = found.saves and all(hashes.get(name) == tensors for name, tensors in found.saves.items())
    return IDENTICAL if same else SAME


def impossible(thing: str, missing: list[str]) -> str:
    told = "; ".join(missing[:5]) + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"{thing}: impossible because {told} is missing\n    bring it back under the LoRA's folder, or `models`"


@click.command(help=__doc__)
@click.argument("thing", metavar="LORA")
@click.option("--plan", "only_plan", is_flag=True, help="Say what it takes and what is missing; train nothing.")
@json_option
@workspace_option
def command(thing: str, only_plan: bool, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    with Store(space.record, readonly=True) as store:
        place, found = recover(space, store, thing)
    if found.missing:
        raise InputError(impossible(thing, found.missing))
    s = train.Settings.model_validate(found.manifest["settings"])
    lines = [f"{place.name}: {plan(found.examples, s)}", "  all that it was made of is there"]
    lines += [f"  {what}" for what in found.differs]
    data: dict[str, Any] = {"run": found.run, "differs": found.differs, "saves": found.saves}
    if not only_plan:
        data |= recorded(space, place, found)
        lines.append(f"{data['verdict']}: {len(data['made'])} saves in {place.root / 'reproduced' / 'result_current'}")
    click.echo(json.dumps(data) if as_json else "\n".join(lines))
