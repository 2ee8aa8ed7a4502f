"""Propose a lorafactory.toml, and fetch CLIP and BLIP for real pictures, the one time a hub is asked.

\b
For example:
  lora init                       writes lorafactory.toml into the workspace
  lora init --models D:/ComfyUI/models
  lora init --fetch               CLIP and BLIP, about 2.5 GB, from the Hugging Face hub
  lora init --fetch --tagger      the WD tagger too, 380 MB: tags for drawn pictures
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import tomlkit

from lorafactory import captioners, encoders
from lorafactory.errors import FailedError
from lorafactory.files import write_whole
from lorafactory.options import workspace_option
from lorafactory.workspace import REAL_BLIP, REAL_CLIP, Workspace, checkpoints, find_workspace

LIKELY = ("ComfyUI/models", "stable-diffusion-webui/models", "stable-diffusion-webui-forge/models", "models")
"""Where checkpoints often are, below the home folder."""


def propose(space: Workspace, models: list[Path]) -> bool:
    """Write lorafactory.toml if there is none; return whether it was written."""
    if space.config_path.exists():
        return False
    found = models or [p for name in LIKELY if (p := Path.home() / name).is_dir()]
    document = tomlkit.document()
    document.add(tomlkit.comment('base = "part of a checkpoint\'s name"    when a LoRA names none'))
    document.add("models", [p.as_posix() for p in found])
    document.add(tomlkit.comment('recipe = "portrait"                    see: lora recipe list'))
    space.root.mkdir(parents=True, exist_ok=True)
    write_whole(space.config_path, tomlkit.dumps(document).encode())
    return True


def fetch(tagger: bool = False) -> list[str]:
    """Download what CLIP and BLIP lack, with size and progress; return one line per repository, with its commit."""
    clip, blip = encoders.get("clip"), captioners.get("blip")
    wanted = [
        ("CLIP", REAL_CLIP, clip.missing(REAL_CLIP), clip.sources(REAL_CLIP)),
        ("BLIP", REAL_BLIP, blip.missing(REAL_BLIP), blip.sources(REAL_BLIP)),
    ]
    if tagger:
        wd = captioners.get("wd")
        wanted.append(("WD tagger", wd.MODEL, wd.missing(wd.MODEL), wd.sources(wd.MODEL)))
    return [
        f"{name}: {download(*sources)}" if lacking else f"{name} is here already: {model}"
        for name, model, lacking, sources in wanted
    ]


def download(repository: str, files: list[str]) -> str:
    """Fetch some files of one commit into the hub's cache; FailedError says why not."""
    go_online()
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(repository, files_metadata=True)
        there = {s.rfilename: s.size or 0 for s in info.siblings or []}
        chosen = [f for f in files if f in there]
        click.echo(f"{repository}: {sum(there[f] for f in chosen) / 1e6:.0f} MB", err=True)
        paths = [Path(hf_hub_download(repository, file)) for file in chosen]
    except (OSError, HfHubHTTPError) as error:
        raise FailedError(f"{repository} could not be fetched: {error}\n    type the same again") from error
    return f"{repository} at commit {paths[0].parent.name}"


def go_online() -> None:
    """Lift the offline default for this process, before or after the hub's library was imported."""
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[variable] = "0"
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import enable_progress_bars

    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_PROGRESS_BARS = False
    enable_progress_bars()


@click.command(help=__doc__)
@click.option(
    "--models", multiple=True, type=click.Path(path_type=Path), help="Folder with your checkpoints; repeatable."
)
@click.option("--fetch", "fetching", is_flag=True, help="Download what CLIP and BLIP lack.")
@click.option("--tagger", is_flag=True, help="With --fetch: the WD tagger too, for `lora caption --captioner wd`.")
@workspace_option
def command(models: tuple[Path, ...], fetching: bool, tagger: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    written = propose(space, list(models))
    click.echo(f"{space.config_path} {'written' if written else 'is there already and is left as it is'}")
    for checkpoint in checkpoints(find_workspace(workspace)):
        click.echo(f"  found {checkpoint.name}")
    for line in fetch(tagger) if fetching else []:
        click.echo(line)
