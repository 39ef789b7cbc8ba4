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
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.settings.genes import GeneRules, ListRules
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.shards import merge, run_shard
from scvae_data.store import Chunking

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
    with pytest.raises(ScvaeDataError, match=r"input.where: donor has no value 'w'"):
        remade([tmp_path / "a"], tmp_path / "none", where="donor == 'w'", overwrite=True)


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
