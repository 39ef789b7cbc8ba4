"""Highly variable genes: the genes that scanpy chooses on all kept cells in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from tests.support.pipeline import settings_for

from scvae_data.errors import ConfigError
from scvae_data.processing.decide.stage import decide
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.genes.hvg.rank import RunningMean, VarianceRanking
from scvae_data.processing.genes.wanted import read_gene_files
from scvae_data.processing.pipeline import make_plan
from scvae_data.processing.run.context import Context, Record
from scvae_data.processing.settings import genes as gene_settings
from scvae_data.processing.settings.genes import GeneRules, HvgRules
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.chunks import write_chunks
from scvae_data.store import Chunking
from scvae_data.store.files import sync_file

Process = Callable[..., Any]

REAL = (
    "h5ad/pbmc3k_2700.h5ad",
    "mtx/1k_pbmc_v2_chemistry",
    "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5",
)
FLAVORS = ("seurat", "cell_ranger", "seurat_v3")
NUMBERS = {
    "seurat": ("means", "dispersions", "dispersions_norm"),
    "cell_ranger": ("means", "dispersions", "dispersions_norm"),
    "seurat_v3": ("means", "variances", "variances_norm", "highly_variable_rank"),
}


def stored(out: Path) -> ad.AnnData:
    """All chunks of a directory as one AnnData, cells by name."""
    chunks = [ad.read_h5ad(path) for path in sorted(out.glob("chunk_*.h5"))]
    together = ad.concat(chunks)
    together.var = chunks[0].var
    return together[together.obs_names.sort_values()].copy()


def scanpy_table(counts: ad.AnnData, rules: HvgRules, target_sum: float | None = 1e4) -> pd.DataFrame:
    """What scanpy says about the genes of ``counts``."""
    adata = ad.AnnData(counts.X.astype(np.float32), obs=counts.obs, var=counts.var)
    if not rules.on_counts:
        sc.pp.normalize_total(adata, target_sum=target_sum)
        sc.pp.log1p(adata)
    table = sc.pp.highly_variable_genes(
        adata, flavor=rules.flavor, n_top_genes=rules.n_top_genes, batch_key=rules.batch_key, span=rules.span,
        n_bins=rules.n_bins, inplace=False,
    )  # fmt: skip
    table.index = adata.var_names
    return table


def assert_equals_scanpy(out: Path, counts: ad.AnnData, rules: HvgRules, target_sum: float | None = 1e4) -> None:
    expected = scanpy_table(counts, rules, target_sum)
    found = pd.read_parquet(out / "gene_statistics.parquet").set_index("gene")
    assert found.index.tolist() == expected.index.tolist()
    chosen = expected.index[expected["highly_variable"]]
    assert found.index[found["highly_variable"]].tolist() == chosen.tolist()
    # scanpy adds up floats in an order that depends on its threads; a dispersion magnifies the last bits.
    tolerance = 1e-12 if rules.on_counts else 1e-6
    for name in NUMBERS[rules.flavor]:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)
    if rules.batch_key:
        np.testing.assert_array_equal(found["highly_variable_nbatches"], expected["highly_variable_nbatches"])


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ad.AnnData]:
    """Three human files of three formats: a function that decides their genes anew, and all kept cells in memory."""
    out, work = tmp_path_factory.mktemp("out"), WorkFolder(tmp_path_factory.mktemp("work"))
    work.make()
    settings = settings_for([shared_data / name for name in REAL], qc=QcRules(), genes=GeneRules(), chunking=Chunking())
    context = Context(settings, SerialEngine(), out, work, read_gene_files(settings.genes), Record())
    plan = make_plan(context, {})
    ranges = plan.decided.ranges
    list(write_chunks(context, plan.decided.digest, ranges, range(len(ranges)), sync_file))

    def decide_again(rules: HvgRules) -> tuple[Path, list[str]]:
        again = replace(context, settings=replace(settings, genes=rules))
        return out, decide(again, plan.surveyed, plan.compared).genes.names.tolist()

    return decide_again, stored(out)


@pytest.mark.parametrize("batch_key", [None, "SRX_accession"])
@pytest.mark.parametrize("flavor", FLAVORS)
def test_real_files_give_the_genes_of_scanpy(flavor: Any, batch_key: str | None, real: tuple[Any, ad.AnnData]) -> None:
    decide, counts = real
    rules = HvgRules(flavor=flavor, batch_key=batch_key)
    out, genes = decide(rules)
    assert_equals_scanpy(out, counts, rules)
    table = pd.read_parquet(out / "gene_statistics.parquet")
    assert genes == table["gene"][table["highly_variable"]].tolist()


# --- synthetic files --------------------------------------------------------------------------------------------------

GENES = [f"g{number:04d}" for number in range(600)]


def simulated_counts(n_cells: int, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """Overdispersed counts of genes whose means spread over three decades; the last ten genes are never seen."""
    mean = np.geomspace(0.005, 8, len(GENES)) * scale
    rates = rng.gamma(0.7, mean / 0.7, (n_cells, len(GENES))) * rng.lognormal(0, 0.4, (n_cells, 1))
    counts = rng.poisson(rates)
    counts[:, -10:] = 0
    counts[:, 0] += 1  # no cell is empty
    return counts


@pytest.fixture
def batches(write_raw: Callable[..., Path]) -> tuple[list[Path], ad.AnnData]:
    """Two files of several donors, one of them with 40 cells only, and all cells in memory."""
    rng = np.random.default_rng(1)
    donors = [["d1"] * 150 + ["d2"] * 150, ["d2"] * 60 + ["d3"] * 200 + ["tiny"] * 40]
    paths, parts = [], []
    for number, labels in enumerate(donors):
        counts = simulated_counts(len(labels), rng, 1 + number)
        paths.append(write_raw(f"SRX90{number}.h5ad", counts, GENES, {"donor": labels}))
        obs = pd.DataFrame({"donor": labels}, index=[f"SRX90{number}:cell{row}" for row in range(len(labels))])
        parts.append(ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES)))
    together = ad.concat(parts)
    return paths, together[:, np.asarray((together.X > 0).sum(axis=0)).ravel() >= 3].copy()


@pytest.mark.parametrize("batch_key", [None, "donor"])
@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_small_batch_counts_as_in_scanpy(
    flavor: Any, batch_key: str | None, batches: tuple[list[Path], ad.AnnData], process: Process, tmp_path: Path
) -> None:
    paths, counts = batches
    rules = HvgRules(flavor=flavor, batch_key=batch_key, n_top_genes=100)
    process(paths, genes=rules, chunking=Chunking(chunk_size=1000))
    assert_equals_scanpy(tmp_path / "out", counts, rules)
    together, table = stored(tmp_path / "out"), pd.read_parquet(tmp_path / "out" / "gene_statistics.parquet")
    assert together.var_names.tolist() == table["gene"][table["highly_variable"]].tolist()
    assert (together.X != counts[together.obs_names, together.var_names].X).nnz == 0


@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_the_median_as_target_and_many_ties(
    flavor: Any, batches: tuple[list[Path], ad.AnnData], process: Process, tmp_path: Path
) -> None:
    paths, counts = batches
    rules = HvgRules(flavor=flavor, n_top_genes=400, batch_key="donor")  # deep among genes with a handful of counts
    process(paths, genes=rules, normalization=Normalization(target_sum=None), chunking=Chunking(chunk_size=1000))
    assert_equals_scanpy(tmp_path / "out", counts, rules, None)


@pytest.mark.parametrize(
    ("flavor", "n_cells", "reason"), [("seurat", 1, "one cell"), ("seurat_v3", 2, "loess"), ("seurat_v3", 1, "only 0")]
)
def test_a_batch_that_cannot_be_fitted_leaves_the_ranking(
    flavor: Any, n_cells: int, reason: str, batches: tuple[list[Path], ad.AnnData], write_raw: Callable[..., Path],
    process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    paths, counts = batches
    few = np.zeros((n_cells, len(GENES)), int)
    few[:, 20:40] = 1 + np.arange(n_cells)[:, None]
    paths.append(write_raw("SRX999.h5ad", few, GENES, {"donor": ["few"] * n_cells}))
    rules = HvgRules(flavor=flavor, n_top_genes=100, batch_key="donor", min_cells=6)
    with caplog.at_level(logging.WARNING):
        process(paths, genes=rules, chunking=Chunking(chunk_size=1000))
    account = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["gene_choice"]
    assert [(left["batch"], left["n_cells"]) for left in account["batches_left_out"]] == [("few", n_cells)]
    assert reason in account["batches_left_out"][0]["reason"]
    assert f"1 of 5 batches take no part in ranking genes: few ({n_cells} cells: " in caplog.text
    found = pd.read_parquet(tmp_path / "out" / "gene_statistics.parquet")
    expected = scanpy_table(counts[:, found["gene"]].copy(), rules)
    assert found["gene"][found["highly_variable"]].tolist() == expected.index[expected["highly_variable"]].tolist()


def test_no_batch_that_can_be_fitted_is_an_error(write_raw: Callable[..., Path], process: Process) -> None:
    path = write_raw("SRX1.h5ad", np.ones((3, 5), int), list("abcde"))
    with pytest.raises(ConfigError, match=r"genes can be ranked with genes.flavor=seurat_v3: only 0 genes vary"):
        process([path], genes=HvgRules(flavor="seurat_v3", min_cells=1))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("dono", "no such obs column, there are: SRX_accession, donor, score, some"),
        ("some", r"cell SRX2:cell\d has no value"),
        ("score", "fractional numbers"),
    ],
)
def test_a_batch_key_that_is_none(key: str, message: str, write_raw: Callable[..., Path], process: Process) -> None:
    counts = simulated_counts(4, np.random.default_rng(0))
    columns = {"donor": list("aabb"), "score": [0.5] * 4}
    paths = [
        write_raw("SRX1.h5ad", counts, GENES, columns | {"some": ["x"] * 4}),
        write_raw("SRX2.h5ad", counts, GENES, columns),
    ]
    with pytest.raises(ConfigError, match=f"genes.batch_key={key}.*{message}"):
        process(paths, genes=HvgRules(batch_key=key))


def test_workers_and_input_order_change_no_byte(
    batches: tuple[list[Path], ad.AnnData], process: Process, tmp_path: Path
) -> None:
    settings = {"genes": HvgRules(flavor="seurat_v3", n_top_genes=50, batch_key="donor"), "chunking": Chunking()}
    process(batches[0], target=tmp_path / "one", **settings)
    process(batches[0][::-1], target=tmp_path / "two", engine=LocalEngine(2), **settings)
    for name in ("gene_statistics.parquet", "gene_list.json", "chunk_0000.h5", "chunk_index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_an_earlier_table_goes_with_its_directory(
    batches: tuple[list[Path], ad.AnnData], process: Process, tmp_path: Path
) -> None:
    process(batches[0], genes=HvgRules(n_top_genes=50), chunking=Chunking())
    assert (tmp_path / "out" / "gene_statistics.parquet").exists()
    process(batches[0], overwrite=True, chunking=Chunking())
    assert not (tmp_path / "out" / "gene_statistics.parquet").exists()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_running_mean_leaves_missing_values_out() -> None:
    mean = RunningMean(3)
    for values in ([1.0, np.nan, np.nan], [3.0, 5.0, np.nan]):
        mean.add(np.array(values))
    np.testing.assert_array_equal(mean.value(), [2.0, 5.0, np.nan])


def test_ranks_combine_by_median_and_then_number_of_batches() -> None:
    ranking = VarianceRanking(HvgRules(n_top_genes=2, batch_key="x"), 4)
    for variances in ([9.0, 8.0, 1.0, 0.0], [0.0, 8.0, 9.0, 1.0], [9.0, 2.0, 1.0, 0.0]):
        ranking.add(np.array(variances))
    table = ranking.result()
    # Gene 0 is first twice, gene 2 once, gene 1 second three times.
    np.testing.assert_array_equal(table["highly_variable_rank"], [0.0, 1.0, 0.0, np.nan])
    assert table["highly_variable_nbatches"].tolist() == [2, 3, 1, 0]
    assert table["highly_variable"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flavor": "pearson"}, "flavor='pearson' must be one of seurat, cell_ranger, seurat_v3"),
        ({"n_top_genes": 0}, "n_top_genes=0 must be 1 or more"),
        ({"span": 0}, "span=0 must be a share"),
        ({"min_cells": -1}, "min_cells=-1 must be 0 or more"),
    ],
)
def test_rules_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HvgRules(**settings)


def test_seurat_v3_names_the_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gene_settings, "find_spec", lambda _: None)
    HvgRules(flavor="seurat")
    with pytest.raises(ConfigError, match=r"pip install 'scvae-data\[hvg\]'"):
        HvgRules(flavor="seurat_v3")
