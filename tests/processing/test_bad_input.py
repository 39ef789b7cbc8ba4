"""What goes wrong with real files, case by case: handled as stated or refused with a reason, never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import position_counts, run_pipeline
from tests.support.warm import run_python

from scvae_data import open_index
from scvae_data.errors import ScvaeDataError
from scvae_data.processing import pipeline
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking

Process = Callable[..., Any]
ROOT = Path(__file__).parents[2]
# Files that hold no single-cell counts, or not in a layout that is read: their reason. The others: cells, cells that
# have a count, and the slot of the counts.
ODD: dict[str, str | tuple[int, int, str]] = {
    "anndata_v0.11.4.h5ad": "no_counts",
    "anndata_v0.5.0.h5ad": "negative",
    "anndata_v0.7.0.h5ad": (30, 30, "raw/X"),
    "anndata_v0.7.0.zarr.zip": (30, 30, "raw/X"),
    "anndata_v0.7.8.h5ad": (30, 30, "raw/X"),
    "anndata_v0.7.8.zarr.zip": (30, 30, "raw/X"),
    "scframework_adata.h5ad": (200, 59, "X"),
    "scprep_test_data": "not_single_cell",
    "scprep_test_data/barcodes.tsv": "not_single_cell",
    "scprep_test_data/gene_symbols.csv": "not_single_cell",
    "scprep_test_data/test_10X": (100, 59, "matrix"),
    "scprep_test_data/test_10X.h5": (100, 59, "matrix"),
    "scprep_test_data/test_10X.zip": "not_single_cell",
    "scprep_test_data/test_10X_cellranger3": (100, 59, "matrix"),
    "scprep_test_data/test_10X_cellranger3.h5": (100, 59, "matrix"),
    "scprep_test_data/test_10X_duplicate_gene_names": (100, 59, "matrix"),
    "scprep_test_data/test_10X_invalid.zip": "not_single_cell",
    "scprep_test_data/test_10X_no_subdir.zip": "not_single_cell",
    "scprep_test_data/test_small.csv": (100, 59, "matrix"),
    "scprep_test_data/test_small.tsv": (100, 59, "matrix"),
    "scprep_test_data/test_small_duplicate_gene_names.csv": (100, 59, "matrix"),
    "scvi_10X_pbmc_10k_protein_v3.tar.gz": "not_single_cell",
}


def inputs_below(folder: Path) -> list[Path]:
    """Every file below a folder; a folder with a Matrix Market file is one input."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    matrices = {path.parent for path in files if ".mtx" in path.suffixes}
    return sorted({path.parent if path.parent in matrices else path for path in files})


# --- files of others ------------------------------------------------------------------------------------------------


def test_the_table_names_every_odd_file(shared_data: Path) -> None:
    odd = shared_data / "odd"
    known = {odd / name for name in ODD} - {odd / "scprep_test_data"}
    assert set(inputs_below(odd)) == known


@pytest.mark.parametrize("name", ODD)
def test_odd_files(name: str, shared_data: Path, process: Process, tmp_path: Path) -> None:
    path, expected = shared_data / "odd" / name, ODD[name]
    settings = {"input": FileInput(paths=[str(path)], obs_columns=[]), "chunking": Chunking()}
    if isinstance(expected, str):
        with pytest.raises(ScvaeDataError) as caught:
            process([], **settings)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        failed = json.loads((tmp_path / "out" / "failure_report.json").read_text())["failed"]
        assert [file["reason"] for file in failed] == [expected]
        return
    summary = process([], **settings)
    slot = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["attrition"]["slot"]
    assert (summary.n_obs_in, summary.n_obs, *slot) == expected


