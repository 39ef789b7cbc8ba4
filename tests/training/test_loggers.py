from __future__ import annotations

import csv
from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.training.loggers import MetricsCsv, wandb_mode


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        pytest.param({}, "offline", id="no key"),
        pytest.param({"WANDB_API_KEY": "k" * 40}, None, id="key"),
        pytest.param({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline", id="key but offline"),
        pytest.param({"WANDB_MODE": "disabled"}, "disabled", id="disabled"),
        pytest.param({"WANDB_MODE": "online"}, "online", id="online without a key"),
        pytest.param({"WANDB_MODE": "dryrun"}, "offline", id="old name"),
    ],
)
def test_wandb_mode(tmp_path: Path, environment: dict[str, str], mode: str | None) -> None:
    assert wandb_mode({"NETRC": str(tmp_path / "none"), **environment}) == mode


def test_wandb_mode_finds_a_key_in_netrc(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wandb.example.org login user password " + "k" * 40 + "\n")
    netrc.chmod(0o600)
    assert wandb_mode({"NETRC": str(netrc), "WANDB_BASE_URL": "https://wandb.example.org"}) is None
    assert wandb_mode({"NETRC": str(netrc)}) == "offline"


def test_unknown_wandb_mode_is_named() -> None:
    with pytest.raises(ConfigError, match="WANDB_MODE=onlin is not one of online, offline, disabled"):
        wandb_mode({"WANDB_MODE": "onlin"})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_gains_columns_and_keeps_rows(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path), flush_rows=1)
    logger.log_metrics({"a": 1.5}, step=1)
    logger.log_metrics({"b": 2.0}, step=2)
    logger.log_metrics({"a": 3.0}, step=3)
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "1", "a": "1.5", "b": ""},
        {"step": "2", "a": "", "b": "2.0"},
        {"step": "3", "a": "3.0", "b": ""},
    ]


def test_csv_is_continued_by_a_resumed_run(tmp_path: Path) -> None:
    for step in (1, 2):
        logger = MetricsCsv(str(tmp_path))
        logger.log_metrics({"a": float(step)}, step=step)
        logger.finalize("success")
    assert [row["a"] for row in rows(tmp_path / "metrics.csv")] == ["1.0", "2.0"]
