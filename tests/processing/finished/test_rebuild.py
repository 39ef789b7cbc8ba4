"""A damaged file of a finished directory is named by `verify`, and only it is built again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.pipeline import position_counts, run_pipeline

from scvae_data import open_index
from scvae_data.commands.verify import verify
from scvae_data.errors import ConfigError, StoreError
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.settings.genes import HvgRules
from scvae_data.processing.settings.qc import QcRules

TABLES = ["dropped_cells.parquet", "experiments.parquet", "gene_report.parquet"]
RANKING = "gene_statistics.parquet"
CANONICAL = ["chunk_0001.h5", "obs.parquet", "rows.bin", "gene_sets.bin", "gene_list.json", *TABLES, RANKING]
RECORDS = ["processing_config.json", "chunk_summary.json"]
# One cell of each file has a single gene and is dropped.
SETTINGS: dict[str, Any] = {
    "qc": QcRules(min_genes=2, min_counts=None, max_pct_counts_mt=None, percent_top=[2]),
    "genes": HvgRules(flavor="seurat", n_top_genes=9, min_cells=1),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Two raw files and the directory made of them, for copies of it to be damaged."""
    import anndata as ad
    import pandas as pd

    folder = tmp_path_factory.mktemp("finished")
    paths = []
    for number in (1, 2):
        counts = position_counts(6, 12, 10 * number) % 97
        counts[5] = np.arange(12) == 3
        adata = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{row}" for row in range(6)]))
        adata.var_names = [f"g{column}" for column in range(12)]
        paths.append(folder / f"SRX{number}.h5ad")
        adata.write_h5ad(paths[-1])
    run_pipeline(paths, folder / "out", **SETTINGS)
    return paths, folder / "out"


@pytest.fixture
def copy(finished: tuple[list[Path], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "out"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def look(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, flip) for name in CANONICAL + RECORDS), ("chunk_0001.h5", Path.unlink), ("obs.parquet", cut)],
)
def test_only_the_damaged_file_is_built_again(
    name: str, damage: Callable[[Path], None], copy: Path, finished: tuple[list[Path], Path]
) -> None:
    paths, clean = finished
    damage(copy / name)
    faults = verify(copy, deep=True)
    assert [file for file, fault in faults.items() if fault] == [name]
    before = look(copy)
    summary = run_pipeline(paths, copy, resume=True, **SETTINGS)
    after = look(copy)
    # The tables are not needed to know what a cell is: they are written together with the summary that lists them, and
    # that of the ranking with every choice of genes.
    touched = {file for file in after if after[file] != before.get(file)} - {RANKING, ".survey"}
    together = {*TABLES, "chunk_summary.json"}
    assert touched <= (together if name in together else {name})
    assert not any(verify(copy, deep=True, against=paths).values())
    assert f"{name} built again" in str(summary)
    for file in CANONICAL:
        assert (copy / file).read_bytes() == (clean / file).read_bytes()
    assert not (copy / ".work").exists()


@pytest.mark.parametrize("damage", [flip, cut], ids=["flip", "cut"])
def test_a_damaged_index_is_built_again_with_everything_it_lists(
    damage: Callable[[Path], None], copy: Path, finished: tuple[list[Path], Path]
) -> None:
    paths, clean = finished
    damage(copy / "chunk_index.json")
    assert [file for file, fault in verify(copy).items() if fault] == ["chunk_index.json"]
    run_pipeline(paths, copy, resume=True, **SETTINGS)
    assert (copy / "chunk_index.json").read_bytes() == (clean / "chunk_index.json").read_bytes()
    assert not any(verify(copy, deep=True).values())


def test_several_files_at_once_with_workers(copy: Path, finished: tuple[list[Path], Path]) -> None:
    paths, clean = finished
    for name in ("chunk_0000.h5", "chunk_0002.h5", "obs.parquet"):
        flip(copy / name)
    run_pipeline(paths, copy, resume=True, engine=LocalEngine(2), **SETTINGS)
    for name in ("chunk_0000.h5", "chunk_0001.h5", "chunk_0002.h5", "obs.parquet", "chunk_index.json"):
        assert (copy / name).read_bytes() == (clean / name).read_bytes()


def test_other_settings_do_not_rebuild(copy: Path, finished: tuple[list[Path], Path]) -> None:
    (copy / "chunk_0001.h5").unlink()
    with pytest.raises(ConfigError, match="made with other settings"):
        run_pipeline(finished[0], copy, resume=True, **SETTINGS, seed=1)
    (copy / "processing_config.json").unlink()
    with pytest.raises(ConfigError, match="made with other inputs or settings; overwrite=true"):
        run_pipeline(finished[0], copy, resume=True, **SETTINGS, seed=1)
    (copy / "chunk_index.json").write_text("{}")
    with pytest.raises(ConfigError, match="that no file tells the settings of; overwrite=true"):
        run_pipeline(finished[0], copy, resume=True, **SETTINGS)


def test_other_bytes_than_listed_are_refused(
    copy: Path, finished: tuple[list[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "chunk_0001.h5").unlink()
    monkeypatch.setattr(
        "scvae_data.processing.write.chunks.chunk_uns", lambda decision: {"scvae_data": {"format_version": 1}}
    )
    with pytest.raises(StoreError, match=r"chunk_0001\.h5: built again it has other bytes .* overwrite=true"):
        run_pipeline(finished[0], copy, resume=True, **SETTINGS)
    assert [file for file, fault in verify(copy).items() if fault] == ["chunk_0001.h5"]


def test_a_chunk_that_was_damaged_before_the_run_ended_is_written_again(
    finished: tuple[list[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("scvae_data.processing.pipeline.publish", stop)
        run_pipeline(finished[0], tmp_path / "new", **SETTINGS)
    flip(tmp_path / "new" / "chunk_0001.h5")
    run_pipeline(finished[0], tmp_path / "new", resume=True, **SETTINGS)
    assert open_index(tmp_path / "new").content_hash == open_index(finished[1]).content_hash
    assert not any(verify(tmp_path / "new", deep=True).values())
