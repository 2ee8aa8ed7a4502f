"""Imports only go down. The house's order, read from the imports themselves."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lorafactory"

LAYERS: list[set[str]] = [
    {"__main__", "manual"},
    {"cli"},
    {"commands"},
    {"review"},
    {"undoing"},
    {"daemon"},
    {"making"},
    {"options"},
    {"report", "index", "setcheck"},
    {"chain"},
    {"settings"},
    {"steps"},
    {"step"},
    {"past", "intake", "news", "note"},
    {"journal"},
    {"scoring", "training"},
    {"families", "networks", "encoders", "captioners", "exports"},
    {"dataset", "sidecars", "unzip"},
    {"crops", "trigger", "wording", "images", "store", "recipe", "workspace", "recipe_formats", "manifest"},
    {"recording", "migrations", "questions", "pocket", "colour", "heartbeat", "png"},
    {"files", "pages", "mounts"},
    {"errors"},
]
"""Highest first. A file may import from lower rows, and from its own package."""
ALLOWED = {
    ("store", "recording"), ("store", "migrations"), ("workspace", "pocket"), ("settings", "steps"),
    ("networks", "families"), ("families", "networks"),
}  # fmt: skip
NOBODY_ELSE = {
    "pocket": {"workspace", "pocket"},
    "store": {
        "step",
        "past",
        "options",
        "commands",
        "report",
        "index",
        "chain",
        "making",
        "daemon",
        "news",
        "undoing",
        "review",
    },
}
"""What few may import at all."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, inside functions too; what only types need is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "lorafactory":
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorafactory."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lorafactory.")}
    return found - {"__version__"}


def row(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def test_every_part_has_a_place():
    parts = {part_of(p) for p in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts <= set().union(*LAYERS)


def test_imports_only_go_down():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = part_of(path)
        if part == "__init__":
            continue
        for other in imports(path) - {part}:
            if row(other) <= row(part) and (part, other) not in ALLOWED:
                wrong.append(f"{path.relative_to(PACKAGE)} -> {other}")
    assert wrong == []


def test_few_import_the_pocket_and_the_store():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for guarded, friends in NOBODY_ELSE.items():
            if guarded in imports(path) and part_of(path) not in friends | {guarded}:
                wrong.append(f"{path.relative_to(PACKAGE)} -> {guarded}")
    assert wrong == []


def test_variants_never_import_each_other():
    wrong = []
    for group in ("steps", "commands", "families", "networks", "captioners", "encoders"):
        for path in (PACKAGE / group).glob("[a-z]*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                if module.startswith(f"lorafactory.{group}.") and not module.rpartition(".")[2].startswith("_"):
                    wrong.append(f"{path.relative_to(PACKAGE)} -> {module}")
    assert wrong == []
