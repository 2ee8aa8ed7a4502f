"""Make what is dropped into the inbox, and what is queued, until you stop it.

\b
For example:
  lora watch                Ctrl-C stops with a checkpoint; the next `lora watch` goes on
  lora watch --once         end when inbox and queue are empty
  lora watch --install      write a systemd user unit, and say how to turn it on

A folder or zip in inbox/ becomes a LoRA once it stays as it is for some seconds. `[watch]` in lorafactory.toml
has `on_done`, `silence_minutes` and `free_gb`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lorafactory.daemon.watch import watch
from lorafactory.errors import NEEDS_YOU, STOPPED
from lorafactory.files import write_whole
from lorafactory.options import workspace_option
from lorafactory.workspace import Workspace, find_workspace

UNIT = "lorafactory-watch.service"
GIVEN = 180
"""Seconds that systemd gives a job to write its checkpoint."""


ENDS = {NEEDS_YOU: "something needs you: lora status", STOPPED: "stopped; `lora watch` goes on"}


def install(space: Workspace) -> Path:
    """Write a systemd user unit for this workspace; nothing is started."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    line = " ".join(map(quoted, (sys.executable, "-m", "lorafactory", "watch", "--workspace", str(space.root))))
    text = f"""[Unit]
Description=lorafactory: LoRAs from what is dropped into the inbox

[Service]
ExecStart={line}
KillMode=mixed
TimeoutStopSec={GIVEN}
SuccessExitStatus=3 75
Restart=on-failure
RestartSec=30

[Install]
WantedBy=default.target
"""
    path = home / "systemd" / "user" / UNIT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    return path


def quoted(word: str) -> str:
    """A word as systemd reads it: neither its specifiers nor variables act in it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


@click.command(help=__doc__)
@click.option("--once", is_flag=True, help="End when inbox and queue are empty.")
@click.option("--install", "installs", is_flag=True, help="Write a systemd user unit, and nothing else.")
@workspace_option
@click.pass_context
def command(context: click.Context, once: bool, installs: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    if installs:
        click.echo(f"{install(space)}\n    systemctl --user daemon-reload && systemctl --user enable --now {UNIT}")
        click.echo("    loginctl enable-linger      also while you are not logged in")
        return
    click.echo(f"workspace {space.root} ({space.how})")
    click.echo(f"watching {space.inbox}; Ctrl-C stops with a checkpoint")
    code = watch(space, once=once, say=click.echo)
    click.echo(ENDS.get(code, "all is done"))
    context.exit(code)
