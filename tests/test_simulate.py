from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scvae_data.errors import ConfigError
from scvae_data.readers.gene_names import looks_ensembl
from scvae_data.readers.recognise import open_reader
from scvae_data.simulate import simulate_files
from scvae_data.simulate.counts import count_blocks
from scvae_data.simulate.experiment import Experiment, plan_experiment
from scvae_data.simulate.organism import make_organism


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> list[anndata.AnnData]:
    """The default files."""
    simulate_files(tmp_path_factory.mktemp("compiled"), n_files=1, cells_per_file=10, n_genes=100)
    folder = tmp_path_factory.mktemp("demo")
    paths = simulate_files(folder)
    assert [path.name for path in paths] == [f"SRX900000{i}.h5ad" for i in (1, 2, 3, 4)]
    return [anndata.read_h5ad(path) for path in paths]


def symbols_of(adata: anndata.AnnData) -> pd.Series[str]:
    for name in ("gene_symbols", "gene_name"):
        if name in adata.var:
            return adata.var[name]
    return adata.var_names.to_series()


def with_metrics(adata: anndata.AnnData) -> pd.DataFrame:
    symbols = symbols_of(adata)
    for name, pattern in (("mt", "MT-"), ("ribo", "RP[SL]"), ("hb", "HB[^(P)]")):
        adata.var[name] = symbols.str.match(pattern).to_numpy()
    obs, _ = sc.pp.calculate_qc_metrics(adata, qc_vars=["mt", "ribo", "hb"], percent_top=[50], inplace=False)
    return adata.obs.join(obs)


def test_most_cells_pass_default_quality_rules(demo: list[anndata.AnnData]) -> None:
    obs = pd.concat([with_metrics(adata) for adata in demo])
    kept = (obs.n_genes_by_counts >= 200) & (obs.total_counts >= 500) & (obs.pct_counts_mt <= 20)
    assert 7000 <= kept.sum() < 8000
    assert kept[obs.is_low_quality].mean() < 0.1


def test_depth_and_composition_lie_in_the_ranges_of_real_data(demo: list[anndata.AnnData]) -> None:
    obs = with_metrics(demo[0]).query("not is_low_quality")
    assert 1500 < obs.total_counts.median() < 7000
    assert 1000 < obs.n_genes_by_counts.median() < 2500
    assert 2 < obs.pct_counts_mt.mean() < 13
    assert 16 < obs.pct_counts_ribo.mean() < 42
    assert 30 < obs.pct_counts_in_top_50_genes.mean() < 46
    values = demo[0].X.data
    assert 0.57 < (values == 1).mean() < 0.72
    assert obs[obs.is_doublet].total_counts.median() > 1.5 * obs[~obs.is_doublet].total_counts.median()


def test_files_measure_different_overlapping_genes_named_differently(
    demo: list[anndata.AnnData],
) -> None:
    symbols = [set(symbols_of(adata)) for adata in demo]
    assert all(len(names) == adata.n_vars for names, adata in zip(symbols, demo, strict=True))
    assert len(set.intersection(*symbols)) >= 17_000
    assert len({frozenset(names) for names in symbols}) == 4
    assert [looks_ensembl(adata.var_names) for adata in demo] == [True, True, False, True]
    assert demo[1].var_names.str.contains(".", regex=False).all()
    assert looks_ensembl(demo[2].var["gene_ids"])
    for names in symbols:
        assert sum(name.startswith("MT-") for name in names) == 13


def test_a_gene_keeps_its_id_and_symbol_in_every_file(demo: list[anndata.AnnData]) -> None:
    first, second, third, _ = demo
    pairs = [
        dict(zip(first.var_names, first.var["gene_symbols"], strict=True)),
        dict(zip(second.var_names.str.split(".").str[0], second.var["gene_name"], strict=True)),
        dict(zip(third.var["gene_ids"], third.var_names, strict=True)),
    ]
    for other in pairs[1:]:
        assert all(other[name] == symbol for name, symbol in pairs[0].items() if name in other)


def test_labels_and_barcodes(demo: list[anndata.AnnData]) -> None:
    for adata in demo:
        assert adata.obs_names.is_unique
        assert 0.2 < (adata.obs["perturbation"] == "non-targeting").mean() < 0.4
        assert adata.obs["perturbation"].nunique() == 9
        assert adata.obs["cell_type"].nunique() == 8
        assert adata.obs["donor"].nunique() == 2
        assert set(adata.obs["perturbation"]) - {"non-targeting"} <= set(symbols_of(adata))
    assert not set(demo[0].obs["donor"]) & set(demo[1].obs["donor"])
    shared = set(demo[0].obs_names) & set(demo[1].obs_names)
    assert 500 < len(shared) < 1500


