"""Every cell of the inputs is found again: in a chunk, or with the rule that dropped it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline

from scvae_data import open_index
from scvae_data.commands.why import METRICS, reason, why
from scvae_data.errors import SelectionError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.write import dropped
from scvae_data.store import Chunking

GENES = ["MT-ND1", *(f"g{n}" for n in range(59))]
RULES = QcRules(min_genes=2, min_counts=3, max_pct_counts_mt=20.0, percent_top=[], nmads={"total_counts": 5.0})


def run(paths: list[Path], out: Path, workers: int = 1, **chosen: Any) -> Summary:
    stages: dict[str, Any] = {
        "input": FileInput(paths=[str(path) for path in paths], merge_same_accession=True),
        "qc": RULES,
        "genes": GeneRules(min_cells=2),
        "control": ControlSubset(column="guide", values=["ctrl"]),
        "max_failed_fraction": 1.0,
        "keep_duplicates": "first",
    }
    engine = SerialEngine() if workers == 1 else LocalEngine(workers)
    return run_pipeline(paths, out, engine=engine, **(stages | chosen))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One file with a cell for each rule, a second of the same accession, and one that is no file of cells."""
    counts = np.zeros((12, 60), int)
    counts[:6, 1:] = np.arange(6)[:, None] + 10  # ordinary cells 0 to 5
    counts[6, 1:] = 12  # a copy of cell 2
    counts[8, 1] = 50  # one gene
    counts[9, 1:3] = 1  # two counts
    counts[10, :2] = [30, 70]  # 30 % mitochondrial
    counts[11, 1:] = 1000  # far more than the others; cell 7 has nothing
    folder = tmp_path_factory.mktemp("raw")
    guides = ["ctrl"] * 12
    guides[5] = "TP53"
    write(folder / "SRX1.h5ad", counts, guides)
    lonely = np.zeros((2, 60), int)
    lonely[0, 1:] = 5
    lonely[1, 0] = 0
    write(folder / "b" / "SRX1.h5ad", lonely, ["ctrl"] * 2)
    (folder / "SRX7.h5ad").write_text("cell,gene\n")
    return [folder / "SRX1.h5ad", folder / "b" / "SRX1.h5ad", folder / "SRX7.h5ad"]


def write(path: Path, counts: np.ndarray, guides: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    obs = pd.DataFrame({"guide": guides}, index=[f"CELL{n:02d}-1" for n in range(len(counts))])
    x = sp.csr_matrix(counts.astype(np.float32))
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)


@pytest.fixture(scope="module")
def out(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "d"
    run(raw, target)
    return target


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        (5, "dropped by not_control: it is not a control cell (subset_to_control_cells=true); row 5 of SRX1.h5ad"),
        (6, "dropped by keep_duplicates: it has the same counts as SRX1.h5ad row 2; row 6 of SRX1.h5ad"),
        (7, "dropped by zero_counts: it has no count at all; row 7 of SRX1.h5ad"),
        (8, "dropped by min_genes: n_genes_by_counts is 1, below 2; row 8 of SRX1.h5ad"),
        (9, "dropped by min_counts: total_counts is 2, below 3; row 9 of SRX1.h5ad"),
        (10, "dropped by max_pct_counts_mt: pct_counts_mt is 30, above 20; row 10 of SRX1.h5ad"),
    ],
)
def test_dropped_cells(cell: int, answer: str, out: Path) -> None:
    assert answer in why(out, "SRX1", f"CELL{cell:02d}-1").splitlines()


@pytest.mark.parametrize(
    ("rule", "value", "threshold", "words"),
    [
        ("other_species", 1.5, 10.0, "pct_counts_species is 1.5, below 10"),
        ("species_doublet", 52.0, 90.0, "pct_counts_species is 52, below 90"),
        ("max_genes", 7000.0, 6000.0, "n_genes_by_counts is 7000, above 6000"),
        ("max_pct_counts_hb", 30.0, 5.0, "pct_counts_hb is 30, above 5"),
        ("mad_log1p_total_counts", 3.0, 4.0, "log1p_total_counts is 3, below 4 (the outlier bound of its experiment)"),
        ("least_liver", 1.0, 2.0, "what it limits is 1, below 2"),
    ],
)
def test_a_rule_is_told_by_what_it_looks_at(rule: str, value: float, threshold: float, words: str) -> None:
    assert reason({"rule": rule, "value": value, "threshold": threshold}) == f"dropped by {rule}: {words}"


def test_the_rules_of_species_are_known() -> None:
    rules = QcRules(species="human", min_pct_counts_species=90.0).species_rules
    assert {rule.name for rule in rules} <= METRICS.keys()


