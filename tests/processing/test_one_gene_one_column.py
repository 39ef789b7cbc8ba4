"""Five real files, of symbols, ids of hg19 and ids of GRCh38, in one directory: a gene is one column."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from tests.support.pipeline import run_pipeline

from scvae_data.processing.genes.reference import JOINED_BY, load_reference
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking, open_index

FILES = {
    "symbols": "h5ad/pbmc3k_2700.h5ad",
    "symbols of CITE-seq": "h5ad_orig/scvi_pbmc_5k_protein_v3.h5ad",
    "GRCh38": "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5",
    "GRCh38 of 2018": "mtx/1k_pbmc_v2_chemistry",
    "hg19": "mtx/cellrangerRkit_test_pipestance_outs/filtered_gene_bc_matrices/hg19",
}
GENES = {
    "RPL10": ["ENSG00000147403"],
    "RPS18": ["ENSG00000231500"],
    "HLA-A": ["ENSG00000206503"],
    "TBCE": ["ENSG00000284770", "ENSG00000285053"],
    "AATF": ["ENSG00000275700"],
}


@pytest.fixture(scope="module")
def made(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """The directory, and what the run said of it."""
    out = tmp_path_factory.mktemp("five") / "out"
    paths = [shared_data / name for name in FILES.values()]
    settings = {"qc": QcRules(), "genes": GeneRules(), "chunking": Chunking(chunk_size=5000)}
    return out, run_pipeline(paths, out, **settings)


@pytest.fixture(scope="module")
def report(made: tuple[Path, Summary]) -> pd.DataFrame:
    """What was found for each row of each file."""
    return pd.read_parquet(made[0] / "gene_report.parquet")


def test_nearly_all_umis_are_in_columns_with_an_id(report: pd.DataFrame) -> None:
    umis = report.assign(with_id=report["counts"].where(report["id"].notna(), 0)).groupby("table", observed=True)
    shares = umis["with_id"].sum() / umis["counts"].sum()
    assert len(shares) == len(FILES)
    assert shares.min() >= 0.99


def test_no_gene_has_two_columns(made: tuple[Path, Summary], report: pd.DataFrame) -> None:
    columns = report.dropna(subset=["gene", "id"]).groupby("id")["gene"].nunique()
    assert columns.max() == 1
    genes = open_index(made[0]).genes
    assert len(set(genes.names)) == len(genes.names)
    apart = report[report["how"].isin(["apart", "ambiguous"])]
    assert apart["counts"].sum() < 0.001 * report["counts"].sum()
    assert f"apart     {apart['gene'].nunique()} genes" in str(made[1])


@pytest.mark.parametrize("symbol", list(GENES))
def test_the_choices_for_genes_with_several_ids(symbol: str, report: pd.DataFrame) -> None:
    rows = report[(report["symbol"] == symbol) & (report["counts"] > 0)]
    print(rows[["table", "name", "id", "gene", "how", "counts"]].to_string(index=False))
    assert sorted(set(rows["gene"])) == GENES[symbol]
    assert (rows["id"] == rows["gene"]).all()
    assert set(rows["how"]) <= {"id", "retired id", "files", "order", "primary", "reference"}


@pytest.fixture(scope="module")
def markers(made: tuple[Path, Summary]) -> set[str]:
    """The 20 first markers of each cluster of 50 cells and more, as scanpy finds them."""
    cells = ad.concat([ad.read_h5ad(path) for path in sorted(made[0].glob("chunk_*.h5"))])
    cells.X = cells.X.astype(np.float32)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=2000, batch_key="source_file")
    sc.pp.pca(cells, n_comps=20, mask_var="highly_variable")
    sc.pp.neighbors(cells, transformer="sklearn")
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False)
    n_obs = cells.obs["leiden"].value_counts()
    sc.tl.rank_genes_groups(cells, "leiden", groups=list(n_obs.index[n_obs >= 50]), method="t-test", n_genes=20)
    return {name for names in cells.uns["rank_genes_groups"]["names"].tolist() for name in names}


def test_markers_of_clusters_have_ids(markers: set[str]) -> None:
    assert len(markers) > 100
    assert [name for name in markers if not name.startswith("ENSG")] == []


def test_a_marker_of_one_file_alone_has_no_name_in_the_others(markers: set[str], report: pd.DataFrame) -> None:
    """Only what the other annotations leave out is in one: non-coding genes, in the sets that leave out their class."""
    n_tables = report.dropna(subset=["gene"]).groupby("gene")["table"].nunique()
    alone = sorted(name for name in markers if n_tables[name] == 1)
    genes = load_reference("builtin").table.to_pandas().set_index("id").loc[alone]
    print(genes[["symbol", "previous", "aliases"]].to_string())
    assert len(alone) < 0.05 * len(markers)
    for gene_id, known in genes.iterrows():
        names = {gene_id, known["symbol"], *known["previous"].split(JOINED_BY), *known["aliases"].split(JOINED_BY)}
        called = report[report["symbol"].isin(names - {""}) | report["name"].isin(names - {""})]
        assert called["table"].nunique() == 1, called.to_string()
