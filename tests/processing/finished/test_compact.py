"""A directory that has grown, compacted: the bytes of one run over all files with the same genes and target sum."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.processing.finished.test_append import write_raw
from tests.support.pipeline import NO_QC, run_pipeline
from tests.support.remote import TO_ADDRESSES, Dying, content, put

from scvae_data import open_index
from scvae_data.commands.compact import beside, compact_directory
from scvae_data.commands.verify import how_to_mend, verify
from scvae_data.errors import ConfigError, DamagedFileError, RemoteError, ScvaeDataError
from scvae_data.processing.finished.unfinished import Unfinished
from scvae_data.processing.settings.genes import GeneRules, ListRules
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.remote.location import RemotePath
from scvae_data.store import Chunking, read_json

RECORDS = {
    "processing_config.json",
    "chunk_summary.json",
    "experiments.parquet",
    "gene_report.parquet",
}
# What one run sees of all files together, and what tells of the run.
OF_ONE_RUN = {
    "gene_choice", "genes_classed", "genes_lost", "experiments", "gene_report", "gene_mapping", "seconds",
    "peak_rss_bytes",
}  # fmt: skip
SOME_DROPPED = replace(NO_QC, min_counts=300)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Three files that were added one after the other, of two gene sets; normalised to the median of the first."""
    folder = tmp_path_factory.mktemp("grown")
    genes = [f"g{column}" for column in range(12)]
    raw = [write_raw(folder / "raw", number, [*genes[: 14 - number], f"new{number}"]) for number in (2, 1, 3)]
    chosen = {"normalization": Normalization(target_sum=None), "qc": SOME_DROPPED, "genes": GeneRules(min_cells=6)}
    for number, path in enumerate(raw):
        run_pipeline([path], folder / "out", **chosen, append=number > 0, overrides=["input=files"])
    return raw, folder / "out"


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name != ".lock"}


def test_the_bytes_of_one_run(grown: tuple[list[Path], Path], tmp_path: Path) -> None:
    raw, directory = grown
    before, index = bytes_of(directory), open_index(directory)
    assert len(index.generations) == 3
    said = compact_directory(directory, tmp_path / "compact")
    assert said.startswith(f"{tmp_path / 'compact'}: 20 cells in 5 chunks of one generation")
    run_pipeline(
        raw, tmp_path / "one", genes=ListRules(path=str(directory / "gene_list.json")),
        normalization=Normalization(target_sum=index.normalization["target_sum"]), qc=SOME_DROPPED,
    )  # fmt: skip
    found, wanted = bytes_of(tmp_path / "compact"), bytes_of(tmp_path / "one")
    assert found.keys() == wanted.keys()
    assert {name for name in wanted if found[name] != wanted[name]} <= RECORDS
    compact, one = (read_json(tmp_path / name / "chunk_summary.json") for name in ("compact", "one"))
    for summary in (compact, one):
        del summary["attrition"]["seconds"]
        summary["duplicates"].pop("of_directory", None)
    assert {name for name in one if compact[name] != one[name]} <= OF_ONE_RUN
    assert one["dropped_genes"]["gene"] and sum(one["attrition"]["lost"]["min_counts"])
    assert (compact["experiments"]["n"], len(compact["generations"])) == (3, 3)
    assert compact["gene_mapping"]["source_file"] == one["gene_mapping"]["source_file"]
    assert not any(verify(tmp_path / "compact", deep=True, against=raw).values())
    assert bytes_of(directory) == before


def test_damaged_files_are_built_again(grown: tuple[list[Path], Path], tmp_path: Path) -> None:
    raw, directory = grown
    target_sum, out = open_index(directory).normalization["target_sum"], tmp_path / "compact"
    compact_directory(directory, out)
    before, damaged = bytes_of(out), ["chunk_0001.h5", "chunk_summary.json", "obs.parquet", "rows.bin"]
    for name in damaged:
        (out / name).write_bytes(before[name][:-1])
    said = how_to_mend(out, damaged)
    assert f" genes=list genes.path={out}/gene_list.json normalization.target_sum={target_sum} " in said
    chosen = {
        "genes": ListRules(path=str(out / "gene_list.json")),
        "normalization": Normalization(target_sum=target_sum),
    }
    assert run_pipeline(raw, out, **chosen, qc=SOME_DROPPED, resume=True).rebuilt == damaged
    after = bytes_of(out)
    assert {name for name in before if after[name] != before[name]} <= RECORDS
    assert not any(verify(out, deep=True, against=raw).values())


