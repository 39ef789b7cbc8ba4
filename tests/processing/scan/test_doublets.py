"""Doublet scores are those of scanpy's scrublet on the cells of each experiment that pass quality control."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from tests.support.pipeline import NO_QC

from scvae_data.commands.why import why
from scvae_data.errors import ConfigError
from scvae_data.processing import pipeline
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.finished.sources import compare_rows, find_sources
from scvae_data.processing.scan import doublets
from scvae_data.processing.settings import qc as settings_qc
from scvae_data.processing.settings.qc import QcRules
from scvae_data.simulate import simulate_files
from scvae_data.store import Chunking, open_index
from scvae_data.store.verify import chunk_fault

Process = Callable[..., Any]
Write = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore:.*names are not unique")
PBMC3K = "h5ad/pbmc3k_2700.h5ad"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two simulated files, whose obs says which cells are doublets."""
    folder = tmp_path_factory.mktemp("doublets") / "raw"
    simulate_files(folder, n_files=2, cells_per_file=400, n_genes=800, seed=5)
    return sorted(folder.glob("*.h5ad"))


def settings(mode: str, **changes: Any) -> dict[str, Any]:
    return {"qc": QcRules(doublets=mode, **changes), "chunking": Chunking(chunk_size=150), "seed": 3}


def expected(path: Path, rows: np.ndarray) -> pd.DataFrame:
    """What scanpy says of some rows of a file, in their order."""
    adata = ad.read_h5ad(path)[rows]
    adata = ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs)
    with doublets.one_thread():
        sc.pp.scrublet(adata, random_state=3)
    return adata.obs


def of_file(out: Path, name: str) -> pd.DataFrame:
    """The obs of a file's cells in a directory, in the order of its rows."""
    obs = pd.read_parquet(out / "obs.parquet")
    return obs[obs["source_file"] == name].sort_values("source_row")


def test_scores_are_those_of_scanpy(raw: list[Path], process: Process, tmp_path: Path) -> None:
    process(raw, **settings("score"))
    for path in raw:
        obs = of_file(tmp_path / "out", path.name)
        scanpy = expected(path, obs["source_row"].to_numpy())
        np.testing.assert_array_equal(obs["doublet_score"].to_numpy(), scanpy["doublet_score"].to_numpy())
        assert obs["predicted_doublet"].tolist() == scanpy["predicted_doublet"].tolist()
        truth = scanpy["is_doublet"].astype(bool).to_numpy()
        assert obs["doublet_score"][truth].median() > 1.5 * obs["doublet_score"][~truth].median()


def test_of_a_real_file(shared_data: Path, process: Process, tmp_path: Path) -> None:
    process([shared_data / PBMC3K], **settings("score"))
    obs = of_file(tmp_path / "out", Path(PBMC3K).name)
    scanpy = expected(shared_data / PBMC3K, obs["source_row"].to_numpy())
    np.testing.assert_array_equal(obs["doublet_score"].to_numpy(), scanpy["doublet_score"].to_numpy())
    assert obs["predicted_doublet"].tolist() == scanpy["predicted_doublet"].tolist()
    assert 0 < obs["predicted_doublet"].sum() < 0.1 * len(obs)


def test_predicted_doublets_are_dropped_by_a_rule(raw: list[Path], process: Process, tmp_path: Path) -> None:
    scored = process(raw, tmp_path / "score", **settings("score"))
    summary = process(raw, tmp_path / "drop", **settings("drop"))
    for path in raw:
        before, after = of_file(tmp_path / "score", path.name), of_file(tmp_path / "drop", path.name)
        left = before[~before["predicted_doublet"].astype(bool)]
        assert left["source_row"].tolist() == after["source_row"].tolist()
        assert left["doublet_score"].tolist() == after["doublet_score"].tolist()
    dropped = pd.read_parquet(tmp_path / "drop" / "dropped_cells.parquet")
    doublets = dropped[dropped["rule"] == "doublet"]
    assert len(doublets) == summary.lost["doublet"] == scored.n_obs - summary.n_obs > 0
    assert (doublets["value"] == doublets["doublet_score"]).all()
    assert (doublets["value"] > doublets["threshold"]).all()
    assert doublets["predicted_doublet"].all()
    others = dropped[dropped["rule"] != "doublet"]
    assert others["predicted_doublet"].isna().all() and others["doublet_score"].isna().all()


