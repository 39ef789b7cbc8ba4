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
from scvae_data.store import Chunking, read_json

TABLES = ["dropped_cells.parquet", "experiments.parquet", "gene_report.parquet"]
RANKING = "gene_statistics.parquet"
CANONICAL = ["chunk_0001.h5", "obs.parquet", "rows.bin", "gene_sets.bin", "gene_list.json", *TABLES, RANKING]
RECORDS = ["processing_config.json", "chunk_summary.json"]
# One cell of each file has a single gene and is dropped.
SETTINGS: dict[str, Any] = {
    "qc": QcRules(min_genes=2, min_counts=None, max_pct_counts_mt=None, percent_top=[2]),
    "genes": HvgRules(flavor="seurat", n_top_genes=9, min_cells=1),
}
GROWN_SETTINGS: dict[str, Any] = {
    "qc": SETTINGS["qc"],
    "genes": HvgRules(flavor="seurat", n_top_genes=70, min_cells=1),
    "keep_duplicates": "first",
    "chunking": Chunking(chunk_size=3),
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


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Three raw files, the directory that got one after the other, and cells that it had already and left out."""
    import anndata as ad
    import pandas as pd

    folder = tmp_path_factory.mktemp("grown")
    paths, counts = [], position_counts(6, 90)
    for number in (1, 2, 3):
        last, counts = counts[4], position_counts(6, 90, 10 * number) % (90 + number)
        counts[0] = last if number > 1 else counts[0]
        counts[[0, 4], :3] = 0  # in genes that not all have
        counts[5] = np.arange(90) == 3
        adata = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{row}" for row in range(6)]))
        adata.obs["batch"] = [f"b{number + row % 2}" for row in range(6)]
        adata.var_names = [f"g{column}" for column in range(90)]
        paths.append(folder / f"SRX{number}.h5ad")
        adata[:, number:].copy().write_h5ad(paths[-1])
    for number, path in enumerate(paths):
        run_pipeline([path], folder / "out", append=number > 0, **GROWN_SETTINGS)
    assert open_index(folder / "out").n_obs == 5 + 4 + 4
    return paths, folder / "out"


@pytest.fixture
def grown_copy(grown: tuple[list[Path], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown[1], tmp_path / "out"))


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


@pytest.mark.parametrize(
    "names",
    [
        ["chunk_0001.h5", "gene_list.json", "rows.bin", "dropped_cells.parquet", RANKING, "processing_config.json"],
        ["chunk_0002.h5", "obs_0001.parquet", "gene_sets_0001.bin", "chunk_summary_0001.json"],
        ["rows_0001.bin", "chunk_0005.h5", "dropped_cells_0002.parquet", "processing_config_0002.json"],
    ],
)
def test_damaged_files_of_a_directory_that_has_grown(
    names: list[str], grown_copy: Path, grown: tuple[list[Path], Path]
) -> None:
    (paths, clean), before = grown, look(grown_copy)
    for name in names:
        flip(grown_copy / name)
    assert sorted(file for file, fault in verify(grown_copy, deep=True).items() if fault) == sorted(names)
    # All inputs are given: those of the damaged files are found among them.
    later = "gene_list.json" not in names
    summary = run_pipeline(paths, grown_copy, append=later, resume=True, **GROWN_SETTINGS)
    assert sorted(summary.rebuilt) == sorted(names) and summary.left_alone
    assert not any(verify(grown_copy, deep=True, against=paths).values())
    for path in clean.iterdir():
        if path.is_file() and not path.name.startswith((*RECORDS, "processing_config_", "chunk_summary_", ".")):
            assert (grown_copy / path.name).read_bytes() == path.read_bytes(), path.name
    touched = {file for file, state in look(grown_copy).items() if state != before.get(file)}
    assert {name for name in touched if name.startswith(("chunk_0", "obs", "rows", "gene_s", "gene_l"))} <= set(names)
    assert not (grown_copy / ".work").exists()
    of_chunks = read_json(grown_copy / "chunk_summary_0001.json")["chunks"]["file"]
    assert of_chunks == ["chunk_0002.h5", "chunk_0003.h5"]


def test_what_a_run_did_not_make_it_does_not_build(
    grown_copy: Path, grown: tuple[list[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    paths, _ = grown
    flip(grown_copy / "chunk_0004.h5")
    with pytest.raises(ConfigError, match=r"has grown, and this run did not make chunk_0004\.h5; scvae-data verify"):
        run_pipeline(paths[:1], grown_copy, resume=True, **GROWN_SETTINGS)
    with pytest.raises(ConfigError, match=r"made of SRX3\.h5ad, which is not among the inputs; give it as it was"):
        run_pipeline(paths[:2], grown_copy, append=True, resume=True, **GROWN_SETTINGS)
    other = shutil.copy(paths[1], grown_copy.parent / "SRX3.h5ad")
    with pytest.raises(ConfigError, match=r"made of SRX3\.h5ad, which is of other content now"):
        run_pipeline([other], grown_copy, append=True, resume=True, **GROWN_SETTINGS)
    changed = GROWN_SETTINGS | {"qc": QcRules(min_genes=1, min_counts=None, max_pct_counts_mt=None, percent_top=[2])}
    with pytest.raises(ConfigError, match="its damaged files were made with other settings; scvae-data verify"):
        run_pipeline(paths[2:], grown_copy, append=True, resume=True, **changed)
    flip(grown_copy / "chunk_0002.h5")
    assert run_pipeline(paths[1:2], grown_copy, append=True, resume=True, **GROWN_SETTINGS).rebuilt == ["chunk_0002.h5"]
    flip(grown_copy / "chunk_0000.h5")
    assert run_pipeline(paths[:1], grown_copy, resume=True, **GROWN_SETTINGS).rebuilt == ["chunk_0000.h5"]
    assert "this run did not make chunk_0004.h5" in caplog.text
    assert [file for file, fault in verify(grown_copy).items() if fault] == ["chunk_0004.h5"]
