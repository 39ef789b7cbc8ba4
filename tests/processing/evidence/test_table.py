"""Each experiment has a row whose values are those of its cells, whoever did the work."""

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
from tests.support.pages import table_of
from tests.support.pipeline import NO_QC

from scvae_data import open_index
from scvae_data.commands.info import of_experiments
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.evidence.flags import REMEDIES, add_outliers, flags_of, remedy_of
from scvae_data.processing.evidence.table import account_of
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.qc import QcRules
from scvae_data.report.qc import qc_report
from scvae_data.report.qc_facts import qc_facts
from scvae_data.simulate import simulate_files
from scvae_data.store import Chunking
from scvae_data.store.verify import record_faults

Process = Callable[..., Any]
Write = Callable[..., Path]
GENES = ["MT-ND1", *(f"g{number}" for number in range(99))]
LETTERS = np.array(list("ACGT"))


@pytest.fixture
def process(process: Process) -> Process:
    """Rows of experiments do not depend on chunks: few of them."""
    return partial(process, chunking=Chunking(chunk_size=50))


def counts_of(seed: int, n_obs: int = 80, depth: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(1.0, depth, (1, len(GENES))) * rng.gamma(9.0, 1 / 9, (n_obs, 1)))


def barcodes(seed: int, n: int) -> list[str]:
    return ["".join(row) + "-1" for row in LETTERS[np.random.default_rng(seed).integers(0, 4, (n, 16))]]