def test_perturbed_genes_are_knocked_down(demo: list[anndata.AnnData]) -> None:
    totals = {"own": 0.0, "control": 0.0}
    for adata in demo:
        symbols = symbols_of(adata).to_numpy()
        labels = adata.obs["perturbation"].to_numpy()
        for target in set(labels) - {"non-targeting"}:
            column = adata.X[:, np.flatnonzero(symbols == target)].toarray().ravel()
            totals["own"] += column[labels == target].mean()
            totals["control"] += column[labels == "non-targeting"].mean()
    assert totals["own"] < 0.5 * totals["control"]


def test_markers_tell_their_cell_type(demo: list[anndata.AnnData]) -> None:
    adata = demo[0]
    column = np.flatnonzero(symbols_of(adata).to_numpy() == "MS4A1")
    means = pd.Series(adata.X[:, column].toarray().ravel()).groupby(adata.obs["cell_type"].to_numpy()).mean()
    assert means.idxmax() == "B cell"
    assert means.max() > 5 * means.drop("B cell").max()


def planned(n_genes: int = 300, seed: int = 1) -> Experiment:
    return plan_experiment(make_organism(n_genes, seed, shared_genes=0.9), 0, 40, median_counts=5500.0)


def test_the_seed_decides_the_counts() -> None:
    first, again, other = (next(count_blocks(planned(500, seed)))[2] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.sum() != other.sum()


def test_counts_do_not_depend_on_the_block_size() -> None:
    whole = list(count_blocks(planned()))
    parts = list(count_blocks(planned(), max_draws=1))
    assert len(whole) == 1
    assert len(parts) == 40
    for k in (1, 2):
        np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), whole[0][k])


def test_every_umi_is_drawn_but_those_of_perturbed_genes() -> None:
    experiment = planned()
    ((indptr, _, counts),) = count_blocks(experiment)
    lost = experiment.draws_nk.sum(axis=1) - np.add.reduceat(counts, indptr[:-1])
    perturbed = (experiment.obs["perturbation"] != "non-targeting").to_numpy()
    np.testing.assert_array_equal(experiment.knocked_down_n >= 0, perturbed)
    assert (lost[~perturbed] == 0).all()
    assert lost[perturbed].sum() > 0


def test_the_reader_finds_what_was_drawn(tmp_path: Path) -> None:
    first, second = simulate_files(tmp_path, n_files=2, cells_per_file=25, n_genes=200, seed=5)
    for path in (first, second):
        adata = anndata.read_h5ad(path)
        assert adata.X.dtype == np.float32
        assert adata.X.has_canonical_format
        with open_reader(path) as reader:
            assert sum(int(block.data.sum()) for block in reader.blocks("X")) == int(adata.X.sum())
    (packed,) = simulate_files(tmp_path / "plain", n_files=1, cells_per_file=25, n_genes=200, seed=5, compression=None)
    assert (anndata.read_h5ad(packed).X != anndata.read_h5ad(first).X).nnz == 0


def test_all_genes_may_be_shared(tmp_path: Path) -> None:
    (path,) = simulate_files(tmp_path, n_files=1, cells_per_file=5, n_genes=200, shared_genes=1.0)
    assert anndata.read_h5ad(path, backed="r").n_vars == 200


def test_a_file_depends_only_on_its_number(tmp_path: Path) -> None:
    few = simulate_files(tmp_path / "few", n_files=1, cells_per_file=10, n_genes=150)
    many = simulate_files(tmp_path / "many", n_files=3, cells_per_file=10, n_genes=150)
    assert few[0].read_bytes() == many[0].read_bytes()
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [path.name for path in many]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"n_files": 0}, "n_files must be at least 1, got 0", id="n_files"),
        pytest.param({"cells_per_file": -5}, "cells_per_file must be at least 1, got -5", id="cells"),
        pytest.param({"n_genes": 20}, "n_genes must lie in 100…65,536, got 20", id="genes"),
        pytest.param({"median_counts": 0.0}, "median_counts must be at least 1, got 0.0", id="counts"),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_files(tmp_path, **arguments)
