"""The programs as a user runs them: error lines, exit status, run directories. No processing happens here."""

from __future__ import annotations

import logging.config
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.support.warm import run_python

from scvae_data.commands.app import quoted
from scvae_data.config import conf_dir

# A program whose task prints what it got, or fails as told.
PROGRAM = """
import sys
from scvae_data.commands.app import run_app, task_overrides
from scvae_data.errors import ConfigError

def task(cfg):
    if cfg.seed == 1:
        raise ConfigError("seed=1 must be another number")
    if cfg.seed == 2:
        raise RuntimeError("a bug")
    if cfg.seed == 4:
        raise KeyboardInterrupt
    print("task", cfg.seed, cfg.paths.output_dir, task_overrides())
    if cfg.seed == 5:
        print("task 5 told", file=sys.stderr)

if __name__ == "__main__":
    run_app(task, "process")
"""

# A program that says how often its config was read.
COUNTING = """
from pathlib import Path
from omegaconf import OmegaConf
from scvae_data.commands.app import run_app

load, read = OmegaConf.load, []

def counted(file):
    read.append(Path(file.name).name)
    return load(file)

if __name__ == "__main__":
    OmegaConf.load = counted
    run_app(lambda cfg: print("job", cfg.seed, read.count("process.yaml")), "process")
"""


def write_experiment(folder: Path) -> None:
    experiment = folder / "mine" / "experiment" / "seeds.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,0'}}}\n")


def run(folder: Path, *overrides: str, text: str = PROGRAM, **environment: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(text)
    clean = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "SCVAE_DATA_DEBUG")}
    return run_python(program, *overrides, cwd=folder, env=clean | environment)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("tech == '3_prime' and obs_count > 500", None),
        ('tech == "3_prime" or n == 1', None),
        ("""tech == "3'" or tech == '5'""", None),
        ("'obs_count > 5'", "obs_count > 5"),
        ("null", ""),
    ],
)
def test_filters_need_no_quotes_inside_the_shells(text: str, kept: str | None) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("process", ["input=scbasecount", quoted(f"input.where={text}")])
    assert (cfg.input.where or "") == (text if kept is None else kept)
    assert quoted(f"input.path={text}") == f"input.path={text}"


def test_a_run_has_its_own_absolute_directory(tmp_path: Path) -> None:
    first, second = run(tmp_path, "seed=3"), run(tmp_path, "seed=3")
    assert (first.returncode, first.stderr) == (0, "")
    folders = [Path(result.stdout.split()[2]) for result in (first, second)]
    assert folders[0] != folders[1]
    for folder in folders:
        assert folder.is_absolute()
        assert folder.parent == tmp_path / "outputs" / "process"
        assert (folder / ".hydra" / "config.yaml").is_file()
    assert first.stdout.rstrip().endswith("{'seed': '3'}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=1", "error: seed=1 must be another number"),
        ("chunk_size=0", "error: chunk_size=0 must be a positive number of cells"),
        ("chunk_size=25k", "error: chunk_size=25k: Value '25k' of type 'str' could not be converted to Integer"),
        ("chunk_sise=5", "error: chunk_sise is not a setting; did you mean chunk_size?"),
        (
            "chunk_size=5,6",
            "error: Ambiguous value for argument 'chunk_size=5,6': add -m to sweep over the values, "
            "or write key=[a,b] for a list",
        ),
        (
            "hydra.run.dir=s3://bucket/run",
            "error: hydra.run.dir=s3://bucket/run is in a remote store, where it cannot be; "
            "give a path on this machine",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_1(tmp_path: Path, override: str, line: str) -> None:
    result = run(tmp_path, override)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line + "\n")


@pytest.mark.parametrize("variable", ["SCVAE_DATA_DEBUG", "HYDRA_FULL_ERROR"])
def test_debugging_shows_the_traceback(tmp_path: Path, variable: str) -> None:
    result = run(tmp_path, "seed=1", **{variable: "1"})
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "seed=1 must be another number" in result.stderr


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    result = run(tmp_path, "seed=2")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: a bug" in result.stderr


def test_who_interrupts_a_run_is_told_how_it_goes_on(tmp_path: Path) -> None:
    result = run(tmp_path, "seed=4")
    assert (result.returncode, result.stderr) == (130, "interrupted; to continue: the same command with resume=true\n")


def test_what_torch_tells_where_its_import_was_interrupted_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
    loggers = OmegaConf.to_container(cfg.hydra.job_logging.loggers)
    # Until it is imported as a whole, torch leaves the level of its loggers to that of all.
    monkeypatch.setattr(logging.getLogger("torch"), "level", logging.INFO)
    logging.config.dictConfig({"version": 1, "incremental": True, "loggers": loggers})
    assert not logging.getLogger("torch._subclasses.fake_tensor").isEnabledFor(logging.INFO)


def test_a_sweep_goes_on_after_a_failed_job_and_exits_1(tmp_path: Path) -> None:
    result = run(tmp_path, "-m", "seed=0,1,5")
    assert result.returncode == 1
    assert result.stderr.endswith("ERROR   job 1 failed: seed=1 must be another number\ntask 5 told\n")
    assert result.stderr.count("seed=1") == 1 and "Error executing" not in result.stderr
    folders = [Path(line.split()[2]) for line in result.stdout.splitlines() if line.startswith("task")]
    assert [folder.name for folder in folders] == ["0", "2"]
    assert {folder.parent.parent for folder in folders} == {tmp_path / "outputs" / "program_sweeps"}


def test_a_job_is_composed_once(tmp_path: Path) -> None:
    assert run(tmp_path, "seed=3", text=COUNTING).stdout == "job 3 1\n"


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (("hydra.mode=MULTIRUN", "seed=3,0"), ["3", "0"]),
        (("hydra.searchpath=[mine]", "experiment=seeds", "resume=true,false"), ["3", "3", "0", "0"]),
    ],
)
def test_a_sweep_needs_no_option(tmp_path: Path, words: tuple[str, ...], seeds: list[str]) -> None:
    write_experiment(tmp_path)
    result = run(tmp_path, *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[1] for line in result.stdout.splitlines()] == seeds


def test_a_sweep_is_found_without_assertions(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-O", program, "hydra.searchpath=[mine]", "experiment=seeds"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["3", "0"]