def test_counts_beyond_what_is_streamed_and_many_parts(
    grown: tuple[list[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scvae_data.processing.finished import compact

    compact_directory(grown[1], tmp_path / "one")
    monkeypatch.setattr(compact, "PART_ENTRIES", 5)
    compact_directory(grown[1], tmp_path / "parts")
    monkeypatch.setattr(compact, "STREAM_MAX_COUNT", 0)
    compact_directory(grown[1], tmp_path / "whole")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


def test_what_cannot_be_compacted(grown: tuple[list[Path], Path], tmp_path: Path) -> None:
    raw, directory = grown
    run_pipeline(raw[:1], tmp_path / "alone", chunking=Chunking(4, order="source"))
    assert compact_directory(tmp_path / "alone").endswith("nothing to do")
    run_pipeline(raw[1:], tmp_path / "alone", chunking=Chunking(4, order="source"), append=True)
    with pytest.raises(ConfigError, match="is in source order, in which its generations cannot be merged"):
        compact_directory(tmp_path / "alone")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ConfigError, match="full is not empty; name another folder"):
        compact_directory(directory, tmp_path / "full")
    with pytest.raises(ConfigError, match="mine is a file; name a folder, or a new one"):
        compact_directory(directory, tmp_path / "full" / "mine")
    with pytest.raises(ConfigError, match=r"mine cannot be written: No such file.*; name another folder"):
        compact_directory(directory, Path("/proc/mine"))
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    content = np.fromfile(copy / "rows_0001.bin", np.uint8)
    content[len(content) // 3] ^= 1
    content.tofile(copy / "rows_0001.bin")
    with pytest.raises(DamagedFileError, match=r"rows_0001\.bin"):
        compact_directory(copy)
    assert not (tmp_path / "copy.compact" / "chunk_index.json").exists()
    (copy / "rows_0001.bin").write_bytes((directory / "rows_0001.bin").read_bytes())
    assert "20 cells" in compact_directory(copy)


def test_stores_hold_the_same(grown: tuple[list[Path], Path], store: RemotePath, tmp_path: Path) -> None:
    _, directory = grown
    compact_directory(directory, tmp_path / "compact")
    wanted, before = bytes_of(tmp_path / "compact"), content(put(directory, store))
    there = store.parent / "set.compact"
    assert compact_directory(store).startswith(f"{there}: 20 cells in 5 chunks of one generation; {store} is as it was")
    compact_directory(store, tmp_path / "here")
    compact_directory(directory, store.parent / "other")
    assert content(there) == content(store.parent / "other") == bytes_of(tmp_path / "here") == wanted
    assert content(store) == before and not any(verify(there, deep=True).values())
    assert not list((tmp_path / "data/scratch").glob("*/[!.]*")) and not list(tmp_path.glob("**/.[cw]*ing"))
    with pytest.raises(ConfigError, match=f"{there} is not empty; name another folder"):
        compact_directory(store)
    with pytest.raises(ConfigError, match="here is not empty"):  # finished by another one since it was looked at
        Unfinished(open_index(directory), tmp_path / "here", tmp_path / "here").begin()
    assert bytes_of(tmp_path / "here") == wanted
    with pytest.raises(ConfigError, match="memory://bucket is a whole bucket; name the TARGET"):
        beside(RemotePath("memory://bucket"))


def test_interrupted_anywhere_it_goes_on(
    grown: tuple[list[Path], Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scvae_data.processing.finished import compact

    _, directory = grown
    compact_directory(directory, tmp_path / "compact")
    made, counts_of = list[int](), compact.counts_of
    monkeypatch.setattr(compact, "counts_of", lambda *cells: made.append(1) or counts_of(*cells))
    n_tries, dying = 0, Dying(monkeypatch, 0, TO_ADDRESSES)
    for n_tries in range(100):
        dying.left = n_tries
        with dying, suppress(RemoteError):
            compact_directory(directory, store)
            break
        assert "chunk_index.json" not in content(store)
    assert n_tries > 10 and len(made) <= 2 * 5  # chunks that stand are not made again
    assert content(store) == bytes_of(tmp_path / "compact")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (KeyboardInterrupt(), "^the same command goes on"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "once the disk has room and works, the same command continues$",
        ),
    ],
    ids=["interrupted", "full"],
)
def test_who_is_stopped_is_told_how_it_goes_on(
    fault: BaseException, message: str, grown: tuple[list[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, ScvaeDataError), match=message):
        patch.setattr("scvae_data.processing.finished.compact.write_records", stop)
        compact_directory(grown[1], tmp_path / "new")
    assert "20 cells" in compact_directory(grown[1], tmp_path / "new")


def test_a_try_with_other_cells_is_cleared_and_said(
    grown: tuple[list[Path], Path], store: RemotePath, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    raw, directory = grown
    run_pipeline(raw[:1], tmp_path / "other")
    run_pipeline(raw[1:], tmp_path / "other", append=True)
    for target in (store, tmp_path / "new"):
        with monkeypatch.context() as patch, pytest.raises(RemoteError):
            patch.setattr("scvae_data.processing.finished.compact.write_records", gone)
            compact_directory(tmp_path / "other", target)
        names = content(target).keys()
        assert "chunk_0004.h5" in names and "chunk_index.json" not in names
        compact_directory(directory, target)
        assert f"{target}: removed what a try with other cells left: chunk_0000.h5" in caplog.text
        assert open_index(target).gene_list_hash == open_index(directory).gene_list_hash
        assert not any(verify(target, deep=True).values())


def gone(*_: object) -> None:
    raise RemoteError("gone")
