"""A run that is killed outright and resumed ends with the very weights of the uninterrupted one.

One kill per number of workers is tried; ``SCVAE_DATA_KILLS=5`` tries so many.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tests.support.warm import run_python
from tests.training.conftest import EVERY, N_STEPS, STEPWISE, Compose, Run, bare_environment

from scvae_data.training.run import train

N_KILLS = int(os.environ.get("SCVAE_DATA_KILLS", "1"))
STEPS = np.random.default_rng(7).choice(np.arange(EVERY + 1, N_STEPS), size=(2, N_KILLS), replace=False)

PROGRAM = """
import os, signal, sys
from omegaconf import OmegaConf
from scvae_data import VAE
from scvae_data.training.run import train

step = VAE.training_step
def fatal(self, batch, batch_idx):
    if self.global_step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
VAE.training_step = fatal
if __name__ == "__main__":
    train(OmegaConf.load(sys.argv[1]))
"""


def last(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize(
    ("num_workers", "step"),
    [(workers, int(step)) for workers, steps in zip((0, 2), STEPS, strict=True) for step in steps],
)
def test_killed_at_a_random_step(
    tmp_path: Path, train_config: Compose, trained: Callable[..., Run], num_workers: int, step: int
) -> None:
    run_dir = tmp_path / "run"
    OmegaConf.save(train_config(run_dir, *STEPWISE, f"data.num_workers={num_workers}"), tmp_path / "cfg.yaml", True)
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [tmp_path / "program.py", tmp_path / "cfg.yaml", str(step)]
    killed = run_python(*program, cwd=tmp_path, env=bare_environment(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert last(run_dir)["global_step"] == step // EVERY * EVERY
    cfg = train_config(tmp_path / "unused")
    cfg.resume_from = str(run_dir)
    train(cfg)
    ours, whole = last(run_dir), last(trained(*STEPWISE).path)
    assert ours["global_step"] == whole["global_step"] == N_STEPS
    for name, weights in whole["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weights), name
    for number, state in whole["optimizer_states"][0]["state"].items():
        for name, values in state.items():
            assert torch.equal(ours["optimizer_states"][0]["state"][number][name], values), name
