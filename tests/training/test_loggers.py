from __future__ import annotations

import csv
from pathlib import Path

from scvae_data.training.loggers import MetricsCsv


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
