"""What a survey found is found again where files are unchanged, and only there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts, settings_for

from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.genes.wanted import read_gene_files
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.survey import kept
from scvae_data.processing.survey.file import SurveyJob, survey_file
from scvae_data.processing.survey.stage import Surveyed, read_headers
from scvae_data.processing.work import WorkFolder
from scvae_data.remote.fetched import scratch_folder

Write = Callable[..., Path]


class Counting(SerialEngine):
    """An engine that tells which files it was given."""

    seen: list[str] = []  # noqa: RUF012 - replaced by each run

    def run(self, tasks: Any) -> Iterator[Any]:
        object.__setattr__(self, "seen", [task.arguments[1] for task in tasks])
        return super().run(tasks)


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are surveyed as soon as they are written."""
    monkeypatch.setattr(kept, "SETTLED_SECONDS", 0.0)


@pytest.fixture
def files(write_raw: Write) -> list[Path]:
    obs = pd.DataFrame({"batch": ["a", "b", "a"]}, index=["x", "y", "z"])
    first = write_raw("SRX1.h5ad", position_counts(3, 2), ["MT-ND1", "TP53"])
    adata = ad.read_h5ad(first)
    adata.obs = obs
    adata.write_h5ad(first)
    return [first, write_raw("SRX2.h5ad", position_counts(4, 2), ["TP53", "ACTB"])]


def survey(out: Path, paths: list[Path], **inputs: Any) -> tuple[Surveyed, list[str]]:
    """Survey; return what was found, and the files that were opened for it."""
    work, engine = WorkFolder(out / ".work"), Counting()
    work.make_survey()
    settings = settings_for(paths, genes=GeneRules())
    settings = replace(settings, input=replace(settings.input, **inputs))
    return read_headers(settings, engine, work, read_gene_files(settings.genes)), engine.seen


def same(one: Surveyed, other: Surveyed) -> bool:
    universes = one.universe, other.universe
    arrays = [[u.keys, u.symbols, u.ids, u.flags, *u.maps.values(), *u.how.values()] for u in universes]
    plain = [(u.matches, u.synonyms, u.retired, u.classed, [*u.maps], [*u.species]) for u in universes]
    equal = all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(*arrays, strict=True))
    return repr(one.files) == repr(other.files) and equal and plain[0] == plain[1]


def test_unchanged_files_are_not_opened_again(files: list[Path], tmp_path: Path) -> None:
    first, opened = survey(tmp_path / "out", files)
    assert opened == ["SRX1.h5ad", "SRX2.h5ad"]
    again, opened = survey(tmp_path / "out", files)
    assert opened == []
    assert same(first, again)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "content": lambda path: path.write_bytes(path.read_bytes().replace(b"TP53", b"TP73")),
    "times set back": lambda path: (path.write_bytes(path.read_bytes()), os.utime(path, ns=(0, 0))),
    "another file of its name": lambda path: (
        path.with_name("new").write_bytes(path.read_bytes()),
        path.with_name("new").replace(path),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_surveyed_anew(change: str, files: list[Path], tmp_path: Path) -> None:
    first, _ = survey(tmp_path / "out", files)
    stat = files[1].stat()
    CHANGES[change](files[1])
    os.utime(files[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again, opened = survey(tmp_path / "out", files)
    assert opened == ["SRX2.h5ad"]
    assert same(first, again) == (change != "content")


def test_a_file_is_named_by_where_it_stands_among_the_others(
    files: list[Path], tmp_path: Path, write_raw: Write
) -> None:
    survey(tmp_path / "out", files)
    (tmp_path / "raw" / "more").mkdir()
    files[1] = files[1].rename(tmp_path / "raw" / "more" / "SRX2.h5ad")
    found, opened = survey(tmp_path / "out", files)
    assert (opened, [file.source_file for file in found.files]) == (["more/SRX2.h5ad"], ["SRX1.h5ad", "more/SRX2.h5ad"])


@pytest.mark.parametrize("inputs", [{"counts": "X"}, {"max_inflation": 5000}, {"full_hash": True}], ids=str)
def test_other_settings_survey_anew(inputs: dict[str, Any], files: list[Path], tmp_path: Path) -> None:
    survey(tmp_path / "out", files)
    assert len(survey(tmp_path / "out", files, **inputs)[1]) == 2
    assert len(survey(tmp_path / "out", files, **inputs)[1]) == (2 if "full_hash" in inputs else 0)


def test_a_file_that_changed_just_now_is_not_kept(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SETTLED_SECONDS", 3600.0)
    survey(tmp_path / "out", files)
    assert len(survey(tmp_path / "out", files)[1]) == 2


@pytest.mark.parametrize("name", ["files.parquet", "species.npz", "universe.npz"])
@pytest.mark.parametrize("flips", [1, 0], ids=["a flipped byte", "cut short"])
def test_what_is_damaged_is_made_anew(name: str, flips: int, files: list[Path], tmp_path: Path) -> None:
    first, _ = survey(tmp_path / "out", files)
    damaged = tmp_path / "out" / ".survey" / name
    whole = damaged.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] if flips else whole[:at])
        assert same(first, survey(tmp_path / "out", files)[0])


def test_a_lost_gene_table_is_read_again(files: list[Path], tmp_path: Path) -> None:
    first, _ = survey(tmp_path / "out", files)
    lost = first.files[0].slot.table
    (tmp_path / "out" / ".survey" / "tables" / f"{lost}.parquet").unlink()
    assert survey(tmp_path / "out", files)[1] == ["SRX1.h5ad"]


def test_facts_come_back_as_they_were(files: list[Path], tmp_path: Path) -> None:
    given = FileInput(paths=[str(files[0])]).files()[0]
    given = replace(given, obs_values={"donor": "A", "age": 3, "weight": 1.5, "smokes": False, "lost": None})
    work = WorkFolder(tmp_path / "out" / ".work")
    work.make_survey()
    job = SurveyJob(work.tables, scratch_folder(work.fetched, 1.0))
    facts: InputFacts = survey_file(given, "SRX1.h5ad", job)
    kept.keep_facts(work, [(given, "stamp")], {0: facts})
    assert repr(kept.kept_facts(work, [(given, "stamp")])[0]) == repr(facts)
