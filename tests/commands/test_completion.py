"""What the tab key completes in bash: commands, their options, and what Hydra knows of the programs."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from scvae_data.cli import COMMANDS
from scvae_data.commands.completion import script

SCRIPT = script("bash", {name: command.add for name, command in COMMANDS.items()})


def completed(line: str) -> set[str]:
    """Return what bash would offer at the end of a line."""
    asking = f"""
        scvae-data() {{ {shlex.quote(sys.executable)} -m scvae_data "$@"; }}
        {SCRIPT}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        read -r -a COMP_WORDS <<< "$COMP_LINE"
        [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _scvae_data
        printf "%s\\n" "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", asking], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {word for word in done.stdout.split("\n") if word}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("scvae-data comp", {"compact ", "compile ", "completion "}, id="command"),
        pytest.param("scvae-data de RUN --group", {"--group1 ", "--group2 "}, id="option"),
        pytest.param("scvae-data completion ", {"--help ", "bash ", "zsh "}, id="choice"),
        pytest.param("scvae-data info ", {"--help "}, id="nothing but files"),
        pytest.param("scvae-data process --mul", {"--multirun "}, id="flag of Hydra"),
        pytest.param("scvae-data process chunk_size=3 qc=", {"default ", "mad ", "none ", "strict "}, id="group"),
        pytest.param("scvae-data train trainer.max_e", {"trainer.max_epochs="}, id="key"),
    ],
)
def test_completed(line: str, expected: set[str]) -> None:
    assert completed(line) == expected


def test_zsh_runs_the_same() -> None:
    commands = {name: command.add for name, command in COMMANDS.items()}
    assert script("zsh", commands).endswith(SCRIPT)
    assert "bashcompinit" in script("zsh", commands).splitlines()[0]
