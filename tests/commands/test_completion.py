"""What the tab key completes in bash and zsh: commands, their options, and the settings of the programs."""

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
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from scvae_data.calling import Program
from scvae_data.cli import COMMANDS
from scvae_data.commands.completion import candidates, script
from scvae_data.commands.settings import groups_of
from scvae_data.config import conf_dir

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
        pytest.param("scvae-data completion ", {"bash ", "zsh "}, id="choice"),
        pytest.param("scvae-data info ", set(), id="nothing but files"),
        pytest.param("scvae-data process --mul", {"--multirun "}, id="flag of Hydra"),
        pytest.param("scvae-data process chunk_size=3 qc=", {"default ", "mad ", "none ", "strict "}, id="group"),
        pytest.param("scvae-data train trainer.max_e", {"trainer.max_epochs="}, id="key"),
        pytest.param(f"python {ROOT}/train.py trainer=q", {"quick "}, id="program of a checkout"),
        pytest.param("scvae-data why DIR ", set(), id="files alone"),
        pytest.param("python other.py trainer=q", set(), id="another program"),
    ],
)
def test_completed(line: str, expected: set[str]) -> None:
    assert completed(line) == expected


def test_each_program_offers_what_it_takes() -> None:
    of_process, of_train = ({*candidates(program, [], "")} for program in ("process", "train"))
    assert {"qc=", "qc.", "engine=", "input=", "genes=", "normalization=", "overwrite="} <= of_process - of_train
    assert {"model=", "trainer=", "trainer.", "outputs=", "mode=", "ckpt="} <= of_train - of_process
    assert {"paths.", "chunk_size=", "seed=", "experiment=", "logger=", "hydra."} <= of_process & of_train


@pytest.mark.parametrize("program", ["process", "train"])
def test_what_is_offered_is_a_setting(program: Program) -> None:
    """Level by level down to the last, each word that ends in ``=`` is a group or a key of the composed config."""
    seen, open_words = set(), [""]
    while open_words:
        found = candidates(program, [], open_words.pop())
        open_words += [word for word in found if word.endswith(".") and not word.startswith("hydra")]
        seen |= {word[:-1] for word in found if word.endswith("=") and not word.startswith("hydra")}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(program)
    groups = groups_of(program).keys()
    assert len(seen) > 80
    for name in seen - groups:
        *above, last = name.split(".")
        holds = OmegaConf.select(config, ".".join(above)) if above else config
        assert last in holds, name


@pytest.mark.parametrize(
    ("program", "line", "expected"),
    [
        pytest.param("train", "data.spl", ["data.split."], id="level"),
        pytest.param("train", "data.split=", [], id="no value"),
        pytest.param("train", "mode=", ["mode=fit", "mode=embed"], id="all values"),
        pytest.param("train", "model.norm=l", ["model.norm=layer"], id="value before a note"),
        pytest.param("train", "outputs.picture=u", ["outputs.picture=umap"], id="value with a note"),
        pytest.param("process", "res", ["resume="], id="root key"),
        pytest.param("process", "resume=t", ["resume=true"], id="boolean"),
        pytest.param("process", "++seed=", ["++seed=0"], id="value it has"),
        pytest.param("process", "input.pat", [], id="key of an option not chosen"),
        pytest.param("process", "input=files input.pat", ["input.paths="], id="key of the option chosen"),
        pytest.param("process", "paths.processed_dir=", [], id="folder"),
    ],
)  # fmt: skip
def test_candidates(program: Program, line: str, expected: list[str]) -> None:
    *before, word = line.split()
    assert candidates(program, before, word) == expected


def test_options_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "qc").mkdir()
    (tmp_path / "qc" / "ours.yaml").write_text("# Ours.\nmin_counts: 3\n")
    assert completed(f"scvae-data process --config-dir {tmp_path} qc=o") == {"ours "}


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
        pytest.param("scvae-data train ckpt=doc", "s/", id="folder behind a key"),
        pytest.param("scvae-data process input.paths=READM", "E.md", id="file behind a key"),
    ],
)
def test_zsh_completes_the_same(zsh: Zsh, line: str, more: str) -> None:
    os.write(zsh.terminal, f"{line}\t".encode())
    assert line + more in zsh.read(line + more)
    os.write(zsh.terminal, b"\x15")