# --- exit status ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "status"), [("0.3", 1), ("0.34", 0)])
def test_exit_status_follows_the_share_of_failed_files(
    allowed: str, status: int, write_raw: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("SRX1.h5ad", "SRX2.h5ad"):
        write_raw(name, position_counts(4, 3, offset=int(name[3])), list("ABC"))
    (tmp_path / "raw" / "SRX3.h5ad").write_bytes(b"")
    out = tmp_path / "out"
    result = run_python(
        ROOT / "process.py", "input=files", "qc=none", "genes.min_cells=1", f"input.paths={tmp_path}/raw/*.h5ad",
        f"max_failed_fraction={allowed}", f"paths.processed_dir={out}", f"hydra.run.dir={tmp_path}/run", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == status, result.stderr
    assert (out / "chunk_index.json").exists() == (status == 0)
    assert (out / "quarantine.txt").read_text() == f"{tmp_path}/raw/SRX3.h5ad\n"
    if status:
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("error: 1 of 3 files failed, more than max_failed_fraction=")
        assert f"first: {tmp_path}/raw/SRX3.h5ad: is empty (0 bytes); copy it again; all in" in last
    else:
        assert "3, 1 failed" in result.stdout
    assert "\n  SRX3.h5ad: empty: is empty (0 bytes); copy it again\n" in result.stderr


# --- faults, one by one ---------------------------------------------------------------------------------------------

COUNTS = position_counts(5, 4)
GENES = list("ABCD")


class Case:
    """A folder for files, and a run on them."""

    def __init__(self, folder: Path, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.process, self.monkeypatch = folder, process, monkeypatch
        self.n_runs = 0
        folder.mkdir()

    def write(self, name: str, x: Any = COUNTS, genes: list[str] | None = None, **parts: Any) -> Path:
        """Write an H5AD file."""
        raw = parts.pop("raw", None)
        names = genes or GENES[: x.shape[1]]
        obs = pd.DataFrame(index=parts.pop("cells", [f"c{n}" for n in range(x.shape[0])]))
        adata = ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=names), **parts)
        if raw is not None:
            adata.raw = ad.AnnData(raw.astype(np.float32), obs=obs, var=adata.var)
        adata.write_h5ad(self.folder / name)
        return self.folder / name

    def mtx(self, name: str, features: str, *, n_cells: int = 5, cells_first: bool = False, prefix: str = "") -> Path:
        """Write a Matrix Market folder of the counts."""
        folder = self.folder / name
        folder.mkdir()
        matrix = sp.coo_matrix(COUNTS if cells_first else COUNTS.T)
        lines = [f"{i + 1} {j + 1} {x}" for i, j, x in zip(matrix.row, matrix.col, matrix.data, strict=True)]
        head = f"%%MatrixMarket matrix coordinate integer general\n{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}\n"
        (folder / f"{prefix}matrix.mtx").write_text(head + "\n".join(lines) + "\n")
        (folder / f"{prefix}barcodes.tsv").write_text("".join(f"c{n}\n" for n in range(n_cells)))
        (folder / f"{prefix}features.tsv").write_text(features)
        return folder

    def run(self, *paths: Path, **settings: Any) -> tuple[pd.DataFrame, Any]:
        """Process files; return the counts by (file and row) and gene, and the summary."""
        self.n_runs += 1
        out = self.folder / f"out{self.n_runs}"
        summary = self.process(paths, out, **settings)
        parts = []
        for path in sorted(out.glob("chunk_*.h5")):
            chunk = ad.read_h5ad(path)
            names = chunk.obs["source_file"].astype(str) + "/" + chunk.obs["source_row"].astype(str)
            parts.append(pd.DataFrame(chunk.X.toarray(), index=names.to_list(), columns=chunk.var_names))
        return pd.concat(parts).sort_index().astype(np.int64), summary

    def refused(self, path: Path, **settings: Any) -> tuple[str, str]:
        """Process one bad file beside a good one; return reason and message, having seen that the good one is in."""
        good = self.write("SRX9.h5ad", COUNTS + 1)
        table, summary = self.run(path, good, max_failed_fraction=0.5, **settings)
        assert len(table) == len(COUNTS)
        (failed,) = summary.failed
        return failed.reason, failed.message

    def same_as_counts(self, path: Path, **settings: Any) -> bool:
        """Whether a file comes out as the counts."""
        table, _ = self.run(path, **settings)
        return bool((table.to_numpy() == COUNTS).all()) and len(table) == len(COUNTS)


CASES: list[Any] = []


def fault(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Add a case to the table."""
    CASES.append(pytest.param(function, id=function.__name__))
    return function


@fault
def row_borders_do_not_overflow(case: Case) -> None:
    from scvae_data.processing.sort.sorted_run import SortedRun

    def keep_work(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    case.monkeypatch.setattr("scvae_data.processing.pipeline.publish", keep_work)
    with pytest.raises(KeyboardInterrupt):
        case.run(case.write("SRX1.h5ad"))
    with SortedRun(case.folder / "out1" / ".work" / "scan" / "000000" / "run0000") as run:
        assert run.array("starts").dtype == np.int64


@fault
def memory_is_bounded_by_pieces_not_by_files(case: Case) -> None:
    path = case.write("SRX1.h5ad")
    whole, _ = case.run(path)
    small = partial(ScanJob, run_entries=8, block_entries=6)
    case.monkeypatch.setattr("scvae_data.processing.scan.stage.ScanJob", small)
    pieces, _ = case.run(path)
    assert pieces.equals(whole)
    for name in ("chunk_0000.h5", "obs.parquet", "chunk_index.json", "dropped_cells.parquet"):
        assert (case.folder / "out1" / name).read_bytes() == (case.folder / "out2" / name).read_bytes()


@fault
def csr_csc_and_dense_go_together(case: Case) -> None:
    layouts = {"SRX1.h5ad": sp.csr_matrix(COUNTS), "SRX2.h5ad": sp.csc_matrix(COUNTS), "SRX3.h5ad": COUNTS}
    table, _ = case.run(*(case.write(name, x) for name, x in layouts.items()))
    for name in layouts:
        np.testing.assert_array_equal(table[table.index.str.startswith(name)], COUNTS)


@fault
def duplicate_symbols_stay_apart_and_names_of_cells_are_made_unique(case: Case) -> None:
    with pytest.warns(UserWarning, match="not unique"):
        path = case.write("SRX1.h5ad", genes=["A", "B", "A", "C"], cells=["c", "c", "c", "d", "e"])
    table, _ = case.run(path)
    np.testing.assert_array_equal(table[["A", "A-1"]], COUNTS[:, [0, 2]])
    assert open_index(case.folder / "out1").obs([]).index.is_unique


@fault
def counts_in_a_layer(case: Case) -> None:
    assert case.same_as_counts(case.write("SRX1.h5ad", np.log1p(COUNTS), layers={"counts": COUNTS}))


@fault
def strings_of_every_kind(case: Case) -> None:
    obs = pd.DataFrame(
        {
            "text": pd.array(["a", None, "b", "a", "c"], dtype="string"),
            "number": pd.array([1, None, 3, 4, 5], dtype="Int64"),
            "flag": pd.array([True, None, False, True, True], dtype="boolean"),
            "group": pd.Categorical(["x", None, "y", "x", "y"]),
        },
        index=[f"c{n}" for n in range(5)],
    )
    adata = ad.AnnData(COUNTS.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(case.folder / "SRX1.h5ad")
    assert case.same_as_counts(case.folder / "SRX1.h5ad")
    stored = open_index(case.folder / "out1").obs(["source_row", "text", "number", "flag", "group"])
    stored = stored.set_index("source_row").sort_index()
    assert stored["number"].tolist()[2:] == [3, 4, 5]
    assert stored.isna().sum().tolist() == [1, 1, 1, 1]


@fault
def more_top_genes_than_genes(case: Case) -> None:
    case.run(case.write("SRX1.h5ad"), qc=QcRules(min_genes=None, min_counts=None, percent_top=[50]))
    column = "pct_counts_in_top_50_genes"
    assert (open_index(case.folder / "out1").obs([column])[column] == 100).all()


@fault
def a_layer_called_counts_that_was_overwritten(case: Case) -> None:
    path = case.write("SRX1.h5ad", np.log1p(COUNTS), layers={"counts": np.log1p(COUNTS)}, raw=COUNTS)
    assert case.same_as_counts(path)
    attrition = json.loads((case.folder / "out1" / "chunk_summary.json").read_text())["attrition"]
    assert attrition["slot"] == ["raw/X"]


@fault
def values_decide_not_what_uns_says(case: Case) -> None:
    assert case.same_as_counts(case.write("SRX1.h5ad", uns={"log1p": {"base": np.e}}))
    assert case.refused(case.write("SRX2.h5ad", np.log1p(COUNTS)))[0] == "fractional"


@fault
def a_batch_too_small_for_loess(case: Case) -> None:
    from scvae_data.processing.settings.genes import HvgRules

    rng = np.random.default_rng(0)
    genes = [f"g{n}" for n in range(80)]
    big = case.write("SRX1.h5ad", rng.poisson(3.0, (60, 80)) * rng.integers(1, 9, 80), genes)
    tiny = case.write("SRX2.h5ad", rng.poisson(3.0, (2, 80)), genes)
    rules = HvgRules(flavor="seurat_v3", n_top_genes=10, batch_key="SRX_accession", min_cells=1)
    _, summary = case.run(big, tiny, genes=rules)
    assert summary.n_vars == 10


@fault
def mtx_with_one_column_of_features(case: Case) -> None:
    assert case.same_as_counts(case.mtx("SRX1", "A\nB\nC\nD\n"))


@fault
def mtx_with_two_columns_prefixed_and_transposed(case: Case) -> None:
    features = "".join(f"ENSG0000000000{n}\t{name}\n" for n, name in enumerate(GENES))
    assert case.same_as_counts(case.mtx("SRX1", features, prefix="GSM1_"))
    assert case.same_as_counts(case.mtx("SRX2", features, cells_first=True))


@fault
def matrix_and_barcodes_disagree(case: Case) -> None:
    reason, message = case.refused(case.mtx("SRX1", "A\nB\nC\nD\n", n_cells=4))
    assert reason
    assert "5" in message
    assert "4" in message


@fault
def a_truncated_file(case: Case) -> None:
    path = case.write("SRX1.h5ad")
    path.write_bytes(path.read_bytes()[:-2000])
    assert case.refused(path)[0] == "truncated"


@fault
def dense_h5ad(case: Case) -> None:
    assert case.same_as_counts(case.write("SRX1.h5ad", COUNTS))


@fault
def fractional_counts(case: Case) -> None:
    x = COUNTS.astype(float)
    x[3, 2] = 7.25
    reason, message = case.refused(case.write("SRX1.h5ad", sp.csr_matrix(x)))
    assert reason == "fractional"
    assert "value 7.25 in row 3, column 2 (C)" in message


@fault
def mitochondrial_genes_already_removed(case: Case) -> None:
    rules = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=0.0)
    case.run(case.write("SRX1.h5ad"), case.write("SRX2.h5ad", COUNTS + 1, ["MT-ND1", *GENES[1:]]), qc=rules,
             genes=GeneRules(min_cells=1))  # fmt: skip
    obs = open_index(case.folder / "out1").obs(["source_file", "pct_counts_mt"])
    assert set(obs["source_file"]) == {"SRX1.h5ad"}
    assert obs["pct_counts_mt"].isna().all()


@fault
def symbols_ids_and_versions_mixed(case: Case) -> None:
    ids = [f"ENSG0000000000{n}" for n in range(4)]
    both = case.mtx("SRX1", "".join(f"{key}.7\t{name}\n" for key, name in zip(ids, GENES, strict=True)))
    paths = [both, case.write("SRX2.h5ad"), case.write("SRX3.h5ad", genes=[f"{key}.12" for key in ids])]
    table, summary = case.run(*paths)
    assert table.columns.tolist() == ids
    assert (summary.n_genes_in, len(table)) == (4, 15)


@fault
def equal_cells_with_unique_names(case: Case) -> None:
    x = np.repeat([[3]], 60, axis=1) + np.array([0, 1, 0, 2])[:, None]
    genes = [f"g{n}" for n in range(60)]
    table, summary = case.run(case.write("SRX1.h5ad", x, genes), case.write("SRX2.h5ad", x[:2], genes))
    assert summary.duplicates["n_copies"] == 3
    assert len(table) == 6
    table, summary = case.run(case.folder / "SRX1.h5ad", case.folder / "SRX2.h5ad", keep_duplicates="first")
    assert table.index.tolist() == ["SRX1.h5ad/0", "SRX1.h5ad/1", "SRX1.h5ad/3"]


@fault
def nine_files_in_and_five_out(case: Case) -> None:
    good = [case.write(f"SRX{n}.h5ad", COUNTS + n) for n in range(1, 6)]
    bad = [case.folder / f"SRX{n}.h5ad" for n in range(6, 10)]
    for path, content in zip(bad, (b"", b"text", b"PK\3\4", b"\x89HDF\r\n\x1a\n"), strict=True):
        path.write_bytes(content)
    with pytest.raises(ScvaeDataError, match="4 of 9 files failed"):
        case.run(*good, *bad)
    table, summary = case.run(*good, *bad, max_failed_fraction=0.5)
    assert len(table) == 25
    assert [file.source_file for file in summary.failed] == [path.name for path in bad]


@fault
def totals_beyond_what_a_float_can_count(case: Case) -> None:
    x = np.array([[16_777_216, 1, 0], [16_777_217 - 2, 3, 5]], np.int64)
    adata = ad.AnnData(sp.csr_matrix(x.astype(np.int32)), obs=pd.DataFrame(index=["a", "b"]))
    adata.var_names = list("ABC")
    adata.write_h5ad(case.folder / "SRX1.h5ad")
    table, _ = case.run(case.folder / "SRX1.h5ad")
    np.testing.assert_array_equal(table, x)
    totals = open_index(case.folder / "out1").obs(["source_row", "total_counts"]).set_index("source_row")
    assert totals["total_counts"].sort_index().tolist() == [16_777_217, 16_777_223]


@fault
def cells_are_judged_before_genes(case: Case) -> None:
    x = np.array([[5, 5, 0], [5, 5, 0], [0, 0, 1]])
    rules = QcRules(min_genes=2, min_counts=None, max_pct_counts_mt=None)
    table, _ = case.run(case.write("SRX1.h5ad", x), qc=rules, genes=GeneRules(min_cells=1))
    assert table.columns.tolist() == ["A", "B"]


@pytest.mark.parametrize("fault", CASES)
def test_faults(fault: Callable[[Case], None], process: Process, tmp_path: Path, monkeypatch: Any) -> None:
    fault(Case(tmp_path / "case", process, monkeypatch))


def test_a_file_whose_genes_change_places_after_the_survey_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = ad.AnnData(sp.csr_matrix(position_counts(6, 5)))
    adata.var_names = [f"g{n}" for n in range(5)]
    adata.write_h5ad(tmp_path / "SRX1.h5ad")
    survey = pipeline.survey

    def then_changed(context: Any) -> Any:
        surveyed = survey(context)
        adata[:, ::-1].write_h5ad(tmp_path / "SRX1.h5ad")
        return surveyed

    rules = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=None, percent_top=[2])
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "survey", then_changed)
        with pytest.raises(ScvaeDataError, match=r"SRX1.h5ad: was changed since its headers were read; resume=true"):
            run_pipeline([tmp_path / "SRX1.h5ad"], tmp_path / "out", qc=rules)
    run_pipeline([tmp_path / "SRX1.h5ad"], tmp_path / "out", qc=rules, resume=True)
    made = ad.read_h5ad(tmp_path / "out" / "chunk_0000.h5")
    source = adata[made.obs["source_row"].to_numpy(), made.var_names]
    np.testing.assert_array_equal(made.X.toarray(), source.X.toarray())
