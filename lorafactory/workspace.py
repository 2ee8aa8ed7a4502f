"""Where everything lives: the workspace, a LoRA's folder, the model set. Looking never creates anything."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorafactory.errors import BaseError, SettingsError
from lorafactory.files import write_whole

CONFIG = "lorafactory.toml"
OWN_KEYS = ("models", "publish_to", "watch")
"""Top-level keys of lorafactory.toml that are the workspace's own."""
VARIABLE = "LORAFACTORY_WORKSPACE"
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.+|[. ]+$')
REAL_CLIP = "ViT-B-32-quickgelu/openai"
REAL_BLIP = "Salesforce/blip-image-captioning-large"


@dataclass(frozen=True)
class Workspace:
    """The folder that holds the record, the drops and the LoRAs."""

    root: Path
    how: str
    """Which rule found it, for the first line of `make`."""

    @property
    def record(self) -> Path:
        return self.root / "lorafactory.db"

    @property
    def loras(self) -> Path:
        return self.root / "loras"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def compared(self) -> Path:
        """What was drawn of LoRA files that belong to no LoRA here."""
        return self.root / "compared"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def config_path(self) -> Path:
        return self.root / CONFIG

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """lorafactory.toml as it stands, empty if there is none."""
        if not self.config_path.exists():
            return {}
        try:
            return tomllib.loads(self.config_path.read_text(encoding="utf-8-sig"))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{self.config_path} is not TOML: {error}") from error

    @property
    def models(self) -> list[Path]:
        """Folders in which checkpoints are looked for."""
        return [Path(p).expanduser() for p in self.config.get("models", [])]

    @property
    def publish_to(self) -> list[Path]:
        """Folders that also get a copy of every pick."""
        return [Path(p).expanduser() for p in self.config.get("publish_to", [])]

    def lora(self, name: str) -> LoraDir:
        """The folder of the LoRA called `name`; it need not exist yet."""
        return LoraDir(safe_name(name), self.loras / safe_name(name), owned=True)


@dataclass(frozen=True)
class LoraDir:
    """A LoRA's folder, or any folder of pictures that a single command was given."""

    name: str
    root: Path
    owned: bool
    """True in a workspace's `loras/`; elsewhere commands report until `--apply`."""

    @property
    def settings(self) -> Path:
        return self.root / "lora.toml"

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def images(self) -> Path:
        """Where the set is: `training_images/`, or a foreign folder itself."""
        return self.root / "training_images" if self.owned else self.root

    @property
    def masks(self) -> Path:
        """Grey pictures named like those of the set: white is learned, black is not."""
        return self.root / "masks"

    @property
    def result(self) -> Path:
        return self.root / "result_current"

    @property
    def earlier_results(self) -> Path:
        return self.root / "results"

    @property
    def comparison(self) -> Path:
        return self.root / "txt2img-images"

    @property
    def chosen(self) -> Path:
        return self.root / f"{self.name}.safetensors"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def recorded(self) -> str:
        """Its name in the record; a folder elsewhere goes by its place, not to be taken for the LoRA of its name."""
        return self.name if self.owned else str(self.root)

    @property
    def lock(self) -> Path:
        """The lock file; that of a folder elsewhere leaves nothing in it."""
        if self.owned:
            return self.root / ".lora.lock"
        place = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"lorafactory-{place}.lock"


def find_workspace(explicit: Path | None = None) -> Workspace:
    """`--workspace`, then the variable, then the nearest parent with lorafactory.toml, then `~/lorafactory`."""
    if explicit is not None:
        return Workspace(explicit.expanduser().resolve(), "--workspace")
    if given := os.environ.get(VARIABLE):
        return Workspace(Path(given).expanduser().resolve(), f"${VARIABLE}")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG).is_file():
            return Workspace(folder, f"{CONFIG} found there")
    return Workspace(Path.home() / "lorafactory", "the default")


def safe_name(name: str) -> str:
    """Keep letters and digits of any script; replace only what no file system should be given."""
    safe = _UNSAFE.sub("_", name.strip())
    if not safe.strip("_"):
        raise SettingsError(f"{name!r} is no name for a LoRA: use letters or digits, as in `lora make anna`")
    return safe


def target(workspace: Workspace, given: str) -> LoraDir:
    """What a command's NAME_OR_FOLDER means: a LoRA of the workspace first, then a folder (`./anna` is a folder)."""
    plain = given == safe_name(given) if given.strip("./\\") else False
    if plain and (workspace.loras / given).is_dir():
        return workspace.lora(given)
    folder = Path(given).expanduser()
    if folder.is_dir():
        inside = folder.resolve()
        if inside.parent == workspace.loras.resolve():
            return workspace.lora(inside.name)
        return LoraDir(re.sub(r"^\d+_", "", inside.name), inside, owned=False)
    name = safe_name(folder.name or "NAME")
    raise SettingsError(
        f"nothing at {given}: no LoRA of that name in {workspace.loras}, no folder {folder}\n"
        f"    lora make {name} --from FOLDER\n"
        f"    lora make {name} --to generate --set 'generate.prompts=[\"...\"]'      a base draws them"
    )


# ---------------------------------------------------------------- models


