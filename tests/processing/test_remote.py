"""A directory in a store has the bytes of one on this machine, and is there as a whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import fsspec
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.io import mmwrite
from tests.support.gcs import google_store
from tests.support.pipeline import NO_QC, position_counts, run_pipeline, settings_for
from tests.support.remote import TO_ADDRESSES, Dying, content, put
from tests.support.s3 import FAULTS, Proxy, every, lead_to, s3_server
from tests.support.stores import write_zarr

from scvae_data import ChunkedDataset, cli
from scvae_data.commands.compact import compact_directory
from scvae_data.commands.verify import how_to_mend, verify
from scvae_data.errors import ConfigError, MissingIndexError, RemoteError, ScvaeDataError
from scvae_data.processing import pipeline
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.finished.report import keep_report
from scvae_data.processing.run import directory
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.settings.inputs import FileInput, ManifestInput
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.shards import decide_for_shards, merge, run_shard
from scvae_data.processing.survey import corpus, room
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.processing.write import chunks as write_chunks
from scvae_data.remote import objects
from scvae_data.remote.disk_cache import DiskCache
from scvae_data.remote.location import RemotePath
from scvae_data.store import INDEX_FILE, Chunking, open_index
from scvae_data.store.pages import PAGES, QC_REPORT_FILE

Write = Callable[..., Path]
# They tell of times and places.
OF_THE_RUN = re.compile(r"(processing_config|chunk_summary)(_\d+)?\.json")


@pytest.fixture
def files(write_raw: Write) -> list[Path]:
    return [
        write_raw(f"SRX{number}.h5ad", position_counts(5 + number, 3, 10 * number), ["A", "B", "C"])
        for number in (1, 2)
    ]


def of_cells(place: Path | RemotePath) -> dict[str, bytes]:
    return {name: what for name, what in content(place).items() if not OF_THE_RUN.fullmatch(name)}


def test_it_has_the_bytes_of_a_local_one(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, tmp_path / "local")
    summary = run_pipeline(files, store)
    assert of_cells(store) == of_cells(tmp_path / "local")
    assert content(store).keys() == content(tmp_path / "local").keys()
    assert str(summary.processed_dir) == str(store) and str(store) in str(summary)
    assert not any(verify(store, deep=True).values())
    assert not list((tmp_path / "data/scratch").glob("*/[!.]*")) and not list((tmp_path / "data").glob("**/.work"))
    assert not list(tmp_path.glob("*:*"))


def test_an_interrupted_run_is_no_dataset_and_goes_on(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files, tmp_path / "local")
    for n in range(6):
        with Dying(monkeypatch, n), pytest.raises(ScvaeDataError, match="gone"):
            run_pipeline(files, store, resume=True)
        assert INDEX_FILE not in content(store)
    with pytest.raises(ConfigError, match="holds an unfinished run"):
        run_pipeline(files, store)
    sent: list[str] = []
    put = write_chunks.upload
    monkeypatch.setattr(write_chunks, "upload", lambda source, path: sent.append(path.name) or put(source, path))
    run_pipeline(files, store, resume=True)
    assert sent == []  # chunks that are there are not sent again
    assert of_cells(store) == of_cells(tmp_path / "local")


def test_a_finished_one_is_left_alone_and_mended(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, store)
    before = content(store)
    with pytest.raises(ConfigError, match=f"{store} already holds a dataset"):
        run_pipeline(files, store)
    assert run_pipeline(files, store, resume=True).left_alone
    assert content(store) == before
    chunk, genes = open_index(store).chunks[1].file, "gene_list.json"
    for name in (chunk, genes):
        fsspec.filesystem("memory").pipe_file((store / name).url, before[name][:-1])
    assert run_pipeline(files, store, resume=True).rebuilt == [chunk, genes]
    assert content(store) == before


def test_another_one_takes_its_place(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, store)
    run_pipeline(files[:1], tmp_path / "local")
    run_pipeline(files[:1], store, overwrite=True)
    assert of_cells(store) == of_cells(tmp_path / "local")


def test_a_dry_run_says_what_would_stop_it(files: list[Path], store: RemotePath) -> None:
    assert not dry_run(settings_for(files), SerialEngine(), store).stops
    assert objects.find(store) == {}
    run_pipeline(files, store)
    assert "already holds a dataset" in dry_run(settings_for(files), SerialEngine(), store).stops


@pytest.fixture
def inputs(files: list[Path], store: RemotePath) -> RemotePath:
    """The files in the store, in folders that tell nothing, beside what is none."""
    place = store.parent / "raw"
    for path in files:
        objects.upload(path, place / path.name)
    objects.upload(files[0], place / ".hidden.h5ad")
    return place


def test_inputs_in_a_store_give_the_same_bytes(
    files: list[Path], inputs: RemotePath, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_pipeline(files, tmp_path / "local")
    for number, paths in enumerate(([inputs], [inputs / "SRX*.h5ad"], [inputs / path.name for path in files])):
        summary = run_pipeline(paths, tmp_path / f"out{number}")
        assert summary.n_files == 2
        assert of_cells(tmp_path / f"out{number}") == of_cells(tmp_path / "local")
    assert "left out: 1 hidden file (.hidden.h5ad)" in caplog.text
    assert not list(tmp_path.glob("*:*"))


def test_what_lies_beside_the_inputs_of_a_folder_in_a_store_is_named(
    store: RemotePath, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = store.parent / "mixed"
    (tmp_path / "x").write_text("x")
    for name in ("a.h5ad", "s/b.h5", "s/c.zarr/.zgroup", "s/c.zarr/X/0.h5", "d/chunk_index.json", "d/chunk_0000.h5"):
        objects.upload(tmp_path / "x", place / name)
    assert [file.path for file in FileInput(paths=str(place)).files()] == [place / "a.h5ad"]
    (line,) = caplog.messages
    assert "the 1 H5AD file below it; left out there: 1 .h5 file and 1 .zarr file; to take" in line
    assert line.endswith(f"""'["{place}","{place}/s/*.h5","{place}/s/*.zarr"]'""")
    globs = eval(line.rpartition("input.paths=")[2].strip("'"))
    found = FileInput(paths=globs).files()
    assert [file.path for file in found] == [place / name for name in ("a.h5ad", "s/b.h5", "s/c.zarr")]
    caplog.clear()
    objects.upload(tmp_path / "x", place / "matrix.mtx")
    assert [file.path for file in FileInput(paths=str(place)).files()] == [place]
    assert "stands for the matrix in it; left out there: 1 .h5 file and 1 .h5ad file and 1 .zarr file" in caplog.text


def test_a_manifest_names_files_of_both(files: list[Path], inputs: RemotePath, tmp_path: Path) -> None:
    manifest = tmp_path / "samples.csv"
    manifest.write_text(f"path,srx_accession,tissue\n{inputs}/SRX1.h5ad,SRX1,lung\nraw/SRX2.h5ad,SRX2,skin\n")
    run_pipeline([], tmp_path / "out", input=ManifestInput(manifest=str(manifest)))
    obs = open_index(tmp_path / "out").obs(["SRX_accession", "tissue"])
    assert set(obs.itertuples(index=False, name=None)) == {("SRX1", "lung"), ("SRX2", "skin")}


def test_folders_of_objects_are_inputs(store: RemotePath, tmp_path: Path) -> None:
    place, cells = store.parent / "folders", ad.AnnData(sp.csr_matrix(position_counts(5, 3).astype(np.float32)))
    cells.var_names, cells.obs_names = ["A", "B", "C"], [f"cell{number}" for number in range(5)]
    write_zarr(cells, tmp_path / "raw/SRX1.zarr", 2)
    (tmp_path / "raw/SRX2").mkdir()
    for name, lines in (("features.tsv", ["A\tA", "B\tB", "C\tC"]), ("barcodes.tsv", cells.obs_names)):
        (tmp_path / "raw/SRX2" / name).write_text("".join(f"{line}\n" for line in lines))
    with (tmp_path / "raw/SRX2/matrix.mtx").open("wb") as file:
        mmwrite(file, cells.X.T.astype(np.int64))
    for name in ("features.tsv", "barcodes.tsv", "matrix.mtx"):
        (tmp_path / "raw" / f"SRX3_{name}").write_bytes((tmp_path / "raw/SRX2" / name).read_bytes())
    put(tmp_path / "raw", place)
    names = ("SRX1.zarr", "SRX2", "SRX3_matrix.mtx")
    run_pipeline([tmp_path / "raw" / name for name in names], tmp_path / "local")
    run_pipeline([place / name for name in names], tmp_path / "out")
    assert of_cells(tmp_path / "out") == of_cells(tmp_path / "local")


def test_copies_stay_within_their_bound_and_go(
    files: list[Path], inputs: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, largest = [0], max(path.stat().st_size for path in files)
    reserve = DiskCache._reserve

    def watched(cache: DiskCache, *arguments: Any) -> None:
        reserve(cache, *arguments)
        most.append(cache.used_bytes())

    monkeypatch.setattr(DiskCache, "_reserve", watched)
    room = largest * 1.2 / 1e9
    run_pipeline([], tmp_path / "out", input=FileInput(paths=[str(inputs)], scratch_gb=room))
    assert largest <= max(most) <= largest * 1.2
    assert not list(tmp_path.glob("out/.work"))
    with pytest.raises(ScvaeDataError, match=r"input.scratch_gb=1e-06 is less than the .* GB of one file"):
        run_pipeline([], tmp_path / "other", input=FileInput(paths=[str(inputs)], scratch_gb=1e-6))


def test_an_object_that_changes_after_the_survey_is_refused(
    files: list[Path], inputs: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = pipeline.survey

    def then_changed(context: Any) -> Any:
        surveyed = survey(context)
        objects.upload(files[1], inputs / files[0].name)
        return surveyed

    monkeypatch.setattr(pipeline, "survey", then_changed)
    with pytest.raises(ScvaeDataError, match=r"SRX1.h5ad: was changed since its headers were read"):
        run_pipeline([inputs], tmp_path / "out")
    assert not (tmp_path / "out" / INDEX_FILE).exists()


def test_a_run_that_does_not_fit_is_refused_before_it_reads(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = dry_run(settings_for(files), SerialEngine(), tmp_path / "out")
    monkeypatch.setattr(room, "free_bytes", lambda path: needed.spool_bytes + 1)
    with pytest.raises(ConfigError, match=r"/out: the run needs some .* are free; .* go on with check_disk=false"):
        run_pipeline(files, tmp_path / "out")
    told = dry_run(settings_for(files), SerialEngine(), tmp_path / "out")
    assert "check_disk=false" in told.stops
    assert not dry_run(settings_for(files), SerialEngine(), tmp_path / "out", resume=True, check_disk=False).stops
    assert run_pipeline(files, tmp_path / "out", resume=True, check_disk=False).n_obs == 13
    run_pipeline(files, store)  # whose chunks do not stay here
    found = dry_run(settings_for(files), SerialEngine(), store, overwrite=True)
    assert "in the store, and" in str(found) and found.goes_away


def test_what_a_survey_found_holds_until_an_object_changes(
    files: list[Path], inputs: RemotePath, store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files, tmp_path / "local")
    seen: list[str] = []
    opened = corpus.survey_file
    monkeypatch.setattr(corpus, "survey_file", lambda file, *rest: seen.append(file.path.name) or opened(file, *rest))
    found = dry_run(settings_for([inputs]), SerialEngine(), store)
    assert seen == ["SRX1.h5ad", "SRX2.h5ad"]
    (made,) = Path("data/scratch").iterdir()
    assert found.kept == str(made / ".survey") and [path.name for path in made.iterdir()] == [".survey"]
    run_pipeline([inputs], store)
    assert len(seen) == 2 and of_cells(store) == of_cells(tmp_path / "local")
    objects.upload(files[0], inputs / files[0].name)
    assert run_pipeline([inputs], store, resume=True).left_alone
    assert seen[2:] == ["SRX1.h5ad"]


def test_shards_and_appended_cells_come_from_a_store(files: list[Path], inputs: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, tmp_path / "local")
    settings, out = settings_for([inputs]), tmp_path / "shards"
    for number in (2, 1):
        run_shard(settings, SerialEngine(), out, Shard(number, 2))
    merge(settings, SerialEngine(), out)
    assert of_cells(out) == of_cells(tmp_path / "local")
    for place, paths in ((tmp_path / "grown", files), (tmp_path / "again", [inputs / path.name for path in files])):
        run_pipeline(paths[:1], place)
        run_pipeline(paths[1:], place, append=True)
        assert not (place / ".work").exists()
    assert of_cells(tmp_path / "again") == of_cells(tmp_path / "grown")


def grown_here(files: list[Path], place: Path) -> Path:
    run_pipeline(files[:1], place)
    run_pipeline(files[1:], place, append=True)
    return place


def test_genes_that_new_cells_lack_are_those_of_the_directory(
    files: list[Path], store: RemotePath, write_raw: Write, caplog: pytest.LogCaptureFixture
) -> None:
    run_pipeline(files[:1], store)
    run_pipeline([write_raw("SRX3.h5ad", position_counts(4, 2, 30), ["A", "B"])], store, append=True)
    assert f"1 of the 3 genes of {store}/gene_list.json are in no file" in caplog.text


def test_one_in_a_store_grows(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files[:1], store)
    before, opened = content(store), open_index(store)
    summary = run_pipeline(files, store, append=True)
    assert summary.grown == (13, 4) and str(store) in str(summary)
    after = content(store)
    assert of_cells(store) == of_cells(grown_here(files, tmp_path / "local"))
    assert after.keys() == content(tmp_path / "local").keys()
    assert [name for name, what in before.items() if after[name] != what] == [INDEX_FILE]
    cells = open_index(store).obs()["total_counts"]
    assert opened.obs()["total_counts"].equals(cells[: opened.n_obs])  # whoever has it open goes on
    assert not any(verify(store, deep=True).values())
    assert not list((tmp_path / "data/scratch").glob("*/[!.]*")) and not list((tmp_path / "data").glob("**/.work"))
    again = run_pipeline(files, store, append=True)
    assert again.left_alone and f"{store} has all 2 inputs already, nothing to add" in str(again)
    assert not list((tmp_path / "data").glob("**/.work"))
    with pytest.raises(ScvaeDataError, match=f"no dataset at {store}/none"):
        run_pipeline(files, store / "none", append=True)


def test_its_report_lies_beside_its_chunks(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files[:1], store)
    page = store / QC_REPORT_FILE
    assert keep_report(store, changed=True) == page
    pages, faults = {name: what for name, what in content(store).items() if name in PAGES}, verify(store)
    assert pages.keys() == {*PAGES} and not any(faults[name] for name in PAGES)
    fsspec.filesystem("memory").pipe_file(page.url, pages[QC_REPORT_FILE].replace(b"6 cells", b"7 cells"))
    damaged = [name for name, fault in verify(store).items() if fault]
    assert damaged == [QC_REPORT_FILE]
    assert how_to_mend(store, damaged).endswith(f"\n  scvae-data report {store}")
    for more in ([], ["--out", str(tmp_path / "here")]):
        monkeypatch.setattr("sys.argv", ["scvae-data", "report", str(store), *more])
        cli.main()
    assert content(store).items() >= pages.items()
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == pages
    run_pipeline(files[1:], store, append=True)
    assert not content(store).keys() & {*PAGES}
    keep_report(store, changed=True)
    assert b"13 cells of 2 experiments in, 13 kept" in content(store)[QC_REPORT_FILE]
    run_pipeline(files[1:], store, overwrite=True)
    assert not content(store).keys() & {*PAGES}
    assert not list(tmp_path.glob("*:*"))


def test_an_interrupted_append_has_changed_nothing_and_goes_on(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files[:1], store)
    before, n_sent = content(store), 0
    with monkeypatch.context() as patch:
        dying = Dying(patch, 0, TO_ADDRESSES)
        for n_sent in range(100):
            dying.left = n_sent
            with dying, suppress(RemoteError):
                summary = run_pipeline(files[1:], store, append=True)
                break
            assert before.items() <= content(store).items()
    assert n_sent == len(content(store)) - len(before) + 2  # all that is new, the index, and who writes
    assert str(summary).endswith(
        "/set: 7 cells in 2 chunks, made by a run that was interrupted, are added; together 13 cells in 4 chunks"
    )
    assert of_cells(store) == of_cells(grown_here(files, tmp_path / "local"))
    assert not any(verify(store, deep=True).values())


@pytest.fixture
def third(write_raw: Write) -> Path:
    return write_raw("SRX3.h5ad", position_counts(4, 3, 30), ["A", "B", "C"])


def meanwhile(monkeypatch: pytest.MonkeyPatch, stage: str, elsewhere: Callable[[], object]) -> None:
    """Another machine, whose scratch folder is another one, does something before a stage is begun here."""
    begin = getattr(pipeline, stage)

    def late(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, stage, begin)
            patch.chdir(Path("raw"))
            elsewhere()
        return begin(*arguments)

    monkeypatch.setattr(pipeline, stage, late)


@pytest.mark.parametrize("how", ["overwrite", "append"])
def test_of_two_machines_one_writes(
    how: str, files: list[Path], third: Path, store: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files[:1], store)

    def second() -> None:
        told = rf"^{store} is being written by \S+ in /.*/data/scratch/set-\S+ since .*; .* remove {store}/\.writing$"
        before = content(store)
        with pytest.raises(ConfigError, match=told):
            run_pipeline([third], store, **{how: True})
        assert content(store) == before

    meanwhile(monkeypatch, "write", second)
    run_pipeline(files[1:], store, **{how: True})
    assert open_index(store).n_obs == (7 if how == "overwrite" else 13)
    assert not any(verify(store, deep=True).values()) and ".writing" not in content(store)


def test_a_claim_that_a_killed_run_left_is_its_own(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ScvaeDataError, match="gone"):
        patch.setattr(directory, "let_go", lambda *_: None)
        with Dying(patch, 2):
            run_pipeline(files, store)
    assert ".writing" in content(store)
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="is being written by"):
        patch.chdir(tmp_path / "raw")
        run_pipeline(files, store, overwrite=True)
    assert not list((tmp_path / "raw").glob("**/.writing"))
    run_pipeline(files, store, resume=True)
    assert ".writing" not in content(store) and not list((tmp_path / "data").glob("**/.writing"))


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_what_one_machine_began_another_one_takes_over(
    how: str, files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files[:1], tmp_path / "local")
    with Dying(monkeypatch, 4), pytest.raises(ScvaeDataError, match="gone"):
        run_pipeline(files, store, chunking=Chunking(chunk_size=2))
    objects.upload(files[0], store / "dropped_cells.parquet")  # as if the tables were being sent
    objects.upload(files[0], store / "notes.txt")
    monkeypatch.chdir(tmp_path / "raw")
    with pytest.raises(MissingIndexError, match=f"^{store} is unfinished, .* resume=true$"):
        open_index(store)
    with pytest.raises(ConfigError, match="holds an unfinished run; resume=true continues it, overwrite=true starts"):
        run_pipeline(files[:1], store)
    run_pipeline(files[:1], store, **{how: True})
    assert content(store).pop("notes.txt") == files[0].read_bytes()
    assert content(store).keys() - {"notes.txt"} == content(tmp_path / "local").keys()
    assert not any(verify(store, deep=True).values())


def test_what_is_of_no_run_is_left_alone(files: list[Path], store: RemotePath) -> None:
    objects.upload(files[0], store / "chunk_0000.h5")
    told = r"has neither chunk_index\.json nor \.unfinished, so chunk_0000\.h5 may be of others"
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=told):
            run_pipeline(files, store, **how)
    assert content(store) == {"chunk_0000.h5": files[0].read_bytes()}
    objects.delete(store / "chunk_0000.h5")
    assert run_pipeline(files, store).n_obs == 13


def test_an_append_to_what_another_machine_changes_is_refused(
    files: list[Path], third: Path, store: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files[:1], store)

    def second() -> None:
        objects.delete(store / ".writing")  # as if the first was gone
        run_pipeline([third], store, append=True)

    meanwhile(monkeypatch, "add_part", second)
    with pytest.raises(ConfigError, match=f"{store} was changed by another machine while new cells were made"):
        run_pipeline(files[1:], store, append=True)
    assert open_index(store).n_obs == 10 and not any(verify(store, deep=True).values())


def test_shards_write_into_a_store(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, tmp_path / "local")
    settings, engine = settings_for(files), SerialEngine()
    unseen = r"no shard has begun \(all must see .*/\.work: paths\.scratch_dir\); run .* with shard=1/N to N/N first"
    with pytest.raises(ConfigError, match=f"{store}: {unseen}"):
        merge(settings, engine, store)
    assert run_shard(settings, engine, store, Shard(2, 2)).startswith("shard 2/2: scanned 1 of 2 files")
    with pytest.raises(ScvaeDataError, match=r"1 of 2 shards have not scanned their files: 1/2 \(all must see "):
        merge(settings, engine, store)
    run_shard(settings, engine, store, Shard(1, 2))
    assert [*content(store)] == [".writing"]
    assert decide_for_shards(settings, engine, store).startswith("decided 4 chunks")
    run_shard(settings, engine, store, Shard(1, 2))
    assert [*content(store)] == [".unfinished", ".writing", "chunk_0000.h5", "chunk_0002.h5"]
    before = objects.find(store)
    del before[store / ".unfinished"], before[store / ".writing"]
    summary = merge(settings, engine, store)
    assert str(store) in str(summary) and of_cells(store) == of_cells(tmp_path / "local")
    assert objects.find(store).items() >= before.items()  # what a shard has sent is not sent again
    assert not list((tmp_path / "data").glob("**/.work")) and not list(tmp_path.glob("*:*"))
    with pytest.raises(ConfigError, match=f"{store} already holds a dataset; choose another paths.processed_dir"):
        run_shard(settings, engine, store, Shard(1, 2))


def test_one_that_has_grown_is_read_and_mended(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    out = grown_here(files, tmp_path / "grown")
    put(out, store)
    assert not any(verify(store, deep=True).values()) and len(verify(store)) == len(verify(out))
    assert open_index(store).obs().equals(open_index(out).obs())
    assert run_pipeline(files, store, resume=True).left_alone
    damaged = ["chunk_0002.h5", "chunk_summary_0001.json", "gene_sets_0001.bin", "rows_0001.bin"]
    for name in damaged:
        fsspec.filesystem("memory").pipe_file((store / name).url, b"?")
    with pytest.raises(ConfigError, match=r"has grown, and this run did not make chunk_0002\.h5, chunk_summary_0001"):
        run_pipeline(files, store, resume=True)
    assert run_pipeline(files, store, append=True, resume=True).rebuilt == damaged
    assert of_cells(out).items() <= of_cells(store).items() and not any(verify(store, deep=True).values())
    assert not list((tmp_path / "data").glob("**/.work"))


def test_chunks_in_a_store_are_inputs(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files[:1], tmp_path / "a")
    run_pipeline(files[1:], tmp_path / "b")
    for name in "ab":
        put(tmp_path / name, store / name)
    chosen = {"chunking": Chunking(chunk_size=5), "qc": replace(NO_QC, min_counts=1)}
    local = DatasetInput(paths=[str(tmp_path / name) for name in "ab"], where="total_counts > 3000")
    run_pipeline([], tmp_path / "local", input=local, **chosen)
    for number, paths in enumerate(([store / "a", store / "b"], [tmp_path / "a", store / "b"])):
        given = DatasetInput(paths=[str(path) for path in paths], where="total_counts > 3000")
        summary = run_pipeline([], store / f"out{number}", input=given, **chosen)
        assert 0 < summary.n_obs < summary.n_obs_in == 13
        assert counts_of(store / f"out{number}").equals(counts_of(tmp_path / "local"))
    assert of_cells(store / "out0") == of_cells(tmp_path / "local")
    objects.upload(tmp_path / "a/chunk_0001.h5", store / "b/chunk_0001.h5")
    told = (
        f"{store}/b/chunk_0001.h5: is not what the index of its directory lists; mend it: scvae-data verify {store}/b"
    )
    with pytest.raises(ScvaeDataError, match=told):
        run_pipeline([], tmp_path / "none", input=DatasetInput(paths=f"{store}/b"))
    with pytest.raises(ConfigError, match=f"input.paths names {store}/b more than once"):
        DatasetInput(paths=[f"{store}/b", f"{store}/b/"]).files()
    with pytest.raises(ConfigError, match=f"input.paths: no dataset at {store}/c"):
        DatasetInput(paths=f"{store}/c").files()


def counts_of(directory: Path | RemotePath) -> pd.DataFrame:
    adata = ChunkedDataset(directory).to_anndata()
    return pd.DataFrame(adata.X.toarray(), index=adata.obs_names, columns=adata.var_names)


def test_tables_of_cells_and_the_summary_are_mended_together(files: list[Path], store: RemotePath) -> None:
    run_pipeline(files, store)
    before = content(store)
    damaged = ["chunk_summary.json", "gene_sets.bin", "obs.parquet", "rows.bin"]
    for name in damaged:
        fsspec.filesystem("memory").pipe_file((store / name).url, before[name][:-1])
    assert run_pipeline(files, store, resume=True).rebuilt == damaged
    assert of_cells(store) == {name: what for name, what in before.items() if not OF_THE_RUN.fullmatch(name)}


def test_what_is_not_there_is_named(inputs: RemotePath, tmp_path: Path) -> None:
    with pytest.raises(ScvaeDataError, match=f"{inputs}/none.h5ad: there is no such object or folder"):
        run_pipeline([inputs / "none.h5ad"], tmp_path / "out")
    with pytest.raises(ConfigError, match="none\\* matches nothing"):
        run_pipeline([inputs / "none*"], tmp_path / "other")


def test_a_damaged_input_is_called_by_its_address(files: list[Path], inputs: RemotePath, tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(files[0].read_bytes()[:2000])
    objects.upload(tmp_path / "half", inputs / files[0].name)
    with pytest.raises(ScvaeDataError, match=f"{inputs}/SRX1.h5ad: .*cut short"):
        run_pipeline([inputs / files[0].name], tmp_path / "out")


def test_a_store_that_is_gone_stops_the_run(
    inputs: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: RemotePath, *_: object) -> bytes:
        raise RemoteError(f"{path}: no network")

    monkeypatch.setattr(objects, "read", gone)
    with pytest.raises(RemoteError, match="no network"):
        run_pipeline([inputs], tmp_path / "out", max_failed_fraction=1.0)


@pytest.mark.services
def test_a_store_of_google(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = grown_here(files, tmp_path / "local")
    with google_store(monkeypatch) as bucket:
        raw, store = put(files[0].parent, bucket / "raw"), bucket / "set"
        run_pipeline([raw / files[0].name], store)
        run_pipeline([raw], store, append=True)
        assert of_cells(store) == of_cells(local) and content(store).keys() == content(local).keys()
        assert not any(verify(store, deep=True, against=[raw]).values())
        assert counts_of(store).equals(counts_of(local))
        compact_directory(store)
        compact_directory(local)
        assert of_cells(bucket / "set.compact") == of_cells(tmp_path / "local.compact")


@pytest.mark.services
def test_faults_of_a_network_are_retried_or_refused(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_pipeline(files, tmp_path / "local")
    with s3_server() as port:
        lead_to(port, monkeypatch)
        for path in files:
            objects.upload(path, RemotePath("s3://data/raw") / path.name)
        injected: list[str] = []
        for number, method in enumerate((b"GET ", b"PUT ", b"HEAD ")):
            proxy = Proxy(port, every(2, of=method))
            lead_to(proxy.port, monkeypatch)
            target = RemotePath(f"s3://data/set{number}")
            run_pipeline([RemotePath("s3://data/raw")], target)
            proxy.close()
            lead_to(port, monkeypatch)
            assert of_cells(target) == of_cells(tmp_path / "local")
            injected += proxy.injected
        grown, target = grown_here(files, tmp_path / "grown"), RemotePath("s3://data/grown")
        run_pipeline(files[:1], target)
        proxy = Proxy(port, every(2, of=b"PUT "))
        lead_to(proxy.port, monkeypatch)
        run_pipeline(files[1:], target, append=True)
        proxy.close()
        lead_to(port, monkeypatch)
        assert of_cells(target) == of_cells(grown)
        compact_directory(grown)
        proxy = Proxy(port, every(3))
        lead_to(proxy.port, monkeypatch)
        compact_directory(target)
        proxy.close()
        lead_to(port, monkeypatch)
        assert of_cells(RemotePath("s3://data/grown.compact")) == of_cells(tmp_path / "grown.compact")
        of_chunk = [objects.holds(target / "chunk_0002.h5", grown / f"chunk_000{number}.h5") for number in (2, 3)]
        assert of_chunk == [True, False] and not objects.holds(target / "none", grown / INDEX_FILE)
        with pytest.raises(RemoteError, match=r"s3://nowhere/set/.writing: .*bucket does not exist; make the bucket"):
            run_pipeline(files, RemotePath("s3://nowhere/set"))
        for ask in (
            lambda: open_index("s3://nowhere/set"),
            lambda: run_pipeline(["s3://nowhere/*"], tmp_path / "none"),
        ):
            with pytest.raises(RemoteError, match=r"s3://nowhere/.*: there is no bucket s3://nowhere"):
                ask()
    assert set(injected) == set(FAULTS)
