"""Files with the names that people's programs leave, through the whole pipeline: which gene each row was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
import scipy.sparse as sp
from tests.support.pipeline import NO_QC

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.finished.report import keep_report
from scvae_data.processing.finished.sources import compare_rows, find_sources
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import open_index

SYMBOLS = ["MT-ND1", "MT-CO1", "ACTB", "GAPDH", "RPL3", "TP53", "CD3D", "HLA-A"]
IDS = [f"ENSG00000{n}" for n in (198888, 198804, 75624, 111640, 100316, 141510, 167286, 206503)]
IDS[2] = "ENSG00000075624"
# The first of two cells is dying: nine of ten counts are mitochondrial.
COUNTS = np.array([[900, 900, 30, 31, 32, 33, 34, 35], [1, 2, 30, 31, 32, 33, 34, 35]])
MT_RULE = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=20)
EVERY = GeneRules(min_cells=None)


def write(path: Path, counts: np.ndarray, var: pd.DataFrame) -> Path:
    obs = pd.DataFrame(index=pd.Index([f"cell{n}" for n in range(len(counts))]))
    ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var).write_h5ad(path)
    return path


def named(names: Sequence[str], **columns: Sequence[Any]) -> pd.DataFrame:
    return pd.DataFrame(dict(columns), index=pd.Index(list(names), dtype=object))


def stored(directory: Path) -> pd.DataFrame:
    """Counts of a directory by cell and gene."""
    adata = ad.concat([ad.read_h5ad(path) for path in sorted(directory.glob("chunk_*.h5"))])
    return pd.DataFrame(adata.X.toarray(), adata.obs_names, adata.var_names)


def faults(directory: Path, sources: Path) -> list[tuple[int, str]]:
    """What the rows of a directory differ in from their inputs."""
    index = open_index(directory)
    return list(compare_rows(index, find_sources(index, [sources])))


def test_numbered_genes_are_called_by_another_column(tmp_path: Path, process: Callable[..., Any]) -> None:
    numbers = [str(n) for n in range(8)]
    columns = {"feature_name": SYMBOLS}, {"Symbols.of.genes": SYMBOLS}, {"features": SYMBOLS, "kind": ["Gene"] * 8}
    for place, column in enumerate(columns):
        order = np.roll(np.arange(8), place)
        var = named(numbers, **{name: np.array(values)[order] for name, values in column.items()})
        write(tmp_path / f"SRX{place}.h5ad", COUNTS[1:, order], var)
    process(sorted(tmp_path.glob("*.h5ad")), genes=EVERY)
    counts = stored(tmp_path / "out")
    assert sorted(counts) == sorted(SYMBOLS)
    assert (counts[SYMBOLS] == COUNTS[1]).all().all()
    assert not faults(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_numbered_genes_without_names_are_refused(first: int, tmp_path: Path, process: Callable[..., Any]) -> None:
    var = named([str(n) for n in range(first, first + 8)], kind=["Gene"] * 8, length=range(8))
    path = write(tmp_path / "SRX1.h5ad", COUNTS, var)
    with pytest.raises(ScvaeDataError, match=rf"SRX1\.h5ad: the genes of X are called by numbers alone \({first}, "):
        process([path])


@pytest.mark.parametrize("name", ["ENST{:011d}.2", "ENSMUST{:011d}", "NM_{:06d}", "XR_{:09d}.1"])
def test_transcripts_are_no_genes(name: str, tmp_path: Path, process: Callable[..., Any]) -> None:
    names = [name.format(n) for n in range(8)]
    path = write(tmp_path / "SRX1.h5ad", COUNTS, named(names))
    told = rf"SRX1\.h5ad: the rows of X are transcripts \({names[0]}, .*, not genes; add their counts up by gene"
    with pytest.raises(ScvaeDataError, match=told):
        process([path])
    process([write(path, COUNTS, named(names, gene_ids=IDS))], genes=EVERY)
    assert sorted(stored(tmp_path / "out")) == sorted(IDS)


def test_rows_of_several_genes_are_told(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    affymetrix = ["MT-ND1 /// MT-ND1", "MT-CO1", "ACTB///GAPDH", *SYMBOLS[3:]]
    write(tmp_path / "SRX1.h5ad", COUNTS[1:], named(affymetrix))
    write(tmp_path / "SRX2.h5ad", COUNTS[1:], named(SYMBOLS, gene_ids=IDS))
    process(sorted(tmp_path.glob("*.h5ad")), genes=EVERY)
    assert "SRX1.h5ad: 1 gene (30 UMIs, 15.2 %) may have another column too" in caplog.text
    counts = stored(tmp_path / "out")
    assert sorted(counts) == sorted([*IDS, "ACTB///GAPDH"])
    assert counts[[IDS[0], "ACTB///GAPDH"]].to_numpy().tolist() in ([[1, 0], [1, 30]], [[1, 30], [1, 0]])


def test_entrez_ids_are_the_genes_they_stand_for(tmp_path: Path, process: Callable[..., Any]) -> None:
    entrez = ["4535", "4512", "60", "2597", "6122", "7157", "915", "3105"]
    write(tmp_path / "SRX1.h5ad", COUNTS, named(entrez))
    write(tmp_path / "SRX2.h5ad", COUNTS, named(IDS))
    process(sorted(tmp_path.glob("*.h5ad")), genes=EVERY)
    counts = stored(tmp_path / "out")
    assert sorted(counts) == sorted(IDS)
    assert len(counts) == 4
    assert not faults(tmp_path / "out", tmp_path)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_rows_that_name_no_gene_are_left_out_and_told(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    counts = np.hstack([COUNTS[1:], [[5, 6, 7, 8]]])
    path = write(tmp_path / "SRX1.h5ad", counts, named([*SYMBOLS, "1-Mar", "1-Mar", "nan", "ACTB2"]))
    process([path], genes=EVERY)
    assert (
        "SRX1.h5ad: 3 rows of the gene table are left out (18 UMIs, 8.0 %), whose names are dates made of gene "
        "symbols by a spreadsheet or no names: 1-Mar, nan" in caplog.text
    )
    found = stored(tmp_path / "out")
    assert dict(found.iloc[0]) == dict(zip([*SYMBOLS, "ACTB2"], [*COUNTS[1], 8], strict=True))
    obs = pd.read_parquet(tmp_path / "out" / "obs.parquet")
    assert obs["total_counts"].tolist() == [COUNTS[1].sum() + 8]
    report = pd.read_parquet(tmp_path / "out" / "gene_report.parquet")
    assert report["how"].tolist()[8:] == ["a date", "a date", "no name", "symbol"]
    assert sorted(report["how"].cat.categories) == sorted(report["how"].unique())
    assert report["counts"].tolist() == [*COUNTS[1], 5, 6, 7, 8]
    assert report["gene"].isna().tolist() == [False] * 8 + [True] * 3 + [False]
    assert not faults(tmp_path / "out", tmp_path)


OLD = f"DEPRECATED_{IDS[0]}"


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ([*SYMBOLS, OLD], {"gene_ids": [*IDS, OLD]}),
        ([*SYMBOLS, f"{SYMBOLS[0]}-1"], {"gene_ids": [*IDS, OLD]}),
        ([f"hg38_{name}" for name in (*SYMBOLS, OLD)], {"gene_ids": [f"hg38_{one}" for one in (*IDS, OLD)]}),
        ([*SYMBOLS, OLD.replace("_", "-")], {}),
        ([*(f"{one}|{symbol}|0a1b2c3" for one, symbol in zip(IDS, SYMBOLS, strict=True)), f"{OLD}|MT-ND1|9f8e7d6"], {}),
    ],
    ids=["id and symbol", "id", "genome", "Seurat", "probes"],
)
def test_deprecated_probes_are_left_out_and_told(
    names: list[str],
    columns: dict[str, list[str]],
    tmp_path: Path,
    process: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = np.hstack([COUNTS[1:], [[5]]])
    process([write(tmp_path / "SRX1.h5ad", counts, named(names, **columns))], genes=EVERY)
    assert (
        "SRX1.h5ad: 1 row of the gene table is left out (5 UMIs, 2.5 %), whose names are those of probes that 10x "
        f"leaves out of analyses: {names[-1]}\n" in caplog.text
    )
    assert sorted(stored(tmp_path / "out").iloc[0]) == sorted(COUNTS[1])
    assert not faults(tmp_path / "out", tmp_path)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_rows_of_one_symbol_are_never_added_up(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    counts = np.array([[1, 20, 300], [2, 30, 400]])
    write(tmp_path / "SRX1.h5ad", counts, named(["ACTB", "QQ", "QQ"]))
    summary = process([tmp_path / "SRX1.h5ad"], genes=EVERY)
    assert "apart     2 genes (99.6 % of UMIs) may have another column too: QQ-1, QQ" in str(summary)
    account = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["genes_apart"]
    assert account == {"n_genes": 2, "umis": 750, "share": 750 / 753, "names": ["QQ-1", "QQ"]}
    assert stored(tmp_path / "out")[["ACTB", "QQ", "QQ-1"]].to_numpy().tolist() in (
        counts.tolist(), counts[::-1].tolist(),
    )  # fmt: skip
    assert "SRX1.h5ad: 2 genes (750 UMIs, 99.6 %) may have another column too" in caplog.text
    assert not faults(tmp_path / "out", tmp_path)


WRITTEN: Mapping[str, Callable[[str, str], str]] = {
    "blank": lambda gene_id, symbol: f" {symbol}",
    "bytes": lambda gene_id, symbol: f"b'{symbol}'",
    "dots": lambda gene_id, symbol: symbol.replace("-", "."),
    "dash prefix": lambda gene_id, symbol: f"GRCh38-{symbol}",
    "new prefix": lambda gene_id, symbol: f"T2T1_{symbol}",
    "id and symbol": lambda gene_id, symbol: f"{gene_id}_{symbol}",
    "symbol and id": lambda gene_id, symbol: f"{symbol}_{gene_id}",
    "lower": lambda gene_id, symbol: symbol.lower(),
    "version": lambda gene_id, symbol: f"{gene_id}.12",
    "prefixed id": lambda gene_id, symbol: f"GRCh38_{gene_id}",
}


@pytest.mark.parametrize("reference", ["builtin", None])
@pytest.mark.parametrize("how", WRITTEN)
def test_the_mitochondrial_rule_applies_however_names_are_written(
    how: str, reference: str | None, tmp_path: Path, process: Callable[..., Any]
) -> None:
    names = [WRITTEN[how](*pair) for pair in zip(IDS, SYMBOLS, strict=True)]
    path = write(tmp_path / "SRX1.h5ad", COUNTS, named(names))
    summary = process([path], qc=MT_RULE, genes=GeneRules(min_cells=None, reference=reference))
    assert summary.lost["max_pct_counts_mt"] == 1
    assert stored(tmp_path / "out").shape == (1, 8)
    assert not faults(tmp_path / "out", tmp_path)


def test_a_rule_that_cannot_be_applied_is_told_and_may_be_an_error(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "SRX1.h5ad", COUNTS, named([f"mito{n}" for n in range(8)]))
    summary = process([path], qc=MT_RULE)
    said = (
        "qc.max_pct_counts_mt could not be applied to SRX1.h5ad: no mitochondrial gene was recognised among names "
        "such as 'mito0', 'mito1'"
    )
    assert said in caplog.text
    assert "no rule   could not be applied: qc.max_pct_counts_mt to 1 file" in str(summary)
    content = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())
    assert content["unapplied_rules"] == {"qc.max_pct_counts_mt": ["SRX1.h5ad"]}
    strict = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=20, require_rules=True)
    with pytest.raises(ConfigError, match=r"could not be applied to SRX1\.h5ad"):
        process([path], tmp_path / "strict", qc=strict)
    caplog.clear()
    process([path], tmp_path / "none", qc=NO_QC)
    assert "applied" not in caplog.text


def test_a_mapping_as_a_spreadsheet_saves_it(tmp_path: Path, process: Callable[..., Any]) -> None:
    mapping = tmp_path / "map.csv"
    mapping.write_bytes("\ufeffSymbol; ID\r\nQ1;ENSG90000000001.3\r\nQ2 ; ENSG90000000002\r\n".encode())
    path = write(tmp_path / "SRX1.h5ad", COUNTS[1:, :3], named(["Q1", "Q2", "Q3"]))
    process([path], genes=GeneRules(min_cells=None, mapping=str(mapping)))
    assert list(stored(tmp_path / "out")) == ["ENSG90000000001", "ENSG90000000002", "Q3"]


def test_another_reference_is_part_of_what_a_run_makes(tmp_path: Path, process: Callable[..., Any]) -> None:
    path = write(tmp_path / "SRX1.h5ad", COUNTS[1:], named(SYMBOLS))
    for name, reference in (("builtin", "builtin"), ("none", None)):
        process([path], tmp_path / name, genes=GeneRules(min_cells=None, reference=reference))
    ids = [open_index(tmp_path / name).processing_id for name in ("builtin", "none")]
    assert ids[0] != ids[1]
    var = ad.read_h5ad(tmp_path / "none" / "chunk_0000.h5").var
    assert set(var["gene_id"]) == {""}
    with pytest.raises(ConfigError, match=r"genes\.reference: nowhere\.parquet does not exist"):
        process([path], tmp_path / "x", genes=GeneRules(reference="nowhere.parquet"))


def test_antibodies_beside_genes_are_told(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    names = [*SYMBOLS, "CD56", "CD45RA", "CD3"]
    summary = process([write(tmp_path / "SRX1.h5ad", np.arange(1, 12).reshape(1, 11), named(names))], genes=EVERY)
    told = [message for message in caplog.messages if "antibodies" in message]
    assert len(told) == 1
    assert told[0].startswith(
        "SRX1.h5ad: 3 rows of the gene table (30 UMIs, 45.5 %) are called as antibodies are, and count as genes of "
        "their own: CD56, CD45RA, CD3; a column feature_types of var, or of features.tsv, drops those that are none; "
    )
    assert summary.genes_apart["n_genes"] == 3


CUT = [gene_id[:12] for gene_id in IDS]


def test_ids_that_are_cut_short_are_none(tmp_path: Path, process: Callable[..., Any]) -> None:
    path = tmp_path / "SRX1.h5"
    with h5py.File(path, "w") as file:
        genes = file.create_group("matrix/features")
        genes["id"], genes["name"] = np.array(CUT, "S"), np.array(SYMBOLS, "S")
        genes["feature_type"] = np.array(["Gene Expression"] * 8, "S")
        rows = sp.csr_matrix(COUNTS)
        for name in ("data", "indices", "indptr"):
            file["matrix"][name] = getattr(rows, name).astype(np.int64)
        file["matrix/shape"], file["matrix/barcodes"] = [8, 2], np.array(["AAAC", "AAAG"], "S")
    process([path], genes=EVERY)
    counts = stored(tmp_path / "out")
    assert sorted(counts) == sorted(SYMBOLS)
    assert (counts[SYMBOLS].sort_index() == COUNTS).all().all()
    with pytest.raises(ScvaeDataError, match=r"SRX2\.h5ad: the ids of the genes of X are cut short \(ENSG00000075, "):
        process([write(tmp_path / "SRX2.h5ad", COUNTS[:, 2:], named(CUT[2:]))], tmp_path / "other")


def test_rows_of_one_id_that_are_called_as_other_genes_are_not_added_up(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    ids = [IDS[0]] * 3 + IDS[3:]  # two symbols of the first gene, and ACTB, which is another
    symbols = ["MT-ND1", "MTND1", *SYMBOLS[2:]]
    process([write(tmp_path / "SRX1.h5ad", COUNTS[1:], named(symbols, gene_ids=ids))], genes=EVERY)
    assert any("1 gene (30 UMIs" in text and "may have another column too" in text for text in caplog.messages)
    counts = stored(tmp_path / "out")
    assert counts[IDS[0]].tolist() == [1 + 2]
    assert counts["ACTB"].tolist() == [30]


def crossed(n_moved: int, n: int = 100) -> pd.DataFrame:
    """Human genes, the ids of the first of which are moved by a row."""
    genes = load_reference("builtin").table
    human = genes.filter(pc.and_(pc.equal(genes["species"], "human"), pc.not_equal(genes["symbol"], ""))).to_pandas()
    some = human.drop_duplicates("symbol", keep=False).iloc[::100][:n]
    ids = some["id"].tolist()
    return named(some["symbol"], gene_ids=[*ids[n_moved - 1 : n_moved], *ids[: max(n_moved - 1, 0)], *ids[n_moved:]])


@pytest.mark.parametrize("n_moved", [50, 100])
def test_a_file_of_ids_beside_the_symbols_of_other_genes_fails(
    n_moved: int, tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    counts, genes = np.arange(1, 101).reshape(1, 100), crossed(0)
    moved = write(tmp_path / "SRX2.h5ad", counts, crossed(n_moved))
    told = rf"SRX2\.h5ad: {n_moved} % of the genes have the id of one gene and the symbol of another, e\.g\. ENSG"
    with pytest.raises(ScvaeDataError, match=f"^{tmp_path}/{told}"):
        process([moved])
    symbols = write(tmp_path / "SRX1.h5ad", counts, named(genes.index))
    files = [symbols, moved, write(tmp_path / "SRX3.h5ad", 2 * counts, genes)]
    with pytest.raises(ScvaeDataError, match=f"1 of 3 files failed.*{told}.*raise max_failed_fraction"):
        process(files, genes=EVERY, resume=True)
    summary = process(files, genes=EVERY, resume=True, max_failed_fraction=0.4)
    assert "1 of 3 files failed:\n  SRX2.h5ad: crossed_genes: " in caplog.text
    assert [file.source_file for file in summary.failed] == ["SRX2.h5ad"]
    found = stored(tmp_path / "out")
    assert set(found) == set(genes["gene_ids"])  # the other files' own pairs, and nothing of the file's
    assert sorted(found[genes["gene_ids"]].to_numpy().tolist()) == sorted(counts.tolist() + (2 * counts).tolist())
    again = process(files, genes=EVERY, resume=True, max_failed_fraction=0.4)
    assert again.left_alone


def test_some_ids_beside_the_symbols_of_other_genes_are_told(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    counts = np.arange(1, 101).reshape(1, 100)
    right = write(tmp_path / "SRX1.h5ad", counts, crossed(0))
    few = write(tmp_path / "SRX2.h5ad", counts, crossed(4))
    many = write(tmp_path / "SRX3.h5ad", counts, var := crossed(30))
    summary = process([right, few, many], genes=EVERY)
    (told,) = (text for text in caplog.messages if "the symbol of another" in text)
    symbols, ids = var.index, var["gene_ids"]
    assert told.startswith(
        "SRX3.h5ad: at least 30 rows of 100 of the gene table (465 UMIs, 9.2 %) have the id of one gene"
    )
    assert f"{ids.iloc[0]} is called {symbols[0]}, in genes.reference {symbols[29]}; {ids.iloc[1]} is called" in told
    share = "30 rows of 1 file (3.07 % of UMIs)"
    row = (
        f"crossed   {share} count as the gene of their id, and have the symbol of another, e.g. {ids.iloc[0]} is called"
    )
    assert f"{row} {symbols[0]}\n" in str(summary)
    assert (
        "30 rows of the gene tables of 1 file (3.07 % of UMIs) have the id"
        in keep_report(tmp_path / "out", changed=True).read_text()
    )
    report = pd.read_parquet(tmp_path / "out" / "gene_report.parquet")
    assert report.groupby("table", observed=True)["how"].apply(lambda how: (how == "crossed").sum()).max() == 30
    assert (stored(tmp_path / "out")[ids].to_numpy() == counts).all(axis=1).sum() == 1
