"""The tests against the built wheel: each Python with the lowest and the highest versions that pyproject.toml allows.

``python -m tests.support.matrix --pythons python3.11 python3.12 --sets lowest -- tests/store -q``, or ``make
test-matrix``. There is one environment at a time, which is removed before the next, as a torch may be gigabytes. torch
has the version of constraints.txt in all of them: which build of it is right is decided by the machine's pip settings.
Warnings, which are errors in `make test`, are none here: they are of pairs of versions that nobody chose.
This module needs Python 3.11 and nothing else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLES = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TABLES["project"]
SETS = ("lowest", "highest")


def lowest(requirements: Sequence[str]) -> Iterator[str]:
    """What pip is to be constrained by for the lowest versions: ``name==1.2`` of each ``name>=1.2,<2``."""
    for requirement in requirements:
        if found := re.match(r"([\w.-]+)(?:\[[\w,-]*\])?>=([\w.]+)", requirement):
            yield f"{found[1]}=={found[2]}"


def declared() -> list[str]:
    """Requirements of the package, of all extras and of the tests, but for torch."""
    tables = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values(), TABLES["dependency-groups"]["test"]]
    extras_elsewhere = {"scvi-tools", "gcsfs", "s3fs", "scvae-data", "torch"}
    lines = [line for table in tables for line in table]
    return [line for line in lines if re.split(r"[\[<>=]", line)[0] not in extras_elsewhere]


def pinned(name: str) -> str:
    """The line of constraints.txt on a package."""
    return next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(f"{name}=="))


def runs(python: str) -> bool:
    """Whether there is such an interpreter; a name that a version manager keeps for another one does not run."""
    try:
        return subprocess.run([python, "--version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def run_tests(python: str, chosen: str, wheel: Path, arguments: Sequence[str]) -> str:
    """Make an environment, test the wheel in it and remove it; returns what came of it."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        inside = str(Path(folder, "venv", "bin", "python"))
        constraints = Path(folder, "constraints.txt")
        bounds = lowest(declared()) if chosen == "lowest" else []
        constraints.write_text("\n".join([pinned("torch"), *bounds]) + "\n")
        install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps = {
            "no environment": [python, "-m", "venv", Path(folder, "venv")],
            "no pip": [*install, "pip>=25.1"],
            "no torch": [*install, pinned("torch")],
            "not installed": [
                *install, "-c", constraints, f"scvae-data @ {wheel.as_uri()}",
                "--group", f"{ROOT / 'pyproject.toml'}:test",
            ],
            "failed": [inside, "-m", "pytest", "-W", "default", *arguments],
        }  # fmt: skip
        for outcome, command in steps.items():
            if subprocess.run(command, cwd=ROOT).returncode:
                return outcome
    return "passed"


def main() -> None:
    """Test all combinations, print a line for each, and fail if one does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=["python3.11", "python3.12", "python3.13"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("pytest", nargs="*", default=["-m", "not services"], metavar="ARGUMENT")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
        subprocess.run(build, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        outcomes = {}
        for python in given.pythons:
            for chosen in given.sets:
                here = run_tests(python, chosen, wheel, given.pytest) if runs(python) else "no such Python"
                outcomes[python, chosen] = here
                print(f"== {python} {chosen}: {here}", flush=True)
    print("\n".join(f"{python:24} {chosen:8} {outcome}" for (python, chosen), outcome in outcomes.items()))
    sys.exit(any(outcome not in ("passed", "no such Python") for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