@pytest.mark.parametrize("group", [1, 500_000], ids=["one by one", "together"])
def test_experiments_of_one_file_are_scored_by_themselves(
    group: int, raw: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doublets, "GROUP_CELLS", group)
    adata = ad.read_h5ad(raw[0])
    adata.obs["srx_accession"] = np.where(np.arange(adata.n_obs) % 2, "SRX2", "SRX1")
    (tmp_path / "both").mkdir()
    path = tmp_path / "both" / "both.h5ad"
    adata.write_h5ad(path)
    process([path], **settings("score"))
    obs = of_file(tmp_path / "out", path.name)
    for accession, cells in obs.groupby("SRX_accession", observed=True):
        scanpy = expected(path, cells["source_row"].to_numpy())
        assert set(scanpy["srx_accession"]) == {accession}
        np.testing.assert_array_equal(cells["doublet_score"].to_numpy(), scanpy["doublet_score"].to_numpy())


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (np.ones((20, 50), int), "20 of its cells are kept, and scrublet needs 31"),
        (np.ones((40, 2), int), "scrublet cannot be run"),
        (np.full((40, 50), 2), "scrublet cannot be run"),
    ],
    ids=["few cells", "few genes", "all alike"],
)
@pytest.mark.parametrize("mode", ["score", "drop"])
def test_where_scrublet_cannot_run(
    mode: str, counts: np.ndarray, said: str, write_raw: Write, process: Process, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = write_raw("SRX1.h5ad", counts, [f"g{number}" for number in range(counts.shape[1])])
    with caplog.at_level(logging.WARNING):
        process([path], qc=QcRules(**(vars(NO_QC) | {"doublets": mode})))
    assert f"SRX1.h5ad (SRX1): {said}" in caplog.text
    obs = of_file(tmp_path / "out", path.name)
    assert len(obs) == len(counts)
    assert obs["doublet_score"].isna().all() and obs["predicted_doublet"].isna().all()


def test_an_experiment_that_is_too_large_is_not_scored(
    raw: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(doublets, "MOST_CELLS", 300)
    with caplog.at_level(logging.WARNING):
        process(raw[:1], **settings("score"))
    assert "of its cells are kept, and 300 are the most that scrublet is run on" in caplog.text
    assert of_file(tmp_path / "out", raw[0].name)["doublet_score"].isna().all()


def test_more_cells_than_scanpy_compares_exactly_by_itself(raw: list[Path]) -> None:
    counts = sp.csr_matrix(ad.read_h5ad(raw[0]).X, dtype=np.float32)
    many = sp.vstack([counts] * 7, "csr")
    assert many.shape[0] > 8192 / 3
    scores, _ = doublets.scrublet(many, 0)
    assert len(scores) == many.shape[0]
    assert np.isfinite(scores).all()


def test_the_same_bytes_from_any_engine(raw: list[Path], process: Process, tmp_path: Path) -> None:
    process(raw, tmp_path / "serial", **settings("drop"))
    process(raw[::-1], tmp_path / "local", engine=LocalEngine(2), **settings("drop"))
    for path in sorted((tmp_path / "serial").glob("*")):
        if path.suffix in (".h5", ".parquet") or path.name == "chunk_index.json":
            assert (tmp_path / "local" / path.name).read_bytes() == path.read_bytes(), path.name


def test_stopped_and_resumed_or_damaged_and_built_again(
    raw: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    process(raw, tmp_path / "clean", **settings("drop"))
    expected = {path.name: path.read_bytes() for path in (tmp_path / "clean").glob("[!.]*") if path.suffix != ".json"}
    with monkeypatch.context() as stopped:
        stopped.setattr(pipeline, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            process(raw, **settings("drop"))
    with monkeypatch.context() as scored_before:
        scored_before.setattr(doublets, "scrublet", None)  # what was scored is not scored again
        process(raw, resume=True, **settings("drop"))
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*") if path.suffix != ".json"} == expected
    (out / "chunk_0001.h5").write_bytes(b"")
    (out / "dropped_cells.parquet").unlink()
    process(raw, resume=True, **settings("drop"))
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*") if path.suffix != ".json"} == expected
    index = open_index(out)
    assert [chunk_fault(index, number) for number in range(len(index.chunks))] == [None] * len(index.chunks)
    assert list(compare_rows(index, find_sources(index, raw))) == []


def test_a_column_of_the_inputs_keeps_its_name_unless_scores_are_asked_for(
    write_raw: Write, process: Process, tmp_path: Path
) -> None:
    path = write_raw("SRX1.h5ad", np.ones((4, 6), int), list("ABCDEF"), {"doublet_score": np.arange(4) / 8})
    process([path])
    process([path], tmp_path / "scored", qc=QcRules(**(vars(NO_QC) | {"doublets": "score"})))
    assert of_file(tmp_path / "out", path.name)["doublet_score"].tolist() == [0, 0.125, 0.25, 0.375]
    scored = of_file(tmp_path / "scored", path.name)
    assert scored["orig_doublet_score"].tolist() == [0, 0.125, 0.25, 0.375]
    assert scored["doublet_score"].isna().all()


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, process: Process) -> None:
    with pytest.raises(ConfigError, match=r"qc\.doublets='yes' must be one of none, score, drop"):
        QcRules(doublets="yes")
    with pytest.raises(ConfigError, match=r"seed=-1 must be from 0 to 2\^32 - 1"):
        process([], qc=QcRules(doublets="score"), seed=-1)
    monkeypatch.setattr(settings_qc, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs scikit-image: pip install 'scvae-data\[doublets\]'"):
        QcRules(doublets="score")


def test_the_setting_is_part_of_what_a_directory_is(raw: list[Path], process: Process, tmp_path: Path) -> None:
    process(raw, **settings("none"))
    assert "doublet_score" not in open_index(tmp_path / "out").obs_columns
    with pytest.raises(ConfigError, match="other settings"):
        process(raw, resume=True, **settings("score"))


def test_why_a_doublet_was_dropped(raw: list[Path], process: Process, tmp_path: Path) -> None:
    process(raw, **settings("drop"))
    dropped = pd.read_parquet(tmp_path / "out" / "dropped_cells.parquet")
    cell = dropped[dropped["rule"] == "doublet"].iloc[0]
    said = why(tmp_path / "out", cell["accession"], cell["barcode"])
    assert f"its doublet score is {cell['value']:.6g}, above {cell['threshold']:.6g}" in said
