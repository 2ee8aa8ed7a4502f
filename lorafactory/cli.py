"""The `lora` command: finds steps and commands by listing their folders, maps errors to exit codes."""

from __future__ import annotations

import ast
import importlib
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from lorafactory import __version__
from lorafactory.errors import BUG, FAILED, STOPPED, LoraError

HERE = Path(__file__).parent
SECTIONS = {
    "make": ("make", "check", "status"),
    "the set": ("rename", "generate", "dedupe", "filter", "caption", "repeats", "review", "export", "undo"),
    "train and choose": ("probe", "train", "compare", "pick", "report"),
    "automate": ("watch", "overnight", "retry"),
    "the record": ("why", "verify", "reproduce", "revoke", "join"),
    "the machine": ("recipe", "init", "doctor"),
}
EPILOG = """\b
For example:
  lora make demo                              a toy LoRA in minutes, nothing to download
  lora make anna --from photos --base pony    your own pictures and base
  lora caption ./photos --apply               one step on any folder

The workspace is --workspace, $LORAFACTORY_WORKSPACE, the nearest parent folder
with a lorafactory.toml, or else ~/lorafactory."""


class Commands(click.Group):
    """Commands by file name; nothing is imported until one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {
            p.stem.replace("_", "-") for folder in ("steps", "commands") for p in (HERE / folder).glob("[a-z]*.py")
        }
        known = [name for names in SECTIONS.values() for name in names if name in found]
        return [*known, *sorted(found - set(known))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stem = cmd_name.replace("-", "_")
        if (HERE / "commands" / f"{stem}.py").exists():
            found: click.Command = importlib.import_module(f"lorafactory.commands.{stem}").command
            return found
        if (HERE / "steps" / f"{stem}.py").exists():
            from lorafactory.options import command

            return command(importlib.import_module(f"lorafactory.steps.{stem}"))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in sections, with the first line of each file's docstring."""
        names = self.list_commands(ctx)
        rest = [n for n in names if not any(n in section for section in SECTIONS.values())]
        for title, section in [*SECTIONS.items(), ("more", tuple(rest))]:
            rows = [(name, first_line(name)) for name in section if name in names]
            if rows:
                with formatter.section(title.capitalize()):
                    formatter.write_dl(rows)


def first_line(name: str) -> str:
    """The command's one-line help, read from its file without importing it."""
    for folder in ("steps", "commands"):
        path = HERE / folder / f"{name.replace('-', '_')}.py"
        if path.exists():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            return text.partition("\n")[0]
    return ""


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lorafactory")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def lora(verbose: bool) -> None:
    """From a folder of pictures to a LoRA you would publish, with a record of every decision."""
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    for chatty in ("bitsandbytes", "diffusers", "transformers", "open_clip"):
        logging.getLogger(chatty).setLevel(logging.INFO if verbose else logging.ERROR)


def main(args: list[str] | None = None) -> None:
    """Run the command line and end the process with the exit code that `errors.py` gives the outcome."""
    for name in ("SIGTERM", "SIGHUP"):  # end in order, as after Ctrl-C: what was decided is recorded
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    try:
        outcome: Any = lora.main(args, prog_name="lora", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except LoraError as error:
        click.echo(f"lora: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("lora: stopped; the same line goes on", err=True)
        return STOPPED
    except OSError as error:
        click.echo(f"lora: {error}; mend that, then type the same again", err=True)
        return FAILED
    except Exception:
        traceback.print_exc()
        click.echo("lora: this is a bug in lorafactory; please report the lines above", err=True)
        return BUG
