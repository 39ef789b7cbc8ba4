"""Metrics equal scanpy's to the last bit; rules keep what they say."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.names import gene_class_flags
from scvae_data.processing.scan.metrics import RowSums, qc_metrics, row_sums
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.qc import QcRules

CLASSES = [gene_class.name for gene_class in GENE_CLASSES]

SYMBOLS = np.array(
    ["MT-ND1", "mt-Co1", "RPS3", "Rpl4", "HBA1", "HBEGF", "MT.CYB", *(f"g{i}" for i in range(60))], object
)


def sums_of(matrix: sp.csr_matrix, flags: np.ndarray, tops: list[int]) -> RowSums:
    n_rows = matrix.shape[0]
    sums = RowSums(*(np.zeros(shape, np.int64) for shape in (n_rows, n_rows, (n_rows, 3), (n_rows, len(tops)))))
    row_sums(
        matrix.indptr.astype(np.int64), matrix.indices, matrix.data, flags, np.array(tops, np.int64),
        sums.total, sums.n_genes, sums.by_class, sums.top,
    )  # fmt: skip
    return sums


def test_gene_classes() -> None:
    flags = gene_class_flags(SYMBOLS, SYMBOLS)
    assert [SYMBOLS[flags & (1 << bit) > 0].tolist() for bit in range(3)] == [
        ["MT-ND1", "mt-Co1", "MT.CYB"],
        ["RPS3", "Rpl4"],
        ["HBA1"],
    ]
    assert gene_class_flags(np.array([""], object), np.array(["ENSG00000198888"], object)).tolist() == [1]


@pytest.mark.parametrize(("symbol", "gene_id"), [("MT-RNR2", "ENSG00000210082"), ("mt-Rnr2", "ENSMUSG00000064339")])
def test_mitochondrial_rna_counts_by_symbol_and_by_id(symbol: str, gene_id: str) -> None:
    for named in ((symbol, symbol), ("", gene_id)):
        flags = gene_class_flags(*(np.array([name], object) for name in named))
        assert flags.tolist() == [1]


def test_metrics_equal_scanpy_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.negative_binomial(0.2, 0.01, (200, len(SYMBOLS))).astype(np.float32))
    flags = gene_class_flags(SYMBOLS, SYMBOLS)
    ours = qc_metrics(sums_of(counts, flags, [5, 50]), [True] * 3, [5, 50])
    var = pd.DataFrame({name: flags & (1 << bit) > 0 for bit, name in enumerate(CLASSES)}, index=SYMBOLS)
    theirs, _ = sc.pp.calculate_qc_metrics(ad.AnnData(counts, var=var), qc_vars=CLASSES, percent_top=(5, 50))
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name].to_numpy(), err_msg=name)


def test_a_class_without_a_gene_is_not_measured_instead_of_zero() -> None:
    counts = sp.csr_matrix(np.ones((2, 3), np.float32))
    metrics = qc_metrics(sums_of(counts, np.zeros(3, np.uint32), []), [False, True, False], [])
    assert np.isnan(metrics["pct_counts_mt"]).all()
    assert (metrics["pct_counts_ribo"] == 0).all()
    assert QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=0.0).judge(metrics).verdict.tolist() == [0, 0]


def test_verdict_names_the_first_rule_a_cell_breaks() -> None:
    metrics = {
        "total_counts": np.array([0, 10, 600, 600, 600, 5000]),
        "n_genes_by_counts": np.array([0, 5, 5, 300, 300, 300]),
        "pct_counts_mt": np.array([np.nan, 0, 0, 20, 20.001, 0], np.float32),
    }
    rules = QcRules(min_genes=200, min_counts=500, max_counts=4000, max_pct_counts_mt=20.0)
    names = ["kept", *(rule.name for rule in rules.rules())]
    found = [names[code] for code in rules.judge(metrics).verdict]
    assert found == ["zero_counts", "min_genes", "min_genes", "kept", "max_pct_counts_mt", "max_counts"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_genes": -1}, "qc.min_genes=-1 must be 0 or more"),
        ({"min_genes": "many"}, "qc.min_genes=many must be 0 or more"),
        ({"max_pct_counts_mt": 101}, "qc.max_pct_counts_mt=101 must be a percentage"),
        ({"min_counts": 10, "max_counts": 5}, "qc.min_counts=10 exceeds qc.max_counts=5"),
        ({"percent_top": [0]}, r"qc.percent_top=\[0\]"),
    ],
)
def test_impossible_rules(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QcRules(**settings)  # type: ignore[arg-type]
