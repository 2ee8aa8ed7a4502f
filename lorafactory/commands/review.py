"""A local page to cull pictures, mend captions, choose the save and watch the night; every act can be undone.

It is for this machine alone: the address has a token that opens once, and nobody else is answered. From another one,
or a phone, through a tunnel:  ssh -L 8770:127.0.0.1:8770 THIS_MACHINE

\b
For example:
  lora review anna
  lora review anna --no-browser --port 9000
  lora review ./photos --apply        on a folder that is not a LoRA's it only shows until --apply
"""

from __future__ import annotations

from pathlib import Path

import click

from lorafactory.errors import SettingsError
from lorafactory.options import workspace_option
from lorafactory.workspace import Workspace, find_workspace, target

PORT = 8770
LEAST = 16
"""Characters of a token for other machines."""


def review(space: Workspace, given: str, *, host: str, port: int | None, token: str, browse: bool, apply: bool) -> None:
    """Show the page until it is stopped; SettingsError if it would listen to others without a token of one's own."""
    from lorafactory.review.guard import Keys, is_loopback
    from lorafactory.review.room import Room
    from lorafactory.review.server import listen, serve

    if not is_loopback(host) and not token:
        raise SettingsError(
            f"--host {host}: others could reach the page. Better: ssh -L {PORT}:127.0.0.1:{PORT} THIS_MACHINE\n"
            f"    --token WORD    lets in who knows it; {LEAST} characters or more; what is sent can be read on the way"
        )
    if token and len(token) < LEAST:
        raise SettingsError(f"--token: {LEAST} characters are the least, or it is guessed")
    place = target(space, given)
    made = listen(host, PORT if port is None else port, exactly=port is not None)
    room = Room(space, place, place.owned or apply, Keys(token, chosen=True) if token else Keys())
    click.echo(f"{place.name} of {space.root}; Ctrl-C ends it", err=True)
    serve(room, made, host, browse=browse, say=click.echo)


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--port", type=click.IntRange(0, 65535), help=f"[default: {PORT}, or a free one where that is taken]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need --token.")
@click.option(
    "--token",
    default="",
    envvar="LORAFACTORY_TOKEN",
    show_envvar=True,
    help="Word in the address, instead of a random one.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--apply", is_flag=True, help="On a folder that is not a LoRA's: act, not only show.")
@workspace_option
def command(
    place: str, port: int | None, host: str, token: str, no_browser: bool, apply: bool, workspace: Path | None
) -> None:
    space = find_workspace(workspace)
    review(space, place, host=host, port=port, token=token, browse=not no_browser, apply=apply)
