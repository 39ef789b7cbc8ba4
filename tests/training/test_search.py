"""Searches by optuna and by agents of W&B: what they start, which model is the best, how they go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.wandb_records import read_runs
from tests.training.conftest import bare_environment, run_train

from scvae_data.training.metrics import read_rows

ROOT = Path(__file__).parents[2]
SMALL = (
    "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=64", "callbacks.progress_bar=null",
    "outputs=none",
)  # fmt: skip


def trials(sweep_dir: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies' next versions
        import optuna
    return optuna.load_study(study_name="search", storage=f"sqlite:///{sweep_dir}/study.db").get_trials()


@pytest.mark.services
def test_a_search_that_was_killed_loses_no_trial_and_marks_the_best(dataset: Path, tmp_path: Path) -> None:
    options = [
        "-m", "experiment=search", *SMALL, "logger=csv", "hydra.sweeper.n_trials=12", "model.n_hidden=choice(8,16)",
        f"paths.processed_dir={dataset}", "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    sweep_dir = tmp_path / "sweep"
    steps = 9  # of each trial
    cut = run_train(tmp_path, *options, at=4 * steps + 5, signum=signal.SIGKILL)
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    before = trials(sweep_dir)
    assert [trial.state.name for trial in before] == 4 * ["COMPLETE"] + ["RUNNING"]
    done = run_train(tmp_path, "resume_sweep=sweep")
    assert done.returncode == 0, done.stderr
    assert "5 trials are completed, 7 are to be done" in done.stderr
    after = trials(sweep_dir)
    assert [trial.state.name for trial in after] == 12 * ["COMPLETE"]
    assert [(trial.params, trial.value) for trial in after[:4]] == [(trial.params, trial.value) for trial in before[:4]]
    assert after[4].params == before[4].params
    assert len({str(trial.params) for trial in after}) == 12
    rows = read_rows(sweep_dir / "sweep_table.csv")
    assert [row["job"] for row in rows] == [str(number) for number in range(12)]
    best = max(after, key=lambda trial: trial.value)
    assert [row["job"] for row in rows if row["best"]] == [str(best.number)]
    assert float(next(row for row in rows if row["best"])["val_elbo"]) == pytest.approx(best.value, rel=1e-5)


def test_a_search_for_the_worst_model_is_refused(dataset: Path, tmp_path: Path) -> None:
    options = ["-m", "hydra/sweeper=optuna", "model.n_latent=choice(2,3)", f"paths.processed_dir={dataset}"]
    done = run_train(tmp_path, *options, "hydra.sweeper.n_jobs=1", *SMALL)
    assert done.returncode == 1
    assert "hydra.sweeper.direction=minimize, but val/elbo is the better the higher it is" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.services
def test_what_an_agent_of_wandb_starts_runs(dataset: Path, tmp_path: Path) -> None:
    from wandb.sdk.launch.sweeps import utils  # private: what the agent itself makes commands with

    sweep = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())
    parameters = sweep["parameters"]
    chosen = {name: facts["values"][0] if "values" in facts else facts["min"] for name, facts in parameters.items()}
    values = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    values |= {"program": [str(ROOT / sweep["program"])], "env": ["/usr/bin/env"]}
    command: list[str] = []
    for part in utils.create_sweep_command(sweep["command"]):
        command += values[part[2:-1]] if part.startswith("${") else [part]
    python = Path(sys.executable).parent
    environment = bare_environment(tmp_path) | {"WANDB_SWEEP_ID": "someid", "WANDB_RUN_ID": "given"}
    environment["PATH"] = f"{python}:{os.environ['PATH']}"
    small = [*SMALL, f"paths.processed_dir={dataset}"]
    done = subprocess.run([*command, *small], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = read_runs(tmp_path / "outputs" / "train")
    assert run.run_id == "given"
    assert run.config["model"]["n_latent"] == chosen["model.n_latent"]
    assert sweep["metric"]["name"] in run.summary
