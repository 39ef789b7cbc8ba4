"""Tables of metrics: a row an epoch, a row a step; a run that is resumed goes on with them, an older run's too."""

from __future__ import annotations

import csv
from pathlib import Path

from scvae_data.training.loggers import MetricsCsv
from scvae_data.training.metrics import MetricsTable, read_metrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def log_epoch(logger: MetricsCsv, epoch: int, *, over: bool = True) -> None:
    """Log what Lightning does in an epoch of two steps."""
    logger.epoch = epoch
    logger.log_metrics({"lr": 0.1}, step=2 * epoch)
    logger.epoch = None
    for step in (0, 1):
        logger.log_metrics({"loss": 1.0 - epoch, "epoch": epoch}, step=2 * epoch + step)
    logger.epoch, logger.epoch_is_over = epoch, over
    logger.log_metrics({"val": 2.0 - epoch, "epoch": epoch}, step=2 * epoch + 1)


def test_a_row_an_epoch_and_a_row_a_step(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    log_epoch(logger, 0)
    log_epoch(logger, 1)
    logger.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [
        {"epoch": "0", "step": "1", "lr": "0.1", "val": "2.0"},
        {"epoch": "1", "step": "3", "lr": "0.1", "val": "1.0"},
    ]
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == ["0", "1", "2", "3"]
    assert {*rows(tmp_path / "steps.csv")[0]} == {"step", "loss", "epoch"}


def test_a_resumed_run_does_its_last_epoch_anew(tmp_path: Path) -> None:
    cut = MetricsCsv(str(tmp_path))
    log_epoch(cut, 0)
    log_epoch(cut, 1, over=False)
    cut.finalize("failed")
    assert [row["epoch"] for row in rows(tmp_path / "metrics.csv")] == ["0"]
    resumed = MetricsCsv(str(tmp_path))
    log_epoch(resumed, 1)
    resumed.finalize("success")
    assert [row["epoch"] for row in rows(tmp_path / "metrics.csv")] == ["0", "1"]
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == ["0", "1", "2", "3"]


def test_half_a_row_that_a_killed_run_left_is_gone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("step,a\n1,0.5\n12,0.5\n1")
    MetricsTable(tmp_path / "x.csv", "step").add([{"step": 13, "a": 0.25}])
    assert [row["step"] for row in rows(tmp_path / "x.csv")] == ["1", "12", "13"]


def test_an_older_run_reads_and_goes_on(tmp_path: Path) -> None:
    old = tmp_path / "metrics.csv"
    old.write_text("step,loss,epoch,val\n0,1.0,0,\n1,,0,2.0\n1,0.5,0,\n")
    assert read_metrics(old)["val"].dropna().tolist() == [2.0]
    logger = MetricsCsv(str(tmp_path))
    log_epoch(logger, 1)
    logger.save()
    both = read_metrics(old)
    assert both["val"].dropna().tolist() == [2.0, 1.0]
    assert both["loss"].dropna().tolist() == [1.0, 0.5, 0.0, 0.0]
    assert both["step"].is_monotonic_increasing


def test_a_table_gains_columns_and_keeps_rows(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "x.csv", "step")
    for row in ({"step": 1, "a": 1.5}, {"step": 2, "b": 2.0}, {"step": 3, "a": 3.0}):
        table.add([row])
    assert rows(tmp_path / "x.csv") == [
        {"step": "1", "a": "1.5", "b": ""},
        {"step": "2", "a": "", "b": "2.0"},
        {"step": "3", "a": "3.0", "b": ""},
    ]
