"""Real files: what is stored equals what anndata and scanpy read, cell by cell and gene by gene."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from tests.support.warm import run_python

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.scan.doublets import one_thread
from scvae_data.processing.settings.gene_classes import HAEMOGLOBIN
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking

# Symbols repeat in real files, and anndata says so at every step.
pytestmark = pytest.mark.filterwarnings("ignore:.*names are not unique")

Process = Callable[..., Any]

PROGRAM = Path(__file__).parents[2] / "process.py"
PBMC3K = "h5ad/pbmc3k_2700.h5ad"
TOTALSEQ = "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5"
MTX = "mtx/1k_pbmc_v2_chemistry"
HEART = "10x_h5/heart_1k_v2_filtered_gene_bc_matrices_h5.h5"
BONE_MARROW = "h5ad/mouse_bm_362.h5ad"
HUMAN, MOUSE = (PBMC3K, TOTALSEQ, MTX), (HEART, BONE_MARROW)


@pytest.fixture(scope="module")
def sources(shared_data: Path) -> dict[str, ad.AnnData]:
    """The files as scanpy reads them; var names are symbols, ``gene_ids`` the ids where a file has them."""
    found = {PBMC3K: ad.read_h5ad(shared_data / PBMC3K)}
    found[MTX] = sc.read_10x_mtx(shared_data / MTX, make_unique=False)
    found |= {name: sc.read_10x_h5(shared_data / name, gex_only=True) for name in (TOTALSEQ, HEART)}
    found[BONE_MARROW] = ad.read_h5ad(shared_data / BONE_MARROW)
    for adata in found.values():
        adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    return found


@pytest.fixture(scope="module")
def stored(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ad.AnnData]:
    """The three human files in one directory, and all its chunks as one AnnData."""
    return made([shared_data / name for name in HUMAN], tmp_path_factory.mktemp("real") / "out")


@pytest.fixture(scope="module")
def of_mouse(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ad.AnnData]:
    """The same of two files of mouse."""
    return made([shared_data / name for name in MOUSE], tmp_path_factory.mktemp("mouse") / "out")


@pytest.fixture(scope="module")
def scored(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ad.AnnData]:
    """The human files with doublet scores, by two workers."""
    out = tmp_path_factory.mktemp("scored") / "out"
    return made([shared_data / name for name in HUMAN], out, "qc.doublets=score", "engine=local", "engine.n_workers=2")


def made(paths: list[Path], out: Path, *settings: str) -> tuple[Path, ad.AnnData]:
    """Files in one directory, and all its chunks as one AnnData."""
    given = ["input=files", f"input.paths=[{','.join(map(str, paths))}]", "chunk_size=1000"]
    run_python(PROGRAM, *given, f"paths.processed_dir={out}", *settings, cwd=out.parent).check_returncode()
    chunks = [ad.read_h5ad(path) for path in sorted(out.glob("chunk_*.h5"))]
    together = ad.concat(chunks)
    together.var = chunks[0].var
    return out, together


@pytest.mark.parametrize("name", HUMAN)
def test_whole_rows_equal_their_source(
    name: str, sources: dict[str, ad.AnnData], stored: tuple[Path, ad.AnnData]
) -> None:
    out, together = stored
    source, cells = sources[name], together[together.obs["source_file"] == name]
    assert cells.n_obs > 0.9 * source.n_obs
    rows = source.X[cells.obs["source_row"].to_numpy()].astype(np.float64)
    report = reported(out, source)
    columns = together.var_names.get_indexer(report["gene"].fillna("none").tolist())
    present = columns >= 0
    assert (present == report["gene"].notna()).all()
    # Every source gene is in a column, or listed as dropped with its UMIs.
    dropped = json.loads((out / "chunk_summary.json").read_text())["dropped_genes"]
    listed = dict(zip(dropped["gene"], dropped["total_counts"], strict=True))
    lost = np.asarray(rows[:, ~present].sum(axis=0)).ravel()
    for gene, name, umis in zip(report["id"][~present], report["name"][~present], lost, strict=True):
        assert umis <= listed[gene or name]
    spread = sp.csr_matrix(
        (np.ones(present.sum()), (np.flatnonzero(present), columns[present])), shape=(source.n_vars, together.n_vars)
    )
    assert abs(rows @ spread - cells.X.astype(np.float64)).max() == 0


def reported(out: Path, source: ad.AnnData) -> pd.DataFrame:
    """What the report of genes says of each gene of a source, in its order; given ids stay or are retired ones."""
    names = source.var.get("gene_ids", pd.Series(source.var_names)).tolist()
    tables = pd.read_parquet(out / "gene_report.parquet").groupby("table", observed=True)
    (table,) = (table for _, table in tables if table.sort_values("position")["name"].tolist() == names)
    report = table.sort_values("position").reset_index(drop=True)
    if "gene_ids" in source.var:
        assert (report["id"] == names)[report["how"] != "retired id"].all()
    return report


@pytest.mark.parametrize("name", [*HUMAN, *MOUSE])
def test_qc_columns_equal_scanpy_to_the_last_bit(
    name: str, sources: dict[str, ad.AnnData], request: pytest.FixtureRequest
) -> None:
    out, together = request.getfixturevalue("of_mouse" if name in MOUSE else "stored")
    cells = together[together.obs["source_file"].isin([name, Path(name).name])].obs
    source = sources[name].copy()
    # A gene is of a class by its present symbol: files of other years call some ribosomal genes otherwise.
    report = reported(out, source)
    present = pd.Series(load_reference("builtin").symbols(report["id"].fillna(""))).where(
        lambda symbol: symbol != "", report["symbol"].fillna(report["name"])
    )
    written, present = pd.Series(source.var_names).str.upper(), present.str.upper()
    haemoglobin = {symbol.upper() for symbol in HAEMOGLOBIN}
    source.var["mt"] = written.str.startswith("MT-").to_numpy()
    source.var["ribo"] = present.str.startswith(("RPS", "RPL")).to_numpy()
    source.var["hb"] = present.isin(haemoglobin).to_numpy()
    # Elsewhere they are those of the symbols as they are written.
    assert (written.str.startswith(("RPS", "RPL")) != source.var["ribo"].to_numpy()).sum() < 20
    assert set(written[written.isin(haemoglobin)]) <= set(written[source.var["hb"].to_numpy()])
    metrics, _ = sc.pp.calculate_qc_metrics(source, qc_vars=["mt", "ribo", "hb"], percent_top=(50,))
    expected = metrics.iloc[cells["source_row"].to_numpy()]
    columns = [name for name in cells.columns if "counts" in name]
    assert len(columns) == 8
    for column in columns:
        np.testing.assert_array_equal(cells[column].to_numpy(), expected[column].to_numpy(), err_msg=column)


@pytest.mark.parametrize("name", HUMAN)
def test_doublet_scores_equal_scanpy_to_the_last_bit(
    name: str, sources: dict[str, ad.AnnData], scored: tuple[Path, ad.AnnData]
) -> None:
    cells = scored[1][scored[1].obs["source_file"] == name].obs.sort_values("source_row")
    source = sources[name][cells["source_row"].to_numpy()].copy()
    source.var_names_make_unique()
    with one_thread():
        sc.pp.scrublet(source, random_state=0)
    np.testing.assert_array_equal(cells["doublet_score"].to_numpy(), source.obs["doublet_score"].to_numpy())
    assert cells["predicted_doublet"].tolist() == source.obs["predicted_doublet"].tolist()
    rates = pd.read_parquet(scored[0] / "experiments.parquet").set_index("source_file")["doublet_rate"]
    assert rates[name] == source.obs["predicted_doublet"].mean()


def test_symbols_share_columns_with_ids(stored: tuple[Path, ad.AnnData]) -> None:
    cells = stored[1][stored[1].obs["source_file"] == PBMC3K]
    shared = cells.var_names.str.startswith("ENSG")
    assert cells[:, shared].X.sum() / cells.obs["total_counts"].sum() >= 0.96


def test_a_mouse_file_stops_the_run(shared_data: Path, process: Process) -> None:
    with pytest.raises(ConfigError, match=r"mixed species: human .* mouse .*heart_1k_v2"):
        process([shared_data / name for name in (PBMC3K, HEART)])


@pytest.mark.parametrize("variant", ["2 workers and moved", "4 workers in another order", "another hash seed"])
def test_the_same_bytes_from_any_run(
    variant: str, shared_data: Path, process: Process, tmp_path: Path, stored: tuple[Path, ad.AnnData]
) -> None:
    names = [TOTALSEQ, PBMC3K, MTX]
    qc, genes, chunking = QcRules(percent_top=[50]), GeneRules(), Chunking(chunk_size=1000)
    settings: dict[str, Any] = {"qc": qc, "genes": genes, "chunking": chunking}
    out = tmp_path / "out"
    if variant == "another hash seed":
        paths = ",".join(str(shared_data / name) for name in names)
        subprocess.run(
            [sys.executable, PROGRAM, "input=files", f"input.paths=[{paths}]", "chunk_size=1000",
             f"paths.processed_dir={out}"],
            check=True, cwd=tmp_path, capture_output=True, env={"PYTHONHASHSEED": "1", "PATH": ""},
        )  # fmt: skip
    elif variant == "2 workers and moved":
        for name in names:
            target = tmp_path / "moved" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = shared_data / name
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        process([tmp_path / "moved" / name for name in names], engine=LocalEngine(2), **settings)
    else:
        process([shared_data / name for name in names[::-1]], engine=LocalEngine(4), **settings)
    for path in sorted(stored[0].glob("*")):
        if path.name.startswith("chunk_0") or path.name in ("obs.parquet", "gene_list.json", "chunk_index.json"):
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_scanpy_computes_on_chunks_what_it_computes_on_floats(stored: tuple[Path, ad.AnnData]) -> None:
    chunk = ad.read_h5ad(stored[0] / "chunk_0000.h5")
    chunk.X.data[:5000] *= 60  # counts beyond 255 and totals beyond 65,535
    both = chunk, ad.AnnData(chunk.X.astype(np.float32), obs=chunk.obs, var=chunk.var)
    assert both[1].X.sum(axis=1).max() > 65_535
    found = [scanpy_numbers(adata) for adata in both]
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-5, err_msg=name)


def scanpy_numbers(adata: ad.AnnData) -> dict[str, Any]:
    metrics, _ = sc.pp.calculate_qc_metrics(adata, percent_top=(50, 200), qc_vars=["mt"])
    columns = ["total_counts", "pct_counts_in_top_200_genes", "pct_counts_mt"]
    numbers: dict[str, Any] = {name: metrics[name].to_numpy(np.float64) for name in columns}
    sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=500)
    numbers["seurat_v3"] = adata.var["variances_norm"].to_numpy()
    aggregated = sc.get.aggregate(adata, by="SRX_accession", func=["var", "mean"])
    numbers["aggregate"] = np.asarray(aggregated.layers["var"], np.float64)
    down = sc.pp.downsample_counts(adata, counts_per_cell=500, copy=True, random_state=0)
    numbers["downsample"] = np.asarray(down.X.sum(axis=1)).ravel()
    numbers["multiply"] = adata.X.multiply(0.5).sum()
    numbers["concat"] = ad.concat([adata, adata], index_unique="-").X.sum()
    scrub = sc.pp.scrublet(adata, copy=True, random_state=0, threshold=0.25)
    numbers["scrublet"] = scrub.obs["doublet_score"].to_numpy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, "SRX_accession", method="t-test")
    numbers["rank"] = pd.DataFrame(adata.uns["rank_genes_groups"]["scores"]).to_numpy(np.float64)
    return numbers
