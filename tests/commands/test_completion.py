"""What the tab key completes in bash and zsh: commands, their options, and what Hydra knows of the programs."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scvae_data.cli import COMMANDS
from scvae_data.commands.completion import script

ROOT = Path(__file__).parents[2]
ADDS = {name: command.add for name, command in COMMANDS.items()}
PYTHON = shlex.quote(sys.executable)


def completed(line: str) -> set[str]:
    """Return what bash would offer at the end of a line."""
    asking = f"""
        scvae-data() {{ {PYTHON} -m scvae_data "$@"; }}
        python() {{ {PYTHON} "$@"; }}
        {script("bash", ADDS)}
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
        pytest.param(f"python {ROOT}/train.py trainer=q", {"quick "}, id="program of a checkout"),
        pytest.param("python other.py trainer=q", set(), id="another program"),
    ],
)
def test_completed(line: str, expected: set[str]) -> None:
    assert completed(line) == expected


class Zsh:
    """An interactive shell with the script in its ``.zshrc``."""

    def __init__(self, home: Path) -> None:
        functions = f'scvae-data() {{ {PYTHON} -m scvae_data "$@"; }}\npython() {{ {PYTHON} "$@"; }}\n'
        (home / ".zshrc").write_text(f"PS1='ready> '\n{functions}{script('zsh', ADDS)}\n")
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb", "LANG": "C.UTF-8"}
        self.terminal, end = pty.openpty()
        own_terminal = ["setsid", "--ctty", "--wait", "zsh", "-d", "-i"]
        self.process = subprocess.Popen(own_terminal, stdin=end, stdout=end, stderr=end, cwd=ROOT, env=environment)
        os.close(end)
        self.read("ready> ")

    def read(self, until: str) -> str:
        """What the shell writes, up to a text, or all of a minute."""
        found, end = "", time.monotonic() + 60
        while until not in found and time.monotonic() < end:
            if select.select([self.terminal], [], [], 1)[0]:
                found += os.read(self.terminal, 4096).decode(errors="replace")
        return found

    def close(self) -> None:
        """End the shell."""
        os.write(self.terminal, b"\x15exit\n")
        self.process.wait(timeout=60)
        os.close(self.terminal)


@pytest.fixture(scope="module")
def zsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zsh]:
    for name in ("zsh", "setsid"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} on this machine")
    shell = Zsh(tmp_path_factory.mktemp("home"))
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("line", "more"),
    [
        pytest.param("scvae-data complet", "ion ", id="command"),
        pytest.param("scvae-data de RUN --pse", "udocounts ", id="option"),
        pytest.param("python train.py trainer.max_e", "pochs=", id="key"),
        pytest.param("python READM", "E.md", id="another file"),
    ],
)
def test_zsh_completes_the_same(zsh: Zsh, line: str, more: str) -> None:
    os.write(zsh.terminal, f"{line}\t".encode())
    assert line + more in zsh.read(line + more)
    os.write(zsh.terminal, b"\x15")