@dataclass(frozen=True)
class ModelSet:
    """The base, CLIP and BLIP that belong together: `pocket`, or real ones."""

    base: Path | None
    """A diffusers folder or a one-file checkpoint."""
    clip: str
    """`folder:PATH`, or open_clip's `MODEL/TAG`."""
    blip: str
    """A folder, or a hub id."""
    dino: str = ""
    """`folder:PATH`; empty: one of those that `encoders.dino` knows, where it is on this machine."""
    pocket: bool = False
    vae: Path | None = None
    """A file or folder whose VAE is used instead of the base's own."""
    prediction: str | None = None
    """What the base was taught to answer, where it does not say so itself."""

    @property
    def told(self) -> dict[str, Any]:
        """What is said of the base beside its place, as `families.inspect` and `load` take it."""
        return {"vae": self.vae, "prediction": self.prediction}


def model_set(
    workspace: Workspace, base: str | None, *, vae: str | None = None, prediction: str | None = None
) -> ModelSet:
    """Find the models for a base as a recipe names it; raise BaseError with what to type if that cannot be."""
    told: dict[str, Any] = {"vae": Path(vae).expanduser() if vae else None, "prediction": prediction}
    if vae and not told["vae"].exists():
        raise BaseError(f"{vae}: there is no such VAE\n    --vae FILE.safetensors, or take out `vae`")
    if base == "pocket":
        from lorafactory.pocket import MODELS

        clip, dino = (f"folder:{MODELS / name}" for name in ("clip", "dino"))
        return ModelSet(MODELS / "base", clip, str(MODELS / "blip"), dino, pocket=True, **told)
    if not base:
        raise BaseError(no_base(workspace))
    if Path(base).suffix.lower() in {".ckpt", ".pt", ".pth", ".bin"}:
        raise BaseError(
            f"{base} is a pickle file, which can run any code when it is opened; it is not read.\n"
            "    use the .safetensors file of the same model, as in --base model.safetensors"
        )
    return ModelSet(locate(workspace, base), REAL_CLIP, REAL_BLIP, **told)


def draw_demo(folder: Path) -> int:
    """Draw the demo's originals into `folder`; return how many."""
    from lorafactory.pocket.demo import draw_demo as draw

    return draw(folder)


def locate(workspace: Workspace, base: str) -> Path:
    """Find a base: a path, or a unique part of the name of a checkpoint under `models`."""
    path = Path(base).expanduser()
    if path.is_dir() and (path / "model_index.json").is_file():
        return path
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.is_dir():
        raise BaseError(f"{path} is not a model: a diffusers folder has a model_index.json")
    found = [c for c in checkpoints(workspace) if base.lower() in c.name.lower()]
    exact = [c for c in found if base.lower() in (c.name.lower(), c.stem.lower())]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        names = "\n".join(f"    --base {c.stem}" for c in found)
        raise BaseError(f"{base!r} fits {len(found)} checkpoints; say more of the name:\n{names}")
    raise BaseError(f"no base called {base!r}.\n{no_base(workspace)}")


def checkpoints(workspace: Workspace) -> list[Path]:
    """Every checkpoint under the folders in `models`, sorted by name."""
    found: set[Path] = set()
    for folder in workspace.models:
        found |= set(folder.rglob("*.safetensors")) if folder.is_dir() else set()
        found |= {index.parent for index in folder.rglob("model_index.json")} if folder.is_dir() else set()
    return sorted(p for p in found if p.is_dir() or not any((q / "model_index.json").exists() for q in p.parents))


def no_base(workspace: Workspace) -> str:
    """What to do when no base is named: the checkpoints that were found, and the line to type."""
    found = checkpoints(workspace)
    if found:
        lines = ["No base model is named. Found here:", *(f"    --base {c.stem}" for c in found)]
    elif workspace.models:
        lines = ["No base model is named, and no checkpoint lies in " + ", ".join(map(str, workspace.models)) + "."]
    else:
        lines = [
            "No base model is named. Give one of:",
            "    --base FILE.safetensors      an SD 1.5 or SDXL checkpoint",
            "    --base FOLDER                a diffusers folder",
            f'    models = ["FOLDER"] in {workspace.config_path}, then --base PART_OF_A_NAME',
        ]
    return "\n".join([*lines, "    --base pocket                the toy model that ships with lorafactory"])


def base_identity(workspace: Workspace, models: ModelSet) -> str:
    """What a base is with all that is said of it: the sha256 of its weights, where nothing is."""
    assert models.base is not None
    own = identity(workspace, models.base)
    vae = identity(workspace, models.vae) if models.vae else ""
    said = [vae, models.prediction or "", schedule(models.base)]
    return hashlib.sha256("|".join([own, *said]).encode()).hexdigest() if any(said) else own


def schedule(base: Path) -> str:
    """What a diffusers folder says of noise, in canonical JSON: weights tell nothing of it. Else nothing."""
    try:
        told = json.loads((base / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        return json.dumps({key: told[key] for key in sorted(told) if not key.startswith("_diffusers")})
    except (OSError, ValueError, TypeError, AttributeError):  # what is wrong with it, its family says
        return ""


def identity(workspace: Workspace, path: Path) -> str:
    """sha256 of a model's weights, remembered by path, size and modification time in `cache/hashes.json`."""
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    memory_path = workspace.cache / "hashes.json"
    memory: dict[str, str] = json.loads(memory_path.read_text()) if memory_path.exists() else {}
    known = dict(memory)
    parts = []
    for file in files:
        stat = file.stat()
        key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in memory:
            with file.open("rb") as handle:
                memory[key] = hashlib.file_digest(handle, "sha256").hexdigest()
        parts.append(memory[key])
    if memory != known and workspace.root.exists():
        memory_path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory_path, json.dumps(memory, indent=0).encode())
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()