def write(path: Path, counts: np.ndarray, names: list[str], **obs: Any) -> Path:
    """Write counts with these names of cells, and genes called `GENES`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    var = pd.DataFrame(index=pd.Index(GENES))
    ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), pd.DataFrame(obs, index=names), var).write_h5ad(path)
    return path


def rows_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "experiments.parquet").set_index("srx_accession")


def test_rows_hold_what_the_cells_say(tmp_path: Path, process: Process) -> None:
    counts = counts_of(0)
    counts[5:9] = 0
    counts[9, 1:] = 0
    accessions = np.where(np.arange(80) % 4 == 0, "SRX2", "SRX1")
    both = write(tmp_path / "raw" / "both.h5ad", counts, barcodes(0, 80), srx_accession=accessions)
    alone = write(tmp_path / "raw" / "SRX3.h5ad", counts_of(1, 40), [f"cell{n}" for n in range(40)])
    qc = QcRules(**(vars(NO_QC) | {"min_genes": 40, "max_pct_counts_mt": 4.0}))
    summary = process([both, alone], qc=qc)
    out = tmp_path / "out"
    obs, dropped, rows = (
        pd.read_parquet(out / "obs.parquet"), pd.read_parquet(out / "dropped_cells.parquet"), rows_of(out)
    )  # fmt: skip
    assert rows.index.tolist() == ["SRX3", "SRX1", "SRX2"]  # by file, then accession
    assert rows["source_file"].tolist() == ["SRX3.h5ad", "both.h5ad", "both.h5ad"]
    for accession, row in rows.iterrows():
        kept = obs[obs["SRX_accession"] == accession]
        lost = dropped[dropped["accession"] == accession]
        assert (row["n_kept"], row["n_obs"]) == (len(kept), len(kept) + len(lost))
        assert {rule: n for rule in summary.lost if (n := row[f"lost_{rule}"])} == lost["rule"].value_counts().to_dict()
        assert row["median_counts"] == kept["total_counts"].median()
        assert row["median_genes"] == kept["n_genes_by_counts"].median()
        assert row["median_pct_counts_mt"] == np.float64(kept["pct_counts_mt"].median())
        assert row["share_in_columns"] == 1
    assert rows["lost_min_genes"].sum() > 0
    assert rows["chemistry"].tolist() == [None, "10x (16 nt)", "10x (16 nt)"]
    tables = pd.read_parquet(out / "gene_report.parquet")["table"].unique().tolist()
    assert rows["gene_table"].unique().tolist() == tables
    assert (rows["format"] == "h5ad").all()
    assert (rows["slot"] == "X").all()
    assert rows["flags"].map(list).map(set).map({"few_genes", "unknown_genes"}.issubset).all()


def test_umis_outside_the_columns(tmp_path: Path, process: Process) -> None:
    counts = np.zeros((40, len(GENES)), int)
    counts[:, :4] = [1, 2, 3, 4]  # a gene outside of the list, two of it, and one called by a date
    path = tmp_path / "raw" / "SRX1.h5ad"
    path.parent.mkdir()
    var = pd.DataFrame(index=pd.Index(["MT-ND1", "TP53", "GAPDH", "1-Mar", *GENES[4:]]))
    obs = pd.DataFrame(index=[f"c{n}" for n in range(40)])
    ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs, var).write_h5ad(path)
    names = tmp_path / "list.txt"
    names.write_text("TP53\nGAPDH\n")
    process([path], genes=ListRules(path=str(names)))
    (row,) = rows_of(tmp_path / "out").to_dict("records")
    assert row["share_in_columns"] == pytest.approx(5 / 10)
    assert (row["n_features"], row["n_not_genes"]) == (100, 1)
    assert row["share_known"] == 1


def test_features_that_are_no_genes(tmp_path: Path, process: Process) -> None:
    path = write(tmp_path / "raw" / "SRX1.h5ad", counts_of(2), barcodes(2, 80))
    adata = ad.read_h5ad(path)
    adata.var["feature_types"] = ["Gene Expression"] * 40 + ["Peaks"] * 60
    adata.write_h5ad(path)
    process([path])
    (row,) = rows_of(tmp_path / "out").to_dict("records")
    assert (row["n_features"], row["n_not_genes"], row["other_features"]) == (100, 60, "Peaks (60)")
    assert row["chemistry"] == "10x Multiome (16 nt)"
    assert list(row["flags"])[:2] == ["wrong_modality", "few_genes"]


@pytest.mark.parametrize("keep", ["all", "first", "none"])
def test_near_duplicates(keep: str, tmp_path: Path, process: Process) -> None:
    counts, names = counts_of(3, 400), barcodes(3, 400)
    again = np.random.default_rng(4).binomial(counts, 0.9)
    files = {
        "SRX1": (counts, names),
        "SRX2": (counts[::-1], [f"cell{n}" for n in range(400)]),  # other names and order
        "SRX3": (again, [name.replace("-1", "-7") for name in names]),  # other counts of the same cells
        "SRX4": (counts_of(5, 400), names),  # other cells by the same names
        "SRX5": (counts_of(6, 400), barcodes(6, 400)),
        "SRX6": (counts[:70], [f"part{n}" for n in range(70)]),
    }
    paths = [write(tmp_path / "raw" / f"{name}.h5ad", *content) for name, content in files.items()]
    summary = process(paths, keep_duplicates=keep)
    rows = rows_of(tmp_path / "out")
    found = rows["near_duplicate_of"].dropna().to_dict()
    first = "SRX1 (SRX1.h5ad)"
    assert found == {"SRX2": first, "SRX3": first, "SRX6": first}
    assert rows["near_duplicate_share"].dropna().tolist() == [1, 1, 1]
    assert (rows["flags"].map(lambda flags: "near_duplicate" in flags) == rows["near_duplicate_of"].notna()).all()
    assert summary.experiments["flags"]["near_duplicate"] == 3


def test_a_raw_matrix_and_its_ambient_counts(tmp_path: Path, process: Process) -> None:
    rng = np.random.default_rng(7)
    genes = len(GENES)
    own = rng.dirichlet(np.ones(genes)) * (np.arange(genes) % 3 > 0)
    soup = rng.dirichlet(np.ones(genes))
    depth = rng.poisson(3_000 * np.exp(rng.normal(0, 0.3, 200)))[:, None]
    cells = rng.poisson(depth * (0.7 * own / own.sum() + 0.3 * soup))
    droplets = rng.poisson(20 * soup * np.exp(rng.normal(0, 1, (3_000, 1))))
    raw = write(tmp_path / "raw" / "SRX1.h5ad", np.concatenate([cells, droplets]), barcodes(7, 3_200))
    filtered = write(tmp_path / "raw" / "SRX2.h5ad", cells[:100], barcodes(8, 100))
    summary = process([raw, filtered], qc=QcRules(min_genes=10, max_pct_counts_mt=None, percent_top=[]))
    rows = rows_of(tmp_path / "out")
    assert rows["raw_droplets"].tolist() == [True, False]
    assert rows["ambient_share"].tolist() == [pytest.approx(0.3, rel=0.2), pytest.approx(np.nan, nan_ok=True)]
    assert rows["n_above_inflection"]["SRX1"] == pytest.approx(200, rel=0.1)
    assert {"raw_droplets", "high_ambient"} <= set(rows["flags"]["SRX1"])
    assert "few_cells" not in rows["flags"]["SRX1"]
    text = str(summary)
    inflection = int(rows["inflection"]["SRX1"])
    assert inflection > 500
    assert f"raw_droplets: give the filtered matrix, or raise qc.min_counts to its inflection, {inflection}" in text
    assert "all in" in text and "experiments.parquet" in text


def test_experiments_without_a_cell_have_a_row(tmp_path: Path, process: Process) -> None:
    good = write(tmp_path / "raw" / "SRX1.h5ad", counts_of(8), barcodes(8, 80))
    bad = write(tmp_path / "raw" / "SRX2.h5ad", np.eye(len(GENES), dtype=int)[:30], barcodes(9, 30))
    process([good, bad], qc=QcRules(min_genes=20, min_counts=None, max_pct_counts_mt=None, percent_top=[]))
    row = rows_of(tmp_path / "out").loc["SRX2"]
    assert (row["n_obs"], row["n_kept"], row["lost_min_genes"]) == (30, 0, 30)
    assert row[["median_counts", "median_genes", "median_pct_counts_mt", "share_in_columns"]].isna().all()
    assert row["flags"][0] == "no_cells"


def test_the_same_bytes_whoever_does_the_work(tmp_path: Path, process: Process) -> None:
    simulate_files(tmp_path / "raw", n_files=3, cells_per_file=60, n_genes=300, seed=1)
    paths = sorted((tmp_path / "raw").glob("*.h5ad"))
    process(paths, tmp_path / "serial", qc=QcRules(min_genes=20))
    process(paths[::-1], tmp_path / "local", qc=QcRules(min_genes=20), engine=LocalEngine(2))
    assert (tmp_path / "serial" / "experiments.parquet").read_bytes() == (
        tmp_path / "local" / "experiments.parquet"
    ).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "other bytes"])
def test_a_damaged_table_is_found_and_made_again(damage: str, tmp_path: Path, process: Process) -> None:
    path = write(tmp_path / "raw" / "SRX1.h5ad", counts_of(9), barcodes(9, 80))
    process([path])
    table = tmp_path / "out" / "experiments.parquet"
    before = table.read_bytes()
    table.unlink() if damage == "missing" else table.write_bytes(before[:-1] + b"x")
    assert record_faults(open_index(tmp_path / "out"))[table.name] is not None
    summary = process([path], resume=True)
    assert summary.rebuilt == ["experiments.parquet"]
    assert table.read_bytes() == before
    assert set(record_faults(open_index(tmp_path / "out")).values()) == {None}


def test_the_summary_does_not_grow_with_experiments(tmp_path: Path, process: Process) -> None:
    accessions = [f"SRX{n:02d}" for n in np.arange(80) // 2]
    path = write(tmp_path / "raw" / "all.h5ad", counts_of(10), barcodes(10, 80), srx_accession=accessions)
    process([path])
    account = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["experiments"]
    assert (account["n"], account["n_flagged"], len(account["worst"])) == (40, 40, 3)
    assert len(rows_of(tmp_path / "out")) == 40


def test_an_experiment_of_two_files_is_counted_once(tmp_path: Path, process: Process) -> None:
    names = ["SRX1_a.h5ad", "SRX1_b.h5ad", "SRX2.h5ad"]
    paths = [write(tmp_path / "raw" / name, counts_of(20 + n), barcodes(20 + n, 80)) for n, name in enumerate(names)]
    chosen = FileInput(paths=[str(path) for path in paths], merge_same_accession=True)
    account = process([], input=chosen).experiments
    assert (account["n"], account["n_flagged"], account["flags"]["few_genes"]) == (2, 2, 2)
    index = open_index(tmp_path / "out")
    page = qc_report(index, qc_facts(index), REMEDIES)
    assert "240 cells of 2 experiments in" in page and "2 of 2 are flagged" in page
    assert list(table_of(page, "experiments"))[:2] == ["experiment", "file"]
    assert sorted(table_of(page, "experiments")["file"]) == names
    assert sum(of_experiments(index)["species"].values()) == 2


def corpus(n: int = 40) -> pd.DataFrame:
    """Experiments without any flag."""
    spread = np.arange(n) % 7
    table = {
        "srx_accession": [f"SRX{number}" for number in range(n)],
        "source_file": "f.h5ad",
        "n_obs": 1_000, "n_kept": 900, "lost_zero_counts": 0, "n_features": 30_000, "n_not_genes": 10,
        "raw_droplets": False, "inflection": np.nan,
        "share_known": 0.99, "near_duplicate_of": None, "ambient_share": np.nan,
        "counts_spread": 0.3,
        "doublet_rate": np.nan, "median_counts": 3_000.0 + 100 * spread, "median_genes": 1_200.0 + 30 * spread,
        "median_pct_counts_mt": 4 + spread / 2, "share_in_columns": 0.99,
    }  # fmt: skip
    return pd.DataFrame(table, index=range(n))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, []),
        ({"n_kept": 0, "median_counts": None, "median_genes": None, "median_pct_counts_mt": None}, ["no_cells"]),
        ({"n_kept": 50}, ["few_cells"]),
        ({"n_kept": 50, "lost_zero_counts": 900}, []),
        ({"n_kept": 50, "raw_droplets": True}, ["raw_droplets"]),
        ({"n_features": 900}, ["few_genes"]),
        ({"counts_spread": 0.001}, ["not_raw"]),
        ({"median_counts": 1_260.0, "median_genes": 1_260.0}, ["not_raw"]),
        ({"counts_spread": 0.0, "median_counts": 1.0, "median_genes": 1.0}, ["outlier"]),
        ({"n_features": 150_000, "n_not_genes": 115_000}, []),
        ({"n_features": 5_000, "n_not_genes": 3_000}, ["wrong_modality"]),
        ({"share_known": 0.5}, ["unknown_genes"]),
        ({"median_pct_counts_mt": None}, ["no_mt_genes"]),
        ({"near_duplicate_of": "SRX1 (f.h5ad)"}, ["near_duplicate"]),
        ({"ambient_share": 0.3}, ["high_ambient"]),
        ({"doublet_rate": 0.3}, ["many_doublets"]),
        ({"median_counts": 90_000.0}, ["outlier"]),
        ({"median_pct_counts_mt": 40.0}, ["outlier"]),
        ({"share_in_columns": 0.6}, ["outlier"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else None,
)
def test_flags(changes: dict[str, Any], flags: list[str]) -> None:
    table = corpus()
    for name, value in changes.items():
        table.loc[5, name] = value
    found = flags_of(add_outliers(table))
    assert found.pop(5) == flags
    assert set(map(tuple, found)) == {()}


def test_few_experiments_have_no_outliers() -> None:
    table = corpus(9)
    table.loc[5, "median_counts"] = 1e6
    assert add_outliers(table)["z_counts"].isna().all()


def test_the_worst_are_named_first() -> None:
    table = corpus(5)
    account = account_of(table, [["outlier"], ["no_cells"], [], ["few_genes", "outlier"], ["few_cells"]], 500)
    assert [one["srx_accession"] for one in account["worst"]] == ["SRX3", "SRX1", "SRX4"]
    assert (account["n"], account["n_flagged"]) == (5, 4)
    assert list(account["flags"].items()) == [("no_cells", 1), ("few_genes", 1), ("few_cells", 1), ("outlier", 2)]


@pytest.mark.parametrize(
    ("inflection", "min_counts", "raises"),
    [(489, 500, False), (500, 500, False), (501, 500, True), (501, None, True), (np.nan, 500, False)],
)
def test_a_limit_is_only_raised(inflection: float, min_counts: int | None, raises: bool) -> None:
    remedy = remedy_of("raw_droplets", inflection, min_counts)
    assert ("raise qc.min_counts" in remedy) == raises
    assert np.isnan(inflection) or f"{inflection:.0f}" in remedy


def test_every_flag_is_documented_with_its_remedy() -> None:
    text = (Path(__file__).parents[3] / "docs" / "inputs.md").read_text()
    for name, remedy in REMEDIES.items():
        assert f"| `{name}` |" in text
        assert remedy in text
