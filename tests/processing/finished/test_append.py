"""Cells that are added to a finished directory: what was there stays, and what is new fits it or is refused."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline
from tests.support.recordings import VERSION1

from scvae_data import ChunkedDataset, open_index
from scvae_data.commands.upgrade import upgrade_directory
from scvae_data.commands.verify import how_to_mend, verify
from scvae_data.commands.why import why
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.sort.obs_schema import ObsSchema, fitted_schema
from scvae_data.processing.work import WorkFolder
from scvae_data.store import INDEX_FILE, Chunking, ObsColumn
from scvae_data.wording import shown

GENES = [f"g{column}" for column in range(12)]


def write_raw(folder: Path, number: int, genes: list[str] = GENES, **obs: Any) -> Path:
    """Seven cells of experiment ``number``, whose counts say so; their tissue has a value of its own."""
    folder.mkdir(exist_ok=True)
    row, column = np.ogrid[:7, : len(genes)]
    counts = (row + column + number) % 5 * (1 + 10 * number + row)
    columns = {"tissue": [f"t{(k + number) % 3}" for k in range(7)], "age": np.arange(7) + number} | obs
    table = pd.DataFrame(columns, index=[f"c{k}" for k in range(7)])
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=table)
    adata.var_names = genes
    path = folder / f"SRX{number}.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("raw")
    return [write_raw(folder, number) for number in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def first(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "out"
    run_pipeline(raw[:2], out)
    return out


@pytest.fixture
def copy(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "out"))


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name != ".lock"}


def cells_of(*directories: Path) -> pd.DataFrame:
    """Counts and obs of all cells by name, in order of the names."""
    frames = []
    for directory in directories:
        adata = ChunkedDataset(directory).to_anndata()
        del adata.obs["gene_set"]
        counts = pd.DataFrame(adata.X.toarray(), index=adata.obs_names, columns=adata.var_names)
        frames.append(counts.join(adata.obs.astype({"tissue": str, "SRX_accession": str, "source_file": str})))
    return pd.concat(frames).sort_index()


def test_old_files_stay_and_all_cells_are_there(copy: Path, raw: list[Path], tmp_path: Path) -> None:
    before, old = bytes_of(copy), open_index(copy)
    old_obs = old.obs()
    summary = run_pipeline(raw, copy, append=True)
    assert "14 cells in" not in str(summary) and "28 cells in 8 chunks" in str(summary)
    assert summary.experiments["file"] == "experiments_0001.parquet"
    assert pd.read_parquet(copy / summary.experiments["file"])["srx_accession"].tolist() == ["SRX3", "SRX4"]
    after, index = bytes_of(copy), open_index(copy)
    assert [name for name, content in before.items() if after[name] != content] == ["chunk_index.json"]
    assert [generation.n_chunks for generation in index.generations] == [4, 4]
    assert not any(verify(copy, deep=True, against=raw).values())
    run_pipeline(raw, tmp_path / "together")
    pd.testing.assert_frame_equal(cells_of(copy), cells_of(tmp_path / "together"))  # but for the numbers of gene sets
    # Codes of what was there stay, and so do the sides of a split.
    for name in ("SRX_accession", "tissue"):
        assert index.codes(name)[: old.n_obs].tolist() == old.codes(name).tolist()
    assert index.obs()["split_hash"][: old.n_obs].tolist() == old_obs["split_hash"].tolist()
    assert not (copy / ".work").exists()


def test_one_after_the_other(copy: Path, raw: list[Path]) -> None:
    for path in raw[2:]:
        run_pipeline([path], copy, append=True)
    index = open_index(copy)
    assert [generation.obs for generation in index.generations] == [
        "obs.parquet",
        "obs_0001.parquet",
        "obs_0002.parquet",
    ]
    assert index.n_obs == 28 and not any(verify(copy, deep=True).values())
    assert "nothing to do" in str(run_pipeline(raw, copy, resume=True))
    index_file = copy / INDEX_FILE
    index_file.write_bytes(index_file.read_bytes().replace(b"chunk_0001", b"chunk_0009"))
    with pytest.raises(ConfigError, match=r"has grown, and chunk_index\.json is damaged; take it from a copy"):
        run_pipeline(raw[:2], copy, resume=True)
    assert index_file.exists()
    assert how_to_mend(copy, [INDEX_FILE]).startswith("the directory has grown: take them from a copy")


def test_nothing_new_is_no_error_and_leaves_nothing(copy: Path, raw: list[Path], tmp_path: Path) -> None:
    before = bytes_of(copy)
    assert str(run_pipeline(raw[:2], copy, append=True)) == (
        f"{shown(copy)} has all 2 inputs already, nothing to add: 14 cells in 4 chunks"
    )
    assert str(run_pipeline(raw[:1], copy, append=True)).startswith(f"{shown(copy)} has the input already")
    assert bytes_of(copy) == before and not (copy / ".work").exists()
    cut = tmp_path / "SRX9.h5ad"
    cut.write_bytes(raw[2].read_bytes()[:1000])
    with pytest.raises(ScvaeDataError, match=r"SRX9\.h5ad"):  # one that cannot be read may be new
        run_pipeline([*raw[:2], cut], copy, append=True)


def test_what_an_append_left_that_was_killed_once_all_was_added_goes_with_the_next(
    copy: Path, raw: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(work: WorkFolder) -> None:
        if work.path.parent == copy:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WorkFolder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(raw[:3], copy, append=True)
    assert (copy / ".work").exists() and open_index(copy).n_obs == 21
    assert "has all 3 inputs already, nothing to add: 21 cells" in str(run_pipeline(raw[:3], copy, append=True))
    assert not (copy / ".work").exists() and not any(verify(copy, deep=True).values())


def test_files_that_it_has_are_left_out_beside_those_of_another_folder(
    copy: Path, raw: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run_pipeline([*raw[:2], write_raw(tmp_path / "new", 5)], copy, append=True)
    assert "2 of 3 inputs are in" in caplog.text
    names = open_index(copy).obs(["source_file"])["source_file"].cat.categories
    assert [name.rpartition("/")[2] for name in names] == ["SRX1.h5ad", "SRX2.h5ad", "SRX5.h5ad"]
    assert names[2].endswith("new/SRX5.h5ad")  # as it is called beside the others


def test_other_genes_are_counted_as_not_measured(copy: Path, tmp_path: Path) -> None:
    few = write_raw(tmp_path / "few", 5, ["new", *GENES[4:]])
    run_pipeline([few], copy, append=True)
    index = open_index(copy)
    assert index.genes.names.tolist() == open_index(copy).genes.names.tolist() and "new" not in index.genes.names
    codes = index.obs(["gene_set"])["gene_set"].to_numpy()
    measured = {int(code): index.genes.names[index.gene_sets.masks(code)].tolist() for code in np.unique(codes)}
    assert measured == {0: sorted(GENES), 1: sorted(GENES[4:])} and set(codes[-7:]) == {1}


def test_columns_take_the_types_of_the_directory(copy: Path, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "raw5", 5, tissue=[1, 2, 3, 4, 5, 6, 7], more=["x"] * 7)
    run_pipeline([path], copy, append=True)
    obs = open_index(copy).obs()
    assert "more" not in obs and sorted(obs["tissue"].dropna().unique()) == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "t0",
        "t1",
        "t2",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, r"append=true: .* was made with seed=0 \(now 3\), which cannot change"),
        ({"normalization": Normalization(method="none")}, r"normalization\.method=log1p \(now none\)"),
        ({"chunking": Chunking(4, "lz4")}, r"chunking\.compression=gzip \(now lz4\)"),
    ],
)
def test_other_settings_are_refused_by_name(copy: Path, raw: list[Path], change: dict[str, Any], message: str) -> None:
    before = bytes_of(copy)
    with pytest.raises(ConfigError, match=message) as caught:
        run_pipeline(raw[2:], copy, append=True, **change)
    assert "\n" not in str(caught.value) and bytes_of(copy) == before


def test_inputs_that_cannot_be_added(copy: Path, raw: list[Path], tmp_path: Path) -> None:
    before = bytes_of(copy)
    cases = {
        "has an input SRX1.h5ad of other content": write_raw(tmp_path / "other", 1, tissue=["other"] * 7),
        "obs column age is int64 in the directory and string": write_raw(tmp_path / "words", 5, age=["old"] * 7),
    }
    cases["none of the 12 genes of .*gene_list.json is in the inputs"] = write_raw(
        tmp_path / "mouse", 5, [f"m{column}" for column in range(9)]
    )
    same = tmp_path / "same" / "another_SRX1.h5ad"
    same.parent.mkdir()
    same.write_bytes(raw[0].read_bytes())
    for message, path in {**cases, "has cells of SRX1 already": same}.items():
        with pytest.raises(ScvaeDataError, match=message):
            run_pipeline([path], copy, append=True)
        assert bytes_of(copy) == before
    with pytest.raises(ScvaeDataError, match="no dataset at"):
        run_pipeline(raw, tmp_path / "none", append=True)
    old = shutil.copytree(VERSION1 / "gzip", tmp_path / "version1")
    with pytest.raises(ConfigError, match=f"format version 1; scvae-data upgrade {old}"):
        run_pipeline(raw, old, append=True)
    assert upgrade_directory(old)


@pytest.mark.parametrize("keep", ["all", "first", "none"])
def test_new_cells_that_the_directory_has(keep: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    genes = [f"g{column}" for column in range(80)]
    old, new = (write_raw(tmp_path / "raw", number, genes) for number in (1, 2))
    twin = ad.read_h5ad(new)
    counts = twin.X.toarray()
    counts[2] = ad.read_h5ad(old).X[4].toarray()  # the same counts in another experiment
    twin.X = sp.csr_matrix(counts)
    twin.write_h5ad(new)
    run_pipeline([old], tmp_path / "out", keep_duplicates=keep)
    run_pipeline([new], tmp_path / "out", keep_duplicates=keep, append=True)
    index = open_index(tmp_path / "out")
    assert index.n_obs == (14 if keep == "all" else 13)
    assert "1 new cell equals a cell of the directory (e.g. of SRX2.h5ad and SRX1.h5ad)" in caplog.text
    remedy = "give files that lack them, or process all inputs anew with keep_duplicates=first"
    assert (remedy in caplog.text) == (keep == "all")
    assert not any(verify(tmp_path / "out", deep=True, against=[old, new]).values())
    if keep != "all":
        assert "it has the same counts as SRX1.h5ad row 4" in why(tmp_path / "out", "SRX2", "c2")


@pytest.mark.parametrize("keep", ["first", "none"])
def test_a_new_cell_that_equals_a_new_one_and_one_of_the_directory_is_dropped_once(keep: str, tmp_path: Path) -> None:
    genes = [f"g{column}" for column in range(80)]
    old, new = (write_raw(tmp_path / "raw", number, genes) for number in (1, 2))
    twins = ad.read_h5ad(new)
    counts = twins.X.toarray()
    counts[[2, 3]] = ad.read_h5ad(old).X[4].toarray()
    twins.X = sp.csr_matrix(counts)
    twins.write_h5ad(new)
    run_pipeline([old], tmp_path / "out", keep_duplicates=keep)
    summary = run_pipeline([new], tmp_path / "out", keep_duplicates=keep, append=True)
    assert summary.lost["duplicate"] == 2
    assert open_index(tmp_path / "out").n_obs == 7 + 5
    assert pd.read_parquet(tmp_path / "out" / "dropped_cells_0001.parquet")["source_row"].tolist() == [2, 3]
    assert not any(verify(tmp_path / "out", deep=True, against=[old, new]).values())


def test_a_column_that_the_directory_may_have_under_another_name(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"cell_type": ObsColumn("categorical", ("T",)), "tissue": ObsColumn("categorical", ("liver",))}
    kinds = {"CellType": "string", "tissue": "string", "Tissue": "string", "age": "int"}
    assert fitted_schema(ObsSchema((), kinds), columns).kinds == {"cell_type": "string?", "tissue": "string?"}
    assert caplog.messages == [
        "obs columns that the directory does not have are left out: CellType, Tissue, age; "
        "'input.join_columns={cell_type:[CellType]}' keeps those that it has under another name"
    ]
