"""From raw files to a directory: nothing lost, nothing invented, the same bytes every time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from tests.support.pipeline import NO_QC, position_counts

from scvae_data import open_index
from scvae_data.errors import ConfigError, DamagedFileError, MissingIndexError, ScvaeDataError
from scvae_data.processing.decide import merge
from scvae_data.processing.engine.dask import DaskEngine
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput, ManifestInput
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.publish import write_cells
from scvae_data.store import Chunking

CONTENT = ("obs.parquet", "gene_list.json", "chunk_index.json")
Write = Callable[..., Path]
Process = Callable[..., Any]


@pytest.fixture
def two_files(write_raw: Write) -> list[Path]:
    """Two experiments of 6 and 5 cells; genes B and C are in both, in another order."""
    first = write_raw("SRX1.h5ad", position_counts(6, 3), ["C", "A", "B"], {"donor": list("xxyyzz"), "age": range(6)})
    second = write_raw("SRX2.h5ad", position_counts(5, 3, offset=10), ["B", "D", "C"], {"donor": list("uvuvu")})
    return [first, second]


def read_all(directory: Path) -> ad.AnnData:
    chunks = [ad.read_h5ad(path) for path in sorted(directory.glob("chunk_*.h5"))]
    obs = pd.concat([chunk.obs.astype(object) for chunk in chunks])
    x = np.vstack([chunk.X.toarray() for chunk in chunks])
    return ad.AnnData(x, obs=obs, var=chunks[0].var)


def bytes_of(directory: Path) -> dict[str, bytes]:
    names = [*CONTENT, *(path.name for path in directory.glob("chunk_*.h5"))]
    return {name: (directory / name).read_bytes() for name in names}


def test_every_cell_and_gene_arrives(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    summary = process(two_files)
    result = read_all(tmp_path / "out")
    assert result.var_names.tolist() == ["A", "B", "C", "D"]
    assert [chunk.n_obs for chunk in open_index(tmp_path / "out").chunks] == [4, 4, 3]
    assert (summary.n_obs_in, summary.n_obs, summary.n_chunks) == (11, 11, 3)
    raw = {path.name: ad.read_h5ad(path).to_df() for path in two_files}
    for name, obs, row in zip(result.obs_names, result.obs.to_dict("records"), result.X, strict=True):
        source = raw[obs["source_file"]].iloc[obs["source_row"]].reindex(result.var_names, fill_value=0)
        np.testing.assert_array_equal(row, source)
        assert name == f"{obs['SRX_accession']}:cell{obs['source_row']}"
        assert obs["total_counts"] == row.sum()
        assert obs["size_factor"] == row.sum() / 10_000
    assert result.obs_names.is_unique
    assert sorted(result.obs["donor"]) == sorted("xxyyzzuvuvu")
    ages = result.obs["age"]
    assert ages[result.obs["SRX_accession"] == "SRX2"].isna().all()
    assert sorted(ages.dropna()) == list(range(6))


def test_measured_genes_are_told_from_zeros(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files)
    index = open_index(tmp_path / "out")
    obs = index.obs(["SRX_accession", "gene_set"])
    for accession, genes in (("SRX1", "ABC"), ("SRX2", "BCD")):
        (code,) = set(obs.loc[obs["SRX_accession"] == accession, "gene_set"])
        assert "".join(index.genes.names[index.gene_sets.masks(code)]) == genes


def test_cells_lie_in_hash_order(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files)
    for path in sorted((tmp_path / "out").glob("chunk_*.h5")):
        assert ad.read_h5ad(path).obs["split_hash"].is_monotonic_increasing
    process(two_files, tmp_path / "other", chunking=Chunking(chunk_size=11))
    assert set(read_all(tmp_path / "out").obs_names) == set(read_all(tmp_path / "other").obs_names)
    process(two_files, tmp_path / "seed", chunking=Chunking(chunk_size=11), seed=1)
    assert read_all(tmp_path / "seed").obs_names.tolist() != read_all(tmp_path / "other").obs_names.tolist()


def test_source_order(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files, chunking=Chunking(chunk_size=4, order="source"))
    names = read_all(tmp_path / "out").obs_names.tolist()
    assert names == [f"SRX1:cell{n}" for n in range(6)] + [f"SRX2:cell{n}" for n in range(5)]


def test_group_order(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files, chunking=Chunking(chunk_size=4, order="group", group_column="donor"))
    donors = read_all(tmp_path / "out").obs["donor"]
    assert (donors != donors.shift()).sum() == donors.nunique()


def test_order_by_accession(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files, chunking=Chunking(chunk_size=4, order="group", group_column="SRX_accession"))
    accessions = read_all(tmp_path / "out").obs["SRX_accession"].astype(str)
    assert (accessions != accessions.shift()).sum() == 2


def test_a_column_that_no_file_has_cannot_group(two_files: list[Path], process: Process) -> None:
    with pytest.raises(ConfigError, match=r"group_column=dnor: no input has this obs column.* SRX_accession, .*donor"):
        process(two_files, chunking=Chunking(chunk_size=4, order="group", group_column="dnor"))


def test_cells_of_one_key_stay_in_one_chunk(
    two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scvae_data.processing.sort.key.OrderKey.keys", lambda *_: np.zeros(len(_[3]), np.uint64) + 7)
    process(two_files, chunking=Chunking(chunk_size=4))
    (chunk,) = open_index(tmp_path / "out").chunks
    assert (chunk.first_row, chunk.n_obs) == (0, 11)


@pytest.mark.parametrize(
    "variant",
    [
        "input order",
        "workers",
        pytest.param("dask", marks=pytest.mark.services),
        "threads of runs",
        "location",
        "merged runs",
        "parts",
    ],
)
def test_the_same_bytes_whatever_the_way(
    variant: str, two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(two_files)
    paths, settings = two_files, {}
    if variant == "input order":
        paths = two_files[::-1]
    elif variant == "workers":
        settings["engine"] = LocalEngine(2)
    elif variant == "dask":
        settings["engine"] = DaskEngine(2)
    elif variant == "threads of runs":
        monkeypatch.setattr("scvae_data.processing.sort.sorted_run.PIECE_BYTES", 3)
    elif variant == "location":
        moved = tmp_path / "elsewhere" / "deep"
        moved.mkdir(parents=True)
        paths = [path.rename(moved / path.name) for path in two_files]
    elif variant == "parts":
        monkeypatch.setattr("scvae_data.processing.write.chunks.PART_ENTRIES", 4)
    else:
        monkeypatch.setattr(merge, "MAX_RUNS", 1)
        monkeypatch.setattr(merge, "merge_groups", limited_groups())
        monkeypatch.setattr(merge, "PIECE_BYTES", 10)
    process(paths, tmp_path / "again", **settings)
    first, again = bytes_of(tmp_path / "out"), bytes_of(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def limited_groups() -> Callable[[list[str]], list[list[str]]]:
    """One round of merging in groups of two."""
    rounds = iter([2])

    def groups(runs: list[str]) -> list[list[str]]:
        size = next(rounds, None)
        return [list(runs[start : start + size]) for start in range(0, len(runs), size)] if size else []

    return groups


def test_cell_rules_come_before_gene_rules(write_raw: Write, process: Process, tmp_path: Path) -> None:
    counts = np.array([[5, 5, 0], [5, 5, 0], [0, 0, 1]])
    path = write_raw("SRX1.h5ad", counts, ["A", "B", "C"])
    summary = process(
        [path], qc=QcRules(min_genes=2, min_counts=None, max_pct_counts_mt=None), genes=GeneRules(min_cells=1)
    )
    assert read_all(tmp_path / "out").var_names.tolist() == ["A", "B"]
    assert summary.lost == {"zero_counts": 0, "min_genes": 1, "zero_counts_in_kept_genes": 0}


def test_a_cell_without_a_count_in_a_kept_gene_is_dropped_and_counted(
    write_raw: Write, process: Process, tmp_path: Path
) -> None:
    counts = np.array([[5, 5, 0], [5, 5, 0], [0, 0, 1]])
    path = write_raw("SRX1.h5ad", counts, ["A", "B", "C"])
    summary = process([path], genes=GeneRules(min_cells=2))
    assert (summary.n_obs, summary.lost["zero_counts_in_kept_genes"]) == (2, 1)
    assert (read_all(tmp_path / "out").obs["size_factor"] > 0).all()


@pytest.mark.parametrize("target_sum", [None, 1000.0])
def test_size_factors_are_those_of_normalize_total(
    target_sum: float | None, two_files: list[Path], process: Process, tmp_path: Path
) -> None:
    process(two_files, normalization=Normalization(target_sum=target_sum))
    result = read_all(tmp_path / "out")
    scaled = result.X / result.obs["size_factor"].to_numpy(float)[:, None]
    sc.pp.normalize_total(result, target_sum=target_sum)
    np.testing.assert_allclose(scaled, result.X, rtol=1e-6)
    if target_sum is None:
        totals = pd.concat([ad.read_h5ad(path).to_df().sum(axis=1) for path in two_files])
        assert open_index(tmp_path / "out").normalization["target_sum"] == np.median(totals)


def test_rows_of_one_id_are_summed_and_duplicate_names_made_unique(tmp_path: Path, process: Process) -> None:
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "SRX1.h5ad"
    with pytest.warns(UserWarning, match="not unique"):
        adata = ad.AnnData(
            np.array([[1, 2, 4], [8, 16, 32], [64, 128, 256]], np.float32),
            obs=pd.DataFrame(index=["c", "c", "c-1"]),
            var=pd.DataFrame(index=["ENSG90000000001", "ENSG90000000002", "ENSG90000000001"]),
        )
    adata.write_h5ad(path)
    process([path])
    result = read_all(tmp_path / "out")
    assert dict(zip(result.obs_names, result.to_df()["ENSG90000000001"], strict=True)) == {
        "SRX1:c": 5,
        "SRX1:c-2": 40,
        "SRX1:c-1": 320,
    }


def test_counts_wider_than_16_bits_survive(write_raw: Write, process: Process, tmp_path: Path) -> None:
    path = write_raw("SRX1.h5ad", np.array([[65_535, 65_536, 300], [1, 16_777_216, 255]]), ["A", "B", "C"])
    process([path])
    result = read_all(tmp_path / "out")
    assert sorted(result.X.ravel()) == [1, 255, 300, 65_535, 65_536, 16_777_216]


def test_columns_of_ours_are_kept_aside_and_types_in_conflict_become_text(
    write_raw: Write, process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write_raw("SRX1.h5ad", position_counts(3, 2), ["A", "B"], {"total_counts": [7, 8, 9], "stage": [1, 2, 3]})
    second = write_raw("SRX2.h5ad", position_counts(3, 2), ["A", "B"], {"stage": ["I", "II", "III"]})
    process([first, second])
    obs = read_all(tmp_path / "out").obs
    assert sorted(obs["orig_total_counts"].dropna()) == [7, 8, 9]
    assert sorted(obs["stage"]) == ["1", "2", "3", "I", "II", "III"]
    assert "obs column stage is int and string in different files; it is stored as text" in caplog.text


def test_obs_columns_can_be_chosen(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    paths = [str(path) for path in two_files]
    process([], input=FileInput(paths=paths, obs_columns=["age"]))
    columns = read_all(tmp_path / "out").obs.columns
    assert "age" in columns
    assert "donor" not in columns
    with pytest.raises(ConfigError, match="no file has tissue; there are: age, donor"):
        process([], tmp_path / "b", input=FileInput(paths=paths, obs_columns=["tissue"]))


def test_manifest_names_and_describes_files(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,srx_accession,tissue\nraw/SRX1.h5ad,SRX8,lung\nraw/SRX2.h5ad,SRX9,liver\n")
    process([], input=ManifestInput(manifest=str(manifest)))
    obs = read_all(tmp_path / "out").obs
    assert set(zip(obs["SRX_accession"], obs["tissue"], strict=True)) == {("SRX8", "lung"), ("SRX9", "liver")}


def test_one_accession_in_two_files(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    again = two_files[1].rename(two_files[1].with_name("x_SRX1.h5ad"))
    with pytest.raises(ConfigError, match=r"accession SRX1 belongs to 2 files: SRX1\.h5ad, x_SRX1\.h5ad"):
        process([two_files[0], again])
    paths = [str(two_files[0]), str(again)]
    process([], input=FileInput(paths=paths, merge_same_accession=True))
    result = read_all(tmp_path / "out")
    assert result.obs_names.is_unique
    assert set(result.obs_names) >= {"SRX1:cell0", "SRX1#2:cell0"}


def test_control_cells(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    control = ControlSubset(column="donor", values=[" X", "u"])
    summary = process(two_files, control=control)
    assert sorted(read_all(tmp_path / "out").obs["donor"]) == list("uuuxx")
    assert summary.lost["not_control"] == 6
    only_first = ControlSubset(column="age", values=["1"])
    with pytest.raises(ScvaeDataError, match=r"SRX2\.h5ad: has no obs column age"):
        process(two_files, tmp_path / "b", control=only_first)
    dropped = ControlSubset(column="age", values=["1"], missing="drop_file")
    process(two_files, tmp_path / "c", control=dropped)
    assert read_all(tmp_path / "c").obs["age"].tolist() == [1]


def test_species_must_agree(write_raw: Write, process: Process, tmp_path: Path) -> None:
    human = write_raw("SRX1.h5ad", position_counts(3, 2), ["MT-ND1", "TP53"])
    mouse = write_raw("SRX2.h5ad", position_counts(3, 2), ["mt-Nd1", "Trp53"])
    with pytest.raises(
        ConfigError, match=r"mixed species: human \(1 file, e\.g\. SRX1\.h5ad\), mouse \(1 file, e\.g\. SRX2"
    ):
        process([human, mouse])
    process([human, mouse], genes=GeneRules(min_cells=1, allow_mixed_species=True))
    assert read_all(tmp_path / "out").n_vars == 4


@pytest.mark.parametrize(
    ("value", "reason", "text"),
    [
        (-2, "negative", "X: negative value -2 in row 1, column 2 (C)"),
        (0.5, "fractional", "X: fractional value 0.5 in row 1, column 2 (C)"),
        (np.nan, "not_finite", "X: not finite value nan in row 1, column 2 (C)"),
    ],
)
def test_values_that_are_no_counts(
    value: float, reason: str, text: str, tmp_path: Path, process: Process, two_files: list[Path]
) -> None:
    x = np.array([[1, 2, 3], [4, 5, value]], np.float32)
    path = tmp_path / "raw" / "SRX3.h5ad"
    ad.AnnData(x, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=list("ABC"))).write_h5ad(path)
    with pytest.raises(ScvaeDataError) as caught:
        process([path])
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ScvaeDataError, match="1 of 3 files failed"):
        process([*two_files, path], tmp_path / "b")
    with pytest.raises(MissingIndexError):
        open_index(tmp_path / "b")
    summary = process([*two_files, path], tmp_path / "b", max_failed_fraction=0.5, resume=True)
    assert (summary.n_obs, [file.reason for file in summary.failed]) == (11, [reason])


def test_each_failed_file_is_told_once(
    tmp_path: Path, process: Process, two_files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    text, fractions = (tmp_path / "raw" / name for name in ("SRX3.h5ad", "SRX4.h5ad"))
    text.write_text("a,b\n")
    x = np.full((2, 3), 0.5, np.float32)
    ad.AnnData(x, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=list("ABC"))).write_h5ad(fractions)
    summary = process([*two_files, text, fractions], tmp_path / "out", max_failed_fraction=0.5)
    assert [file.source_file for file in summary.failed] == ["SRX3.h5ad", "SRX4.h5ad"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [sum(f"{name}: " in line for line in told) for name in ("SRX3.h5ad", "SRX4.h5ad")] == [1, 1]


def test_files_that_cannot_be_read_come_before_mixed_species(
    tmp_path: Path, process: Process, write_raw: Callable[..., Path]
) -> None:
    human = write_raw("SRX1.h5ad", position_counts(3, 2), ["MT-ND1", "TP53"])
    mouse = write_raw("SRX2.h5ad", position_counts(3, 2), ["mt-Nd1", "Trp53"])
    text = tmp_path / "raw" / "SRX3.h5ad"
    text.write_text("a,b\n")
    with pytest.raises(ScvaeDataError, match="1 of 3 files failed"):
        process([human, mouse, text])
    with pytest.raises(ScvaeDataError, match="mixed species"):
        process([human, mouse, text], max_failed_fraction=0.5, resume=True)


def test_the_counts_slot_is_chosen_by_its_values(tmp_path: Path, process: Process) -> None:
    counts = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    adata = ad.AnnData(np.log1p(counts), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=list("ABC")))
    adata.layers["counts"] = counts / 2
    adata.raw = ad.AnnData(counts, obs=adata.obs, var=adata.var)
    (tmp_path / "raw").mkdir()
    adata.write_h5ad(tmp_path / "raw" / "SRX1.h5ad")
    process([tmp_path / "raw" / "SRX1.h5ad"])
    assert sorted(read_all(tmp_path / "out").X.ravel()) == [1, 2, 3, 4, 5, 6]
    attrition = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["attrition"]
    assert attrition["slot"] == ["raw/X"]


def test_a_dataset_is_never_overwritten_unasked(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files)
    with pytest.raises(
        ConfigError, match="already holds a dataset; append=true adds cells of new inputs, overwrite=true"
    ):
        process(two_files)
    process(two_files[:1], overwrite=True)
    assert read_all(tmp_path / "out").n_obs == 6


@pytest.mark.parametrize("emptied", ["chunk_obs", "chunk_note"])
def test_resume_redoes_only_what_is_missing(
    emptied: str, two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(two_files, tmp_path / "clean")
    monkeypatch.setattr("scvae_data.processing.pipeline.publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process(two_files)
    with pytest.raises(ConfigError, match="holds an unfinished run; resume=true continues it"):
        process(two_files)
    monkeypatch.undo()
    out = tmp_path / "out"
    (out / "chunk_0001.h5").unlink()
    getattr(WorkFolder(out / ".work"), emptied)(2).write_bytes(b"")  # as a power cut may leave it
    before = [(out / f"chunk_000{number}.h5").stat().st_mtime_ns for number in (0, 2)]
    monkeypatch.setattr("scvae_data.processing.scan.file.SlotScan", None)
    process(two_files, resume=True)
    after = [(out / f"chunk_000{number}.h5").stat().st_mtime_ns for number in (0, 2)]
    assert before[0] == after[0]
    assert before[1] < after[1]
    assert bytes_of(out) == bytes_of(tmp_path / "clean")
    assert not (out / ".work").exists()


@pytest.mark.parametrize(
    ("lost", "zeros"),
    [
        ("scan/000001/done.json", False),
        ("scan/000001/genes.feather", True),
        ("scan/000001/run0000.run", False),
        ("merged/*/0_00000.totals", True),
    ],
)
def test_what_a_power_cut_has_lost_is_made_again(
    lost: str, zeros: bool, two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scvae_data.processing.scan.stage.ScanJob", partial(ScanJob, run_entries=4, block_entries=4))
    monkeypatch.setattr(merge, "MAX_RUNS", 2)
    process(two_files, tmp_path / "clean")
    with monkeypatch.context() as stopped:
        stopped.setattr("scvae_data.processing.pipeline.publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process(two_files)
    [path] = (tmp_path / "out" / ".work").glob(lost)
    path.write_bytes(bytes(path.stat().st_size if zeros else 0))
    for path in (tmp_path / "out").glob("chunk_*"):  # so that all is read again
        path.unlink()
    process(two_files, resume=True)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "clean")


def test_rows_that_are_cut_off_while_chunks_are_written_are_told_and_made_again(
    two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(two_files, tmp_path / "clean")
    run = WorkFolder(tmp_path / "out" / ".work").scan(1).sorted_run(0).with_suffix(".run")

    def cut_off(*given: Any) -> Any:
        os.truncate(run, run.stat().st_size // 2)
        return write_cells(*given)

    told = r"scan/000001/run0000\.run: is not as it was written \(not a finished run\); resume=true makes it again$"
    with monkeypatch.context() as patched, pytest.raises(DamagedFileError, match=told):
        patched.setattr("scvae_data.processing.pipeline.write_cells", cut_off)
        process(two_files)
    process(two_files, resume=True)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "clean")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_no_cell_left_says_which_rule(two_files: list[Path], process: Process) -> None:
    with pytest.raises(ConfigError, match=r"no cell of 11 is left \(11 min_genes\); relax qc"):
        process(two_files, qc=QcRules(min_genes=100, min_counts=None))


def test_two_runs_on_one_directory(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    from scvae_data.processing.run.directory import held_directory

    with held_directory(tmp_path / "out"), pytest.raises(ConfigError, match="is being written by another"):
        process(two_files)


def test_summary_accounts_for_every_cell(two_files: list[Path], process: Process) -> None:
    summary = process(two_files, qc=NO_QC)
    assert summary.n_obs_in == summary.n_obs + sum(summary.lost.values())
    text = str(summary)
    for piece in ("11 in, 11 kept", "3 of up to 4 cells", "train data=chunked"):
        assert piece in text


def test_overwriting_keeps_the_old_dataset_until_the_new_one_can_be_written(
    two_files: list[Path], process: Process, tmp_path: Path
) -> None:
    process(two_files)
    before = bytes_of(tmp_path / "out")
    with pytest.raises(ConfigError, match="no cell of 11 is left"):
        process(two_files, overwrite=True, qc=QcRules(min_genes=100, min_counts=None))
    assert bytes_of(tmp_path / "out") == before
    process(two_files, overwrite=True, chunking=Chunking(chunk_size=11))
    assert [path.name for path in (tmp_path / "out").glob("chunk_*.h5")] == ["chunk_0000.h5"]


def test_missing_values_stay_missing_and_change_no_type(write_raw: Write, process: Process, tmp_path: Path) -> None:
    notes = [f"note {number}" if number % 3 else None for number in range(120)]
    big = [2**53 + 1 + 2 * number for number in range(120)]
    full = {"note": notes, "big": big, "treated": [True] * 120, "age": [0.5] * 120}
    first = write_raw("SRX1.h5ad", position_counts(120, 2), ["A", "B"], full)
    nothing = {"treated": pd.Categorical([None, None]), "age": pd.Categorical([None, None])}
    second = write_raw("SRX2.h5ad", position_counts(2, 2), ["A", "B"], nothing)
    process([first, second], chunking=Chunking(chunk_size=122))
    obs = ad.read_h5ad(tmp_path / "out" / "chunk_0000.h5").obs
    assert obs["note"].isna().sum() == 42
    assert sorted(obs["big"].dropna()) == big
    assert (str(obs["treated"].dtype), str(obs["age"].dtype)) == ("boolean", "float64")
    assert obs["treated"].isna().sum() == obs["age"].isna().sum() == 2


def test_float_noise_is_rounded_only_when_allowed(tmp_path: Path, process: Process) -> None:
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "SRX1.h5ad"
    x = np.array([[0.9999, 2.0001], [3, 4]])
    ad.AnnData(x, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["A", "B"])).write_h5ad(path)
    with pytest.raises(
        ScvaeDataError,
        match=r"fractional value 0\.9999 in row 0, column 0 \(A\), which input.count_tolerance=0.001 rounds",
    ):
        process([path])
    process([], overwrite=True, input=FileInput(paths=str(path), count_tolerance=0.001))
    assert sorted(read_all(tmp_path / "out").X.ravel()) == [1, 2, 3, 4]
