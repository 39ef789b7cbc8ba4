"""What is printed to be pasted: the program as it was called, settings that mean themselves through shell and Hydra."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scvae_data.calling import again, command, mend, override, own_options, program

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\"'${},=#[] "), max_size=20)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text("ab_", min_size=1), PLAIN, max_size=3)


def meant(text: str) -> Any:
    """What Hydra and OmegaConf make of an override."""
    value = OverridesParser.create().parse_override(text).value()
    return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore[index,call-overload]


@given(VALUES)
def test_any_value_survives_hydra(value: Any) -> None:
    assert meant(override("input.paths", value)) == value


@pytest.mark.parametrize(
    "folder", ["outputs/mine", "it's mine", "a #1", "$HOME/x", "a b", 'say "x"', "${x}", "a,b=[c]"]
)
def test_a_command_survives_the_shell(folder: str) -> None:
    line = command("train", "data=chunked", override("paths.processed_dir", folder))
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assert words[:3] == ["scvae-data", "train", "data=chunked"]
    assert meant(words[3]) == folder


CALLED = [
    pytest.param("process.py", "python", {}, "python process.py", id="checkout"),
    pytest.param("../a b/train.py", "python3", {}, "python3 '../a b/process.py'", id="checkout elsewhere"),
    pytest.param("process.py", "/x/.venv/bin/python", {"UV_RUN_RECURSION_DEPTH": "1"}, "uv run process.py", id="uv"),
    pytest.param("scvae-data train", "/x/bin/python", {}, "scvae-data process", id="installed"),
    pytest.param(
        "scvae-data info", "x", {"UV_RUN_RECURSION_DEPTH": "1"}, "uv run scvae-data process", id="uv, installed"
    ),
    pytest.param("/x/bin/ipykernel_launcher.py", "python", {}, "scvae-data process", id="notebook"),
]


@pytest.mark.parametrize(("called", "python", "environment", "expected"), CALLED)
def test_the_program_that_was_called_is_named(
    called: str, python: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "seed=1"])
    monkeypatch.setattr(sys, "orig_argv", [python, called, "seed=1"])
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert program("process") == expected
    assert mend() == f"run {expected} again with resume=true"


def test_the_command_that_runs_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scvae-data process", 'input.paths="a b"', "resume=false"])
    line = again("resume=true")
    assert shlex.split(line) == ["scvae-data", "process", 'input.paths="a b"', "resume=true"]
    monkeypatch.setattr(sys, "argv", ["my_app.py", "x=1"])
    assert again("resume=true") == "the same command with resume=true"
    assert again() == "the same command"


@pytest.mark.parametrize(
    ("words", "folder"),
    [([], None), (["qc=mine"], None), (["--config-dir", "own", "qc=mine"], "own"), (["qc=mine", "-cd=own"], "own")],
)
def test_the_folder_of_own_options(words: list[str], folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["process.py", *words])
    assert own_options() == (folder and Path(folder))
