"""Outliers are those that scipy's median absolute deviation finds, experiment by experiment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scanpy as sc
from hydra import compose, initialize_config_dir
from scipy.stats import median_abs_deviation

from scvae_data.config import conf_dir, instantiate
from scvae_data.errors import ConfigError
from scvae_data.processing.scan import qc_filter
from scvae_data.processing.scan.qc_filter import QcFilter, bounds_of_rows, find_bounds
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking

Process = Callable[..., Any]


def mad_rules(**changes: Any) -> QcRules:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        rules = instantiate(compose("process", ["qc=mad"]).qc)
    return QcRules(**(vars(rules) | changes))


def test_bounds_by_hand() -> None:
    metrics = pd.DataFrame({"total_counts": [10.0, 12, 14, 100, 5, 5, 5, 6, np.nan]})
    accessions = np.array(list("aaaabbbbb"), object)
    first, second = find_bounds(metrics, accessions, {"total_counts": 3.0}, 1.0)
    assert (first.n_obs, first.median, first.mad, first.lower, first.upper) == (4, 13, 2, 7, 19)
    # Most cells alike: no spread is measured, so nothing is called an outlier.
    assert (second.n_obs, second.median, second.mad, second.lower, second.upper) == (4, 5, 0, None, None)
    (scaled, _) = find_bounds(metrics, accessions, {"total_counts": 3.0}, 1.4826)
    assert scaled.upper == 13 + 3 * 1.4826 * 2
    low, high = bounds_of_rows([first, second], np.array(["b", "a", "new"], object))["total_counts"]
    assert low.tolist() == [-np.inf, 7, -np.inf]
    assert high.tolist() == [np.inf, 19, np.inf]


def test_a_metric_that_is_not_measured_drops_no_cell() -> None:
    metrics = pd.DataFrame({"pct_counts_mt": np.full(3, np.nan, np.float32)})
    (bound,) = find_bounds(metrics, np.array(["a"] * 3, object), {"pct_counts_mt": 3.0}, 1.0)
    assert (bound.n_obs, bound.median, bound.lower) == (0, None, None)


@pytest.mark.parametrize("scale", [1.0, 1.4826])
@pytest.mark.parametrize(
    "name",
    ["h5ad/pbmc3k_2700.h5ad", "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5"],
    ids=["pbmc3k", "totalseq"],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_the_cells_kept_are_those_of_scipy_and_scanpy(
    name: str, scale: float, shared_data: Path, process: Process, tmp_path: Path
) -> None:
    path = shared_data / name
    rules = mad_rules(mad_scale=scale)
    source = ad.read_h5ad(path) if path.suffix == ".h5ad" else sc.read_10x_h5(path)
    source.X = source.X.astype(np.float32)
    source.var["mt"] = source.var_names.str.startswith("MT-")
    metrics, _ = sc.pp.calculate_qc_metrics(source, qc_vars=["mt"], percent_top=(20,))
    cells = ((metrics["n_genes_by_counts"] >= 200) & (metrics["total_counts"] >= 500)).to_numpy()
    kept = cells & (metrics["pct_counts_mt"] <= 8).to_numpy()
    expected_bounds = {}
    for metric, n in rules.outlier_metrics.items():
        values = metrics[metric].to_numpy(np.float64)
        width = n * scale * median_abs_deviation(values[cells])
        low, high = np.median(values[cells]) - width, np.median(values[cells]) + width
        expected_bounds[metric] = (low, high)
        kept &= (values >= low) & (values <= high)
    process([path], qc=rules, chunking=Chunking(chunk_size=1000))
    rows = np.concatenate([ad.read_h5ad(chunk).obs["source_row"] for chunk in (tmp_path / "out").glob("chunk_*.h5")])
    assert sorted(rows) == np.flatnonzero(kept).tolist()
    assert 0 < kept.sum() < cells.sum()
    summary = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())
    bounds = pd.DataFrame(summary["outlier_bounds"]).set_index("metric")
    assert {metric: (row["lower"], row["upper"]) for metric, row in bounds.iterrows()} == expected_bounds
    lost = {rule: sum(counts) for rule, counts in summary["attrition"]["lost"].items()}
    assert sum(lost.values()) == source.n_obs - kept.sum()


def test_each_accession_of_a_file_has_its_own_bounds(
    write_raw: Callable[..., Path], process: Process, tmp_path: Path
) -> None:
    # Totals 10..14 and 100 in one experiment, ten times that in the other: each has one outlier, its last cell.
    totals = np.array([10, 11, 12, 13, 14, 100, 1000, 100, 110, 120, 130, 140, 1000, 10])
    accession = ["SRX1"] * 6 + ["SRX2"] + ["SRX2"] * 6 + ["SRX1"]
    path = write_raw("both.h5ad", totals[:, None], ["A"], {"SRX_accession": accession})
    rules = QcRules(
        min_genes=None, min_counts=None, max_pct_counts_mt=None, percent_top=[], nmads={"total_counts": 5.0}
    )
    summary = process([path], qc=rules)
    assert summary.lost["mad_total_counts"] == 3
    obs = pd.concat([ad.read_h5ad(chunk).obs for chunk in (tmp_path / "out").glob("chunk_*.h5")])
    assert sorted(obs["source_row"]) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 13]


def test_the_first_broken_rule_has_value_and_threshold() -> None:
    rules = QcRules(min_counts=5, min_genes=None, max_pct_counts_mt=10.0, nmads={"total_counts": 1.0})
    metrics = {
        "total_counts": np.array([4, 50, 50, 30]),
        "n_genes_by_counts": np.array([4, 4, 4, 4]),
        "pct_counts_mt": np.array([0, 20, 0, 0], np.float32),
    }
    limits = {"total_counts": (np.full(4, 10.0), np.full(4, 40.0))}
    found = rules.judge(metrics, limits)
    names = ["kept", *(rule.name for rule in rules.rules())]
    assert [names[code] for code in found.verdict] == ["min_counts", "max_pct_counts_mt", "mad_total_counts", "kept"]
    np.testing.assert_array_equal(found.value, [4, 20, 50, np.nan])
    np.testing.assert_array_equal(found.threshold, [5, 10, 40, np.nan])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mad_scale": 2.0}, r"qc.mad_scale=2.0 must be 1.0 \(unscaled\) or 1.4826"),
        ({"nmads": {"total_counts": 0}}, "qc.nmads.total_counts=0 must be above 0, or null"),
        ({"nmads": {"n_genes": 3}}, "qc.nmads.n_genes: no such metric is measured; there are total_counts, n_genes_by"),
        ({"nmads": {"pct_counts_in_top_20_genes": 5}}, "add 20 to qc.percent_top"),
    ],
)
def test_impossible_rules(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QcRules(**settings)


def test_a_rule_set_to_null_is_left_out() -> None:
    rules = mad_rules(nmads={"pct_counts_mt": None, "total_counts": 5})
    names = [rule.name for rule in rules.rules()]
    assert names == ["zero_counts", "min_genes", "min_counts", "max_pct_counts_mt", "mad_total_counts"]


@pytest.mark.parametrize("piece_rows", [1, 3, 100])
def test_each_dropped_cell_is_listed_once_however_many_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_rows: int
) -> None:
    monkeypatch.setattr(qc_filter, "PIECE_ROWS", piece_rows)
    totals = np.array([9, 1, 9, 2, 3, 9, 9, 9, 4])
    cells: Any = SimpleNamespace(
        experiments=["a"],
        codes=np.zeros(9, int),
        control=None,
        accessions=np.full(9, "a", object),
        names=lambda rows: [f"a:{row}" for row in rows],
    )
    rules = QcFilter(QcRules(min_genes=None, min_counts=5, max_pct_counts_mt=None), cells, tmp_path / "dropped.arrow")
    kept = [rules.keep(first, {"total_counts": totals[first : first + 3]}).tolist() for first in (0, 3, 6)]
    rules.close()
    assert np.concatenate(kept).tolist() == (totals >= 5).tolist()
    with pa.memory_map(str(tmp_path / "dropped.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    found = table.select(["source_row", "barcode", "rule", "value", "total_counts"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        (row, str(row), "min_counts", totals[row], totals[row]) for row in (1, 3, 4, 8)
    ]
    assert rules.lost == {"zero_counts": 0, "min_counts": 4}