def test_outliers_have_value_and_bound(out: Path) -> None:
    bounds = json.loads((out / "chunk_summary.json").read_text())["outlier_bounds"]
    upper = bounds["upper"][0]
    assert why(out, "SRX1", "CELL11-1") == (
        f"dropped by mad_total_counts: total_counts is 59000, above {upper:.6g} (the outlier bound of its experiment); "
        "row 11 of SRX1.h5ad"
    )


def test_kept_cells_are_where_it_says(out: Path, raw: list[Path]) -> None:
    index = open_index(out)
    for cell in (0, 1, 2, 3, 4):
        words = why(out, "SRX1", f"CELL{cell:02d}-1").splitlines()[0].split()
        chunk, row = words[4], int(words[2])
        obs = ad.read_h5ad(out / chunk).obs.iloc[row]
        assert (obs["source_row"], obs["source_file"]) == (cell, "SRX1.h5ad")
        assert f"(cell {index.obs(['source_row']).index.get_loc(obs.name)} of the directory)" in " ".join(words)


def test_files_that_share_an_accession_each_have_their_line(out: Path) -> None:
    lines = why(out, "SRX1", "CELL00-1").splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("row 0 of SRX1.h5ad")
    assert lines[1].endswith("row 0 of b/SRX1.h5ad")
    assert why(out, "SRX1", "SRX1:CELL00-1").splitlines() == lines


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("SRX1", ["0 of SRX1.h5ad", "0 of b/SRX1.h5ad"]),
        ("SRX1.h5ad", ["0 of SRX1.h5ad", "0 of b/SRX1.h5ad"]),
        ("b/SRX1", ["0 of b/SRX1.h5ad"]),
        ("./b/SRX1.h5ad", ["0 of b/SRX1.h5ad"]),
        ("/anywhere/b/SRX1.h5ad", ["0 of b/SRX1.h5ad"]),
        ("/anywhere/SRX1.h5ad", ["0 of SRX1.h5ad"]),
    ],
)
def test_a_file_stands_for_its_experiments(name: str, rows: list[str], out: Path) -> None:
    for barcode in ("CELL00-1", "SRX1:CELL00-1"):
        assert [line.rpartition("; row ")[2] for line in why(out, name, barcode).splitlines()] == rows


def test_a_file_of_another_name_than_its_experiment_and_one_that_lost_all_its_cells(tmp_path: Path) -> None:
    counts = np.zeros((3, 60), int)
    counts[:2, 1:] = np.arange(2)[:, None] + 10
    write(tmp_path / "Bob's liver data.h5ad", counts, ["ctrl"] * 3)
    write(tmp_path / "liver.h5", counts[1:], ["x"] * 2)
    run([tmp_path / "Bob's liver data.h5ad", tmp_path / "liver.h5"], tmp_path / "d", qc=replace(RULES, min_genes=None))
    line = why(tmp_path / "d", "Bob's_liver", "CELL02-1")
    assert line == "dropped by zero_counts: it has no count at all; row 2 of Bob's liver data.h5ad"
    for name in ("Bob's liver data", "Bob's liver data.h5ad", str(tmp_path / "Bob's liver data.h5ad")):
        assert why(tmp_path / "d", name, "Bob's_liver:CELL02-1") == line
    for name in ("liver", "liver.h5"):
        assert "not_control" in why(tmp_path / "d", name, "CELL00-1")
    with pytest.raises(SelectionError, match=r"did you mean Bob's_liver, Bob's liver data\.h5ad\?"):
        why(tmp_path / "d", "Bobs liver data.h5ad", "CELL02-1")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "SRX1",
            [
                "SRX1 in SRX1.h5ad: 5 of 12 cells kept; dropped: 1 duplicate, 1 mad_total_counts, "
                "1 max_pct_counts_mt, 1 min_counts, 1 min_genes, 1 not_control, 1 zero_counts",
                "SRX1 in b/SRX1.h5ad: 1 of 2 cells kept; dropped: 1 zero_counts",
            ],
        ),
        ("b/SRX1.h5ad", ["b/SRX1.h5ad: 1 of 2 cells kept; dropped: 1 zero_counts"]),
    ],
)
def test_an_experiment_is_told_by_the_cells_of_its_files(name: str, lines: list[str], out: Path) -> None:
    assert why(out, name).splitlines() == lines


def test_an_experiment_of_which_no_cell_was_read(out: Path) -> None:
    for name in ("SRX7", "SRX7.h5ad", "/anywhere/SRX7.h5ad"):
        assert re.fullmatch(rf"no cell of {name} was read: /.*/SRX7\.h5ad: a text file.*", why(out, name))
    for name in ("SRX", "RX7", "SRX77"):  # a part of the name is another experiment's
        with pytest.raises(SelectionError, match=f"experiment {name} not in .*, nor is there a file of that name"):
            why(out, name)


