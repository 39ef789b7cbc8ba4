"""The house: imports run downward, in the order of the rooms; processing and loading meet only in store."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "scvae_data"

# From the top floor down; rooms in one line do not import each other.
FLOORS = {
    "scvae_data": [
        "__main__",
        "cli",
        "commands",
        "compat training scvi",
        "models",
        "results",
        "loading processing",
        "simulate readers tracking report",
        "store",
        "config system",
        "filter",
        "remote",
        "progress",
        "calling wording",
        "errors",
    ],
    "scvae_data.processing": [
        "preload",
        "shards",
        "pipeline",
        "finished",
        "write",
        "evidence",
        "decide",
        "scan",
        "survey",
        "run",
        "genes",
        "sort",
        "facts",
        "settings engine work",
        "labels",
    ],
    "scvae_data.loading": [
        "datamodule",
        "loader",
        "memory workers",
        "stream dataset",
        "batch ring",
        "fetch shared",
        "plan",
        "select",
        "settings",
    ],
}


def modules() -> Iterator[tuple[str, Path]]:
    """Name and file of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


NAMES = {name for name, _ in modules()}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                name = full if full in NAMES else str(node.module)
                if name in NAMES:
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)


IMPORTS = {name: sorted(set(imported(path)) - {name}) for name, path in modules()}


def room(package: str, module: str) -> str | None:
    """The part of a package that a module is, or lies in; None outside and for the package itself."""
    return module[len(package) + 1 :].partition(".")[0] if module.startswith(f"{package}.") else None


@pytest.mark.parametrize("package", FLOORS)
def test_imports_run_downward(package: str) -> None:
    floor = {name: number for number, names in enumerate(FLOORS[package]) for name in names.split()}
    rooms = {here for module in NAMES if (here := room(package, module)) is not None}
    assert rooms == floor.keys()
    upward = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if (here := room(package, module)) and (there := room(package, target))
        if here != there and floor[here] >= floor[there]
    ]
    assert upward == []


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises with the circle


def test_the_halves_meet_only_in_the_store() -> None:
    reached: defaultdict[str, set[str]] = defaultdict(set)
    for half in ("processing", "loading"):
        for module, targets in IMPORTS.items():
            if room("scvae_data", module) == half:
                reached[half].update(str(room("scvae_data", target)) for target in targets)
    assert "loading" not in reached["processing"]
    assert "processing" not in reached["loading"]
    below = {"filter", "remote", "system", "errors", "calling", "wording", "progress"}
    assert {"store"} <= reached["processing"] & reached["loading"] <= {"store", *below}
