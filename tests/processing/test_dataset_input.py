"""Directories as inputs: cells come out as if the raw files had been processed, with the metrics that they had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import NO_QC, position_counts, run_pipeline, settings_for

from scvae_data import ChunkedDataModule, open_index
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.loading.select.filter import filter_mask
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.settings.genes import GeneRules, ListRules
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.shards import merge, run_shard
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.store import Chunking, open_dataset

Write = Callable[..., Path]


@pytest.fixture
def raw(write_raw: Write) -> list[Path]:
    """Two experiments of 6 and 5 cells; genes B and C are in both, in another order."""
    first = write_raw("SRX1.h5ad", position_counts(6, 3), ["C", "A", "B"], {"donor": list("xxyyzz"), "age": range(6)})
    second = write_raw("SRX2.h5ad", position_counts(5, 3, offset=10), ["B", "D", "C"], {"donor": list("uvuvu")})
    return [first, second]


def made_of(*paths: Path, **keys: Any) -> DatasetInput:
    return DatasetInput(paths=[str(path) for path in paths], **keys)


def remade(sources: list[Path], target: Path, where: str | None = None, **chosen: Any) -> Any:
    return run_pipeline([], target, input=made_of(*sources, where=where), **chosen)


def counts_of(directory: Path) -> pd.DataFrame:
    chunks = [ad.read_h5ad(path) for path in sorted(directory.glob("chunk_*.h5"))]
    return pd.concat([chunk.to_df() for chunk in chunks])


def assert_same_cells(one: Path, other: Path) -> None:
    """Equal to the byte but for the id of the run, which the chunks hold."""
    for name in ("gene_list.json", "obs.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert [chunk.n_obs for chunk in open_index(one).chunks] == [chunk.n_obs for chunk in open_index(other).chunks]
    pd.testing.assert_frame_equal(counts_of(one), counts_of(other))


@pytest.mark.parametrize("source", [{}, {"compression": "lz4"}, {"order": "source"}])
def test_another_chunk_size_is_what_the_raw_files_give(raw: list[Path], tmp_path: Path, source: dict[str, Any]) -> None:
    run_pipeline(raw, tmp_path / "a", chunking=Chunking(chunk_size=4, **source))
    run_pipeline(raw, tmp_path / "expected", chunking=Chunking(chunk_size=5))
    summary = remade([tmp_path / "a"], tmp_path / "b", chunking=Chunking(chunk_size=5))
    assert (summary.n_obs_in, summary.n_obs) == (11, 11)
    assert_same_cells(tmp_path / "b", tmp_path / "expected")
    assert open_index(tmp_path / "b").processing_id != open_index(tmp_path / "expected").processing_id


def test_directories_are_merged(raw: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(raw):
        run_pipeline([path], tmp_path / str(number))
    run_pipeline(raw, tmp_path / "expected")
    remade([tmp_path / "1", tmp_path / "0"], tmp_path / "both")
    assert_same_cells(tmp_path / "both", tmp_path / "expected")
    remade([tmp_path / "both"], tmp_path / "again", chunking=Chunking(chunk_size=11))
    assert_same_cells(tmp_path / "again", remade_one(raw, tmp_path / "one", chunking=Chunking(chunk_size=11)))


def remade_one(raw: list[Path], target: Path, **chosen: Any) -> Path:
    run_pipeline(raw, target, **chosen)
    return target


def test_metrics_stay_those_of_all_genes(raw: list[Path], tmp_path: Path) -> None:
    for name, genes in (("two", "B\nC\n"), ("one", "C\n")):
        (tmp_path / f"{name}.txt").write_text(genes)
    run_pipeline(raw, tmp_path / "a", genes=ListRules(path=str(tmp_path / "two.txt")))
    remade([tmp_path / "a"], tmp_path / "b", genes=ListRules(path=str(tmp_path / "one.txt")))
    before, after = open_index(tmp_path / "a").obs(), open_index(tmp_path / "b").obs()
    metrics = [name for name in before if "counts" in name]
    assert "total_counts" in metrics
    pd.testing.assert_frame_equal(after[metrics], before.loc[after.index, metrics])
    counts = counts_of(tmp_path / "b")
    assert (after["total_counts"] > counts.loc[after.index, "C"]).any()
    assert counts.columns.tolist() == ["C"]


def test_other_thresholds_are_one_pass_over_chunks(raw: list[Path], tmp_path: Path) -> None:
    stricter = QcRules(min_genes=None, min_counts=1000, max_pct_counts_mt=None, percent_top=[2])
    run_pipeline(raw, tmp_path / "a")
    for path in raw:
        path.unlink()
    summary = remade([tmp_path / "a"], tmp_path / "b", qc=stricter)
    totals = open_index(tmp_path / "a").obs()["total_counts"]
    assert {rule: n for rule, n in summary.lost.items() if n} == {"min_counts": int((totals < 1000).sum())}
    assert open_index(tmp_path / "b").n_obs == int((totals >= 1000).sum()) < 11
    dropped = pd.read_parquet(tmp_path / "b" / "dropped_cells.parquet")
    names = dropped["accession"] + ":" + dropped["barcode"]
    assert sorted(names) == sorted(totals.index[totals < 1000])
    assert all(name.startswith("chunk_") for name in dropped["source_file"])


def test_a_filter_keeps_the_cells_of_other_thresholds(raw: list[Path], tmp_path: Path) -> None:
    """Also of cells without a mitochondrial gene, of which the rule knows nothing."""
    run_pipeline(raw, tmp_path / "a")
    rules = QcRules(min_genes=2, min_counts=500, max_counts=2600, max_pct_counts_mt=10.0, percent_top=[2])
    remade([tmp_path / "a"], tmp_path / "b", qc=rules)
    chosen = "n_genes_by_counts >= 2 and total_counts >= 500 and total_counts <= 2600 and not pct_counts_mt > 10"
    module = ChunkedDataModule(tmp_path / "a", batch_size=1, split=None, normalized=False, filter=chosen)
    module.setup()
    rows = [row for batch in module.predict_dataloader() for row in batch["index"].tolist()]
    names = open_index(tmp_path / "a").obs(rows=rows).index
    assert set(names) == set(open_index(tmp_path / "b").obs().index) and 0 < len(names) < 11
    obs = open_index(tmp_path / "b").obs()
    assert obs["pct_counts_mt"].isna().all()


def test_a_subset_by_obs(raw: list[Path], tmp_path: Path) -> None:
    run_pipeline(raw, tmp_path / "a")
    where = 'SRX_accession == "SRX1" and age >= 2 or donor == "v"'
    summary = remade([tmp_path / "a"], tmp_path / "b", where=where)
    names = open_index(tmp_path / "b").obs().index
    assert sorted(names) == [*(f"SRX1:cell{n}" for n in range(2, 6)), "SRX2:cell1", "SRX2:cell3"]
    assert summary.lost["not_where"] == 5
    with pytest.raises(ConfigError, match=r"no cell of 11 is left \(11 not_where\); input.where is true of none"):
        remade([tmp_path / "a"], tmp_path / "none", where="age > 90")


@pytest.fixture
def apart(raw: list[Path], tmp_path: Path) -> list[Path]:
    """A directory of each experiment: values of donor are of one of them, and age is a column of the first."""
    folders = [tmp_path / "0", tmp_path / "1"]
    for path, folder in zip(raw, folders, strict=True):
        run_pipeline([path], folder, chunking=Chunking(chunk_size=10))
    return folders


def test_a_filter_by_what_one_of_several_directories_has(apart: list[Path], tmp_path: Path) -> None:
    both = open_dataset([str(folder) for folder in apart])
    cases = {"donor in ['x', 'v']": 4, "not donor == 'v'": 9, "age >= 4 or donor != 'x' and age != 3": 3}
    for number, (where, n_kept) in enumerate(cases.items()):
        summary = remade(apart, tmp_path / f"both{number}", where=where)
        assert summary.n_obs == n_kept == 11 - summary.lost["not_where"]
        assert sum(filter_mask(both, chunk, where).sum() for chunk in range(len(both.chunks))) == n_kept


def test_a_filter_that_no_directory_can_answer_is_named_once_and_blocks_nothing(
    apart: list[Path], tmp_path: Path
) -> None:
    cases = {
        "donor == 'w'": r"input.where: donor has no value 'w'; it has x, y, z, u, v",
        "donnor == 'v'": r"input.where: no obs column 'donnor' in \S+0 and \S+1; did you mean donor\?",
        "age == 'v'": r"input.where: age holds numbers and is compared with 'v'",
        "donor > 'v'": r"input.where: donor is categorical; compare it with ==, != or in",
    }
    for where, message in cases.items():
        with pytest.raises(ScvaeDataError, match=f"^{message}$") as dry:
            dry_run(settings_for([], input=made_of(*apart, where=where)), SerialEngine(), tmp_path / "both")
        with pytest.raises(ScvaeDataError) as run:
            remade(apart, tmp_path / "both", where=where)
        assert str(run.value) == str(dry.value)
    assert remade(apart, tmp_path / "both", where="donor == 'v'").n_obs == 2


def test_a_filter_by_a_column_that_is_text_here_and_numbers_there(write_raw: Write, tmp_path: Path) -> None:
    for name, ages in {"SRX1": ["old", "new"], "SRX2": [1, 2]}.items():
        run_pipeline([write_raw(f"{name}.h5ad", position_counts(2, 3), list("ABC"), {"age": ages})], tmp_path / name)
    with pytest.raises(ScvaeDataError, match=r"input.where: age is categorical in .*SRX1, int64 in .*SRX2"):
        remade([tmp_path / "SRX1", tmp_path / "SRX2"], tmp_path / "both", where="age > 1")


def test_a_cell_stays_on_its_side_of_a_split(raw: list[Path], tmp_path: Path) -> None:
    run_pipeline(raw, tmp_path / "a")
    remade([tmp_path / "a"], tmp_path / "b", where="donor != 'x'", genes=GeneRules(join="inner", min_cells=1))
    before, after = (open_index(tmp_path / name).obs()["split_hash"] for name in "ab")
    pd.testing.assert_series_equal(after, before[after.index])


def test_shards_of_chunks(raw: list[Path], tmp_path: Path) -> None:
    run_pipeline(raw, tmp_path / "a")
    settings = settings_for([], input=made_of(tmp_path / "a"), chunking=Chunking(chunk_size=5))
    for number in (1, 2):
        run_shard(settings, SerialEngine(), tmp_path / "b", Shard(number, 2))
    merge(settings, SerialEngine(), tmp_path / "b")
    assert_same_cells(tmp_path / "b", remade_one(raw, tmp_path / "expected", chunking=Chunking(chunk_size=5)))


def test_a_damaged_chunk_is_refused(raw: list[Path], tmp_path: Path) -> None:
    run_pipeline(raw, tmp_path / "a", chunking=Chunking(chunk_size=4, compression="none"))
    content = bytearray((tmp_path / "a" / "chunk_0001.h5").read_bytes())
    with h5py.File(tmp_path / "a" / "chunk_0001.h5") as file:
        content[file["X/data"].id.get_chunk_info(0).byte_offset] ^= 1
    (tmp_path / "a" / "chunk_0001.h5").write_bytes(content)
    with pytest.raises(ScvaeDataError, match=r"chunk_0001.h5: is not what the index of its directory lists; mend it"):
        remade([tmp_path / "a"], tmp_path / "b")


def test_what_is_no_directory_or_two_of_one_experiment(raw: list[Path], tmp_path: Path) -> None:
    run_pipeline(raw, tmp_path / "a")
    run_pipeline(raw[1:], tmp_path / "b")
    with pytest.raises(ConfigError, match=r"input.paths: 1 experiment in .*/a and .*/b, e.g. SRX2; make one of them"):
        made_of(tmp_path / "a", tmp_path / "b").files()
    with pytest.raises(ConfigError, match=r"input.paths names .*/a more than once"):
        made_of(tmp_path / "a", tmp_path / "a").files()
    with pytest.raises(ConfigError, match=r"input.paths: .*/raw"):
        made_of(tmp_path / "raw").files()
    with pytest.raises(ConfigError, match=r"input.paths is empty; give a directory"):
        made_of().files()
    with pytest.raises(ConfigError, match=r"input.where='age >' cannot be read"):
        made_of(tmp_path / "a", where="age >")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"qc": QcRules(nmads={"total_counts": 5})}, "qc.nmads.total_counts needs all cells of an experiment at once"),
        ({"qc": QcRules(doublets="score")}, "qc.doublets=score needs all cells of an experiment at once"),
        ({"control": ControlSubset(column="donor"), "where": "age > 1"}, "say both in input.where"),
        ({"qc": QcRules(percent_top=[3])}, "has no obs column pct_counts_in_top_3_genes, .*choose qc.percent_top"),
    ],
)
def test_what_needs_raw_files(raw: list[Path], tmp_path: Path, chosen: dict[str, Any], message: str) -> None:
    run_pipeline(raw, tmp_path / "a")
    with pytest.raises(ScvaeDataError, match=message):
        remade([tmp_path / "a"], tmp_path / "b", **chosen)


def test_controls_and_copies(raw: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_pipeline(raw, tmp_path / "a")
    controls = ControlSubset(column="donor", values=["x", "u"])
    summary = remade([tmp_path / "a"], tmp_path / "b", control=controls, keep_duplicates="first")
    assert (summary.n_obs, summary.lost["not_control"]) == (5, 6)
    assert not np.isnan(open_index(tmp_path / "b").normalization["target_sum"])
    assert NO_QC.percent_top == [2]
