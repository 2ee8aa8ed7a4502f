"""Where a LoRA's settings come from: the layers of DESIGN's one order, found and laid over each other.

defaults < lorafactory.toml < recipe < lora.toml < command line
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from lorafactory import families, recipe, steps
from lorafactory.errors import BaseError, SettingsError
from lorafactory.files import write_whole
from lorafactory.recipe import Layer, Recipe
from lorafactory.workspace import OWN_KEYS, LoraDir, Workspace, locate

VARIANTS = ("pony", "pocket")
"""Tables of a recipe besides the families': bases of a family that want other settings, told by their name."""
UNDERLYING = "default"
"""The recipe that lies under every other. One that nobody named, `Header.recipe`, lies under lorafactory.toml too."""


def recipes_folder() -> Path:
    """The recipes of the wheel, or of the checkout."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def own_recipes(workspace: Workspace) -> Path:
    """The workspace's own recipes."""
    return workspace.root / "recipes"


def recipe_files(workspace: Workspace | None = None) -> dict[str, Path]:
    """Every recipe by name; one that ships cannot be hidden by one of the workspace."""
    folders = [own_recipes(workspace)] if workspace else []
    return {p.stem: p for folder in (*folders, recipes_folder()) for p in sorted(folder.glob("*.toml"))}


def recipe_names(workspace: Workspace | None = None) -> list[str]:
    return sorted(recipe_files(workspace))


def recipe_path(name: str, workspace: Workspace | None = None) -> Path:
    """A recipe's file: by name, or a path to somebody's own."""
    own = Path(name).expanduser()
    if own.suffix == ".toml" and own.is_file():
        return own
    known = recipe_files(workspace)
    if name not in known:
        raise SettingsError(f"no recipe {name!r}; there are: {', '.join(sorted(known))}, or a path to a .toml file")
    return known[name]


def effective(workspace: Workspace, place: LoraDir, given: Mapping[str, Any] | None = None) -> Recipe:
    """All layers for this LoRA (or folder), the command line's values last. `given` has the shape of a recipe."""
    known = (steps.names(), [*families.names(), *VARIANTS])
    outer = [recipe.read(workspace.config_path, *known, extra=OWN_KEYS)] if workspace.config_path.is_file() else []
    inner = [recipe.read(place.settings, *known)] if place.settings.is_file() else []
    line = recipe.split("command line", given or {}, *known)
    head = recipe.combine([*outer, *inner, line]).header
    named = "recipe" in head.model_fields_set
    beneath = [UNDERLYING] if named else [UNDERLYING, head.recipe]
    above = [head.recipe] if head.recipe not in beneath else []
    low, high = ([recipe.read(recipe_path(n, workspace), *known) for n in names] for names in (beneath, above))
    layers: list[Layer] = [*low, *outer, *high, *inner, line]
    base = recipe.combine(layers).header.base
    return recipe.combine(layers, tables_for(workspace, base))


def tables_for(workspace: Workspace, base: str | None) -> tuple[str, ...]:
    """The family tables that hold for a base; none as long as the base cannot be found (checks say so later)."""
    if not base:
        return ()
    if base == "pocket":
        return ("sd15", "pocket")
    try:
        path = locate(workspace, base)
    except BaseError:
        return ()
    return (families.detect(path), *(v for v in VARIANTS if v in path.name.lower()))


def written(place: LoraDir) -> str:
    return place.settings.read_text(encoding="utf-8-sig") if place.settings.is_file() else ""


def write(place: LoraDir, values: Mapping[str, Any]) -> list[str]:
    """Put values into lora.toml, keeping a person's comments and order; return the changes as `-`/`+` lines."""
    document = tomlkit.parse(written(place))
    changes = []
    for dotted, value in values.items():
        *tables, key = dotted.split(".")
        table: Any = document
        for name in tables:
            table = table.setdefault(name, tomlkit.table())
        old = table.get(key)
        if old == value:
            continue
        table[key] = value
        changes += [f"- {dotted} = {tomlkit.item(old).as_string()}"] if old is not None else []
        changes.append(f"+ {dotted} = {tomlkit.item(value).as_string()}")
    if changes:
        place.root.mkdir(parents=True, exist_ok=True)
        write_whole(place.settings, tomlkit.dumps(document).encode())
    return changes
