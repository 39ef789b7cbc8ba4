"""What is imported is declared, what is declared is imported, and every test runs with declared versions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TABLES = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TABLES["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
GROUPS: dict[str, list[str | dict[str, str]]] = TABLES["dependency-groups"]
PROGRAM = [*(ROOT / "src").rglob("*.py"), ROOT / "process.py", ROOT / "train.py", ROOT / "test_chunked_system.py"]
# loading_peers runs in an environment of its own, with the packages that it compares.
AROUND = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "docs" / "conf.py"]
# my_samplers is a file that a recipe of docs/extending.md makes.
OWN = {"tests", "my_samplers", *(path.stem for folder in ("src", "benchmarks") for path in (ROOT / folder).iterdir())}
NOT_INSTALLED = {"scvi": "scvi-tools", "scib_metrics": "scib-metrics"}
DISTRIBUTIONS = packages_distributions() | {name: [found] for name, found in NOT_INSTALLED.items()}
NOT_IMPORTED = {
    "flask": "serves moto's S3, which starts in a process of its own",
    "flask-cors": "imported by moto's server",
    "gcp-storage-emulator": "started as a program of its own",
    "gcsfs": "imported by fsspec",
    "ipykernel": "runs the tutorials",
    "myst-nb": "imported by Sphinx",
    "sphinx-book-theme": "imported by Sphinx",
    "sphinx-copybutton": "imported by Sphinx",
    "hydra-joblib-launcher": "imported by Hydra",
    "hydra-optuna-sweeper": "imported by Hydra",
    "hydra-submitit-launcher": "imported by Hydra",
    "igraph": "imported by scanpy's leiden",
    "itables": "its script and style go into pages as they are",
    "scikit-image": "imported by scanpy's scrublet",
    "moto": "started as a program of its own",
    "s3fs": "imported by fsspec",
    "sqlalchemy": "imported by optuna",
    "scvi-tools": "imported by whoever trains its models",
    "mypy": "make check",
    "pandas-stubs": "make check",
    "pre-commit": "make check before every commit",
    "pytest-xdist": "make test",
    "ruff": "make check",
    "types-pyyaml": "make check",
    "types-tqdm": "make check",
}


class Import(NamedTuple):
    """A distribution that a file imports; lazily if not as soon as the file is."""

    distribution: str
    lazily: bool
    path: str


def imports(paths: Iterable[Path]) -> set[Import]:
    """Every import of other people's packages, in functions and for type checkers too."""
    found = {(name, lazily, path) for path in paths for name, lazily in modules(ast.parse(path.read_text()))}
    return {
        Import(canonicalize_name(distribution), lazily, str(path.relative_to(ROOT)))
        for name, lazily, path in found
        if name not in OWN and name not in sys.stdlib_module_names
        for distribution in DISTRIBUTIONS.get(name, [name])
    }


def modules(node: ast.AST, lazily: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level modules that are imported below ``node``."""
    names: list[str] = []
    match node:
        case ast.Import():
            names = [alias.name for alias in node.names]
        case ast.ImportFrom(level=0, module=str(module)):
            names = [module]
        case ast.FunctionDef() | ast.If(test=ast.Name("TYPE_CHECKING")):
            lazily = True
    yield from ((name.partition(".")[0], lazily) for name in names)
    for inner in ast.iter_child_nodes(node):
        yield from modules(inner, lazily)


def requirements(lines: Iterable[str]) -> Iterator[Requirement]:
    """Requirements by name, with those of our own extras in place of these."""
    for requirement in map(Requirement, lines):
        if requirement.name != PROJECT["name"]:
            yield requirement
        for extra in requirement.extras if requirement.name == PROJECT["name"] else ():
            yield from requirements(EXTRAS[extra])


def of_group(group: str) -> Iterator[str]:
    """Lines of a group, with those of the groups that it includes in their place."""
    for line in GROUPS[group]:
        if isinstance(line, str):
            yield line
        else:
            yield from of_group(line["include-group"])


def names(lines: Iterable[str]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements(lines)}


ALWAYS = names(PROJECT["dependencies"])
OPTIONAL = {extra: names(lines) for extra, lines in EXTRAS.items()}
DEV = names(of_group("dev"))
OFFERED = ALWAYS.union(*OPTIONAL.values())
OF_BENCHMARKS = names(of_group("benchmarks"))
OF_PROGRAM, OF_TESTS = imports(PROGRAM), imports(AROUND)


def undeclared(found: set[Import], always: set[str], lazily: set[str]) -> set[Import]:
    return {one for one in found if one.distribution not in (lazily if one.lazily else always)}


def test_imports_are_found() -> None:
    code = "import a.b\nif TYPE_CHECKING:\n    from c.d import e\nclass F:\n    from g import h\ndef f(): import i, j\n"
    expected = {("a", False), ("c", True), ("g", False), ("i", True), ("j", True)}
    assert set(modules(ast.parse(code))) == expected


def test_what_the_program_imports_is_declared() -> None:
    assert undeclared(OF_PROGRAM, ALWAYS, OFFERED) == set()


def test_what_tests_and_benchmarks_import_is_declared() -> None:
    assert undeclared(OF_TESTS, ALWAYS | DEV, OFFERED | DEV | OF_BENCHMARKS) == set()
    assert {one.distribution for one in OF_TESTS} >= OF_BENCHMARKS


def test_what_configurations_name_is_declared() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "conf").rglob("*.yaml"))
    packages = set(re.findall(r"_target_: (\w+)", text)) - OWN
    assert packages
    assert {canonicalize_name(name) for package in packages for name in DISTRIBUTIONS[package]} <= ALWAYS


def test_what_is_declared_is_imported_or_has_another_reason() -> None:
    used = {one.distribution for one in OF_PROGRAM}
    assert OFFERED - used <= NOT_IMPORTED.keys()
    assert DEV - used - {one.distribution for one in OF_TESTS} <= NOT_IMPORTED.keys()
    assert NOT_IMPORTED.keys() <= (OFFERED | DEV) - used


@pytest.mark.parametrize("extra", OPTIONAL)
def test_who_lacks_an_extra_is_told_how_to_get_it(extra: str) -> None:
    command = f"pip install 'scvae-data[{extra}]'\""  # the end of an error's message
    assert any(command in path.read_text() for path in PROGRAM)


def test_every_test_runs_with_declared_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(pins) == len(lines)
    for needed in requirements([*PROJECT["dependencies"], *of_group("dev")]):
        assert needed.specifier.contains(pins[canonicalize_name(needed.name)]), needed