@pytest.mark.parametrize(
    ("accession", "barcode", "message"),
    [
        ("SRX1", "CELL05", "SRX1 has no cell CELL05, kept or dropped; did you mean CELL05-1?"),
        ("SRX1", "CELL5X-1", "did you mean CELL"),
        ("SRX11", "CELL05-1", r"experiment SRX11 not in .*, nor is there a file of that name; did you mean SRX1, "),
        ("c/SRX2.h5ad", "CELL05-1", r"did you mean SRX1, SRX1\.h5ad\?"),
        (
            "b/SRX1.h5ad",
            "CELL05-1",
            r"b/SRX1\.h5ad has no cell CELL05-1, kept or dropped; did you mean CELL01-1, CELL00-1",
        ),
        ("SRX7", "CELL05-1", "no cell of SRX7 was read: .*SRX7.h5ad: a text file"),
    ],
)
def test_cells_that_are_not_there(accession: str, barcode: str, message: str, out: Path) -> None:
    with pytest.raises(SelectionError, match=message):
        why(out, accession, barcode)


def test_the_table_holds_every_lost_cell_once(out: Path, raw: list[Path], tmp_path: Path) -> None:
    table = pd.read_parquet(out / "dropped_cells.parquet")
    summary = json.loads((out / "chunk_summary.json").read_text())
    assert table[["source_file", "source_row"]].apply(tuple, axis=1).is_monotonic_increasing
    assert not table.duplicated(["source_file", "source_row"]).any()
    assert len(table) + summary["n_obs"] == 14
    lost = {rule: sum(counts) for rule, counts in summary["attrition"]["lost"].items()}
    assert table["rule"].value_counts().to_dict() == {rule: n for rule, n in lost.items() if n}
    content = (out / "dropped_cells.parquet").read_bytes()
    facts = {"file": "dropped_cells.parquet", "n_obs": len(table), "bytes": len(content)}
    assert summary["dropped_cells"] == facts | {"sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("variant", ["input order", "workers", "small blocks"])
def test_the_table_is_the_same_bytes_from_any_run(
    variant: str, out: Path, raw: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variant == "small blocks":
        monkeypatch.setattr("scvae_data.processing.sort.sorted_run.PIECE_BYTES", 3)
    run(raw[::-1] if variant == "input order" else raw, tmp_path / "d", workers=2 if variant == "workers" else 1)
    name = "dropped_cells.parquet"
    assert (tmp_path / "d" / name).read_bytes() == (out / name).read_bytes()


def test_groups_do_not_depend_on_how_cells_came(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr(dropped, "ROW_GROUP", 4)
    spans = ((0, 3), (3, 3), (3, 13), (13, 14))
    tables = [pa.table({"row": pa.array(range(start, stop), pa.int64())}) for start, stop in spans]
    groups = [group.column("row").to_pylist() for group in dropped.regrouped(iter(tables))]
    assert groups == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13]]


def test_nothing_dropped_is_an_empty_table(raw: list[Path], tmp_path: Path) -> None:
    none = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=None)
    one = tmp_path / "SRX1.h5ad"
    write(one, np.full((2, 60), 3) + np.arange(2)[:, None], ["ctrl"] * 2)
    run([one], tmp_path / "d", qc=none, genes=GeneRules(min_cells=None))
    assert pd.read_parquet(tmp_path / "d" / "dropped_cells.parquet").empty
    assert why(tmp_path / "d", "SRX1", "CELL01-1").startswith("kept: row ")


def test_a_slot_that_holds_no_counts_leaves_no_dropped_cell_behind(tmp_path: Path) -> None:
    good = np.full((300, 200), 3, np.float32)
    bad = good.copy()
    bad[0] = 0  # would be dropped
    bad[299, 7] = 0.5  # beyond what the survey looks at
    good[:, 0] += np.arange(300)
    adata = ad.AnnData(good, obs=pd.DataFrame(index=[f"c{n}" for n in range(300)]), layers={"counts": bad})
    adata.var_names = [f"g{n}" for n in range(200)]
    adata.write_h5ad(tmp_path / "SRX1.h5ad")
    plain = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=None, percent_top=[])
    settings = {"qc": plain, "control": None, "chunking": Chunking(chunk_size=300)}
    summary = run([tmp_path / "SRX1.h5ad"], tmp_path / "d", **settings)
    assert summary.n_obs == 300
    assert pd.read_parquet(tmp_path / "d" / "dropped_cells.parquet").empty
