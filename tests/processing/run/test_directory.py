"""A dataset directory is held by one run, and takes no file of others for its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.run.directory import held_directory, held_file, prepare, run_directory


@pytest.mark.parametrize("name", ["obs.parquet", "experiments.parquet", "gene_list.json", "chunk_0007.h5",
                                  "gene_report.parquet", "qc_report.html", "qc_experiments_mqc.json"])  # fmt: skip
@pytest.mark.parametrize("given", [{}, {"overwrite": True}, {"resume": True}], ids=["", "overwrite", "resume"])
def test_files_of_others_are_refused_and_left(name: str, given: dict[str, bool], tmp_path: Path) -> None:
    for file in (name, "notes.txt"):
        (tmp_path / file).write_text("mine")
    (tmp_path / ".survey").mkdir()  # as a dry run leaves it
    with pytest.raises(ConfigError, match=rf"neither chunk_index\.json nor \.work, so {name} may be of others.*choose"):
        prepare(tmp_path, tmp_path, **{"overwrite": False, "resume": False} | given)
    assert {path.name for path in tmp_path.iterdir()} == {name, "notes.txt", ".survey"}
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("proof", [".work", "chunk_index.json"])
def test_files_beside_an_index_or_a_work_folder_are_ours(proof: str, tmp_path: Path) -> None:
    (tmp_path / "obs.parquet").write_text("x")
    (tmp_path / proof).mkdir() if proof == ".work" else (tmp_path / proof).write_text("{}")
    with pytest.raises(ConfigError, match="overwrite=true"):
        prepare(tmp_path, tmp_path, overwrite=False, resume=False)
    assert prepare(tmp_path, tmp_path, overwrite=True, resume=False).path.is_dir()


def test_a_folder_with_other_files_is_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert prepare(tmp_path, tmp_path, overwrite=False, resume=False).path == tmp_path / ".work"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_its_place_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    expected = r"^paths\.processed_dir=.*notes\.txt is a file; name a folder, or a new one$"
    with pytest.raises(ConfigError, match=expected), held_directory(tmp_path / "notes.txt"):
        pytest.fail("held")
    with held_directory(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def refused(directory: Path) -> set[str]:
    """What a run that is refused leaves in a directory and beside it."""
    with pytest.raises(ScvaeDataError, match=r"^no$"), run_directory(directory):
        prepare(directory, directory, overwrite=False, resume=True)
        raise ScvaeDataError("no")
    return {str(path.relative_to(directory.parent)) for path in directory.parent.rglob("*") if path.is_file()}


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    assert not refused(tmp_path / "new" / "deep" / "out") and not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert refused(tmp_path / "out") == {"out/notes.txt"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_what_a_next_try_needs_stays_when_a_run_is_refused(tmp_path: Path) -> None:
    for file in ("surveyed/.survey/files.parquet", "begun/.work/scan/000000/done.json", "failed/.work/failed.txt",
                 "failed/failure_report.json", "whole/chunk_index.json", "adding/.work/appended/.work/scan/000000/x",
                 "adding/chunk_index.json"):  # fmt: skip
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for folder in ("surveyed", "begun", "failed", "whole", "adding"):
        refused(tmp_path / folder)
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert before <= left
    assert {str(path.relative_to(tmp_path)) for path in left - before} == {
        f"{folder}/.lock" for folder in ("begun", "failed", "whole", "adding")
    }
    assert not (tmp_path / "whole" / ".work").exists() and not (tmp_path / "surveyed" / ".work").exists()


def test_who_waits_for_a_file_that_is_removed_holds_the_new_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with ThreadPoolExecutor(1) as beside:
        with held_file(lock):
            waiting = beside.submit(held_once, lock)
            while not waiting.running():
                time.sleep(0.001)
            time.sleep(0.05)
            lock.unlink()
        assert waiting.result(10) == lock.stat().st_ino


def held_once(path: Path) -> int:
    """Number in the file system of the file that is held."""
    with held_file(path):
        return path.stat().st_ino
