"""A dataset directory is held by one run, and takes no file of others for its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.run.directory import held_directory, prepare


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
