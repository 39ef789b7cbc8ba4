"""A dry run says what the headers say, predicts from stated rates, and writes nothing but what the headers say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts, settings_for
from tests.support.warm import run_python

from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.run.directory import held_file, prepare
from scvae_data.processing.settings.genes import GeneRules, ListRules
from scvae_data.processing.settings.inputs import SimulatedInput
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.survey import dry_run as module
from scvae_data.processing.survey import room
from scvae_data.processing.survey.dry_run import DryRun, dry_run
from scvae_data.store import Chunking

Write = Callable[..., Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(write_raw: Write, tmp_path: Path) -> list[Path]:
    """Two sparse files that share two of three genes, and a dense one with other genes."""
    first = write_raw("SRX1.h5ad", position_counts(6, 3), list("ABC"))
    second = write_raw("SRX2.h5ad", position_counts(4, 3), list("BCD"))
    dense = tmp_path / "raw" / "SRX3.h5ad"
    var = pd.DataFrame(index=[f"x{n}" for n in range(10)])
    ad.AnnData(np.ones((5, 10), np.float32), obs=pd.DataFrame(index=list("abcde")), var=var).write_h5ad(dense)
    return [first, second, dense]


def predicted(out: Path, paths: Sequence[Path], overwrite: bool = False, **chosen: Any) -> DryRun:
    """What a run over files would do."""
    settings = settings_for(paths, **({"genes": GeneRules(), "chunking": Chunking()} | chosen))
    return dry_run(settings, SerialEngine(), out, overwrite=overwrite)


def test_sums_and_overlaps(files: list[Path], tmp_path: Path) -> None:
    paths = [*files]
    found = dry_run(settings_for(paths, chunking=Chunking(chunk_size=4)), SerialEngine(), tmp_path / "out")
    sparse = sum(int((position_counts(n, 3) > 0).sum()) for n in (6, 4))
    assert (found.n_files, found.n_obs, found.nnz, found.n_dense) == (3, 15, sparse + 5, 1)
    assert (found.n_genes, found.n_tables, found.n_chunks, found.stops) == (14, 3, 4, "")
    pairs = {(overlap.first, overlap.second): (overlap.shared, overlap.share) for overlap in found.overlaps}
    assert pairs == {
        ("SRX1.h5ad", "SRX2.h5ad"): (2, 2 / 3),
        ("SRX1.h5ad", "SRX3.h5ad"): (0, 0),
        ("SRX2.h5ad", "SRX3.h5ad"): (0, 0),
    }
    assert found.overlaps[-1].shared == 2
    assert found.bytes == found.nnz * 1.4 + 15 * 200
    assert found.spool_bytes == found.nnz * 2 + 15 * 400
    read = sparse / module.SCAN_RATE["csr"] + 50 / module.SCAN_RATE["dense"]
    later = found.nnz / module.DECIDE_RATE + found.nnz / module.WRITE_RATE["gzip"]
    of_files = 3 * module.FILE_SECONDS + (3 + 3 + 10) * module.ROW_SECONDS
    assert found.seconds == pytest.approx(module.START_SECONDS + of_files + read + later)
    assert found.memory_bytes == pytest.approx(850e6 + 4 * found.nnz / 15 * 2)
    text = str(found)
    for piece in ("those of 1 dense file guessed", "a tenth of the elements", "M counts/s", "1.4 bytes a count"):
        assert piece in text
    assert f"nothing was written but what they say, in {tmp_path}/out/.survey\n" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".survey"]


def test_rows_lie_in_the_work_folder_once_more_for_each_merge(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = predicted(tmp_path / "out", files)
    monkeypatch.setattr(room, "MAX_RUNS", 2)
    merged = predicted(tmp_path / "out", files)
    assert (once.n_merges, merged.n_merges) == (0, 1)
    assert merged.spool_bytes == 2 * once.spool_bytes and merged.bytes == once.bytes
    assert merged.seconds == pytest.approx(once.seconds + once.nnz / module.MERGE_RATE)
    assert "2 a count and 400 a cell, 2 times since runs are merged" in str(merged)
    assert [room.merges_of(n) for n in (1, 2, 3, 4, 5, 9)] == [0, 0, 1, 1, 2, 3]
    monkeypatch.setattr(room, "RUN_ENTRIES", 5)  # four runs of 18 counts, three of 12, one of 5
    assert predicted(tmp_path / "out", files).n_merges == 2


def test_what_would_stop_the_run_is_said(write_raw: Write, tmp_path: Path) -> None:
    human = write_raw("SRX1.h5ad", position_counts(3, 2), ["MT-ND1", "TP53"])
    mouse = write_raw("SRX2.h5ad", position_counts(3, 2), ["mt-Nd1", "Trp53"])
    text = tmp_path / "raw" / "SRX3.h5ad"
    text.write_text("a,b\n")
    paths = [human, mouse, text]
    found = predicted(tmp_path / "out", paths)
    assert found.species == {"human": 1, "mouse": 1}
    assert "human (1 file), mouse (1 file)" in str(found)
    assert "3, 1 of them cannot be read" in str(found)
    assert "SRX3.h5ad: not_single_cell" in str(found)
    assert found.stops.startswith("1 of 3 files failed, more than max_failed_fraction=0 allows")
    found = dry_run(
        settings_for(paths, max_failed_fraction=0.5),
        SerialEngine(),
        tmp_path / "out",
    )
    assert found.stops.startswith("mixed species: human (1 file, e.g. SRX1.h5ad), mouse (1 file")


def test_notes_and_warnings_are_told_by_kind(write_raw: Write, tmp_path: Path) -> None:
    paths = []
    for number in range(30):
        path = write_raw(f"SRX{number:02d}.h5ad", position_counts(6, 8), [f"g{n}" for n in range(8)])
        adata = ad.read_h5ad(path)
        adata.var["feature_types"] = ["Gene Expression"] * (6 - number % 3) + ["Antibody Capture"] * (2 + number % 3)
        if number == 7:
            adata.layers["spliced"], adata.layers["unspliced"] = adata.X, 5 * adata.X
        adata.write_h5ad(path)
        paths.append(path)
    found = predicted(tmp_path / "out", paths, qc=QcRules())
    text = str(found)
    assert "    SRX00.h5ad and 29 more files: dropped 2 features of type Antibody Capture\n" in text
    assert text.count("features of type Antibody Capture") == 1
    assert "    WARNING: qc.max_pct_counts_mt could not be applied to SRX00.h5ad, " in text
    assert "and 25 more files: no mitochondrial gene" in text
    warning = next(line for line in found.notes if "SRX07" in line)
    assert warning.startswith("WARNING: SRX07.h5ad: X equals layers/spliced; counts are left out")
    assert found.notes.index(warning) == 1


def test_only_some_kinds_of_notes_are_shown(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = [f"SRX{number}.h5ad: note {'x' * number}" for number in range(40)]
    monkeypatch.setattr(module, "frequent_notes", lambda _: notes)
    text = str(predicted(tmp_path / "out", files))
    assert notes[module.MOST_NOTES - 1] in text
    assert notes[module.MOST_NOTES] not in text
    assert "… and 28 more kinds of notes" in text


def test_a_directory_that_is_in_use_stops_the_run(files: list[Path], tmp_path: Path) -> None:
    paths, out = [*files], tmp_path / "out"
    out.mkdir()
    (out / "chunk_index.json").touch()
    found = predicted(out, paths)
    assert found.stops == (
        f"{out} already holds a dataset; append=true adds cells of new inputs, overwrite=true replaces it"
    )
    assert predicted(out, paths, overwrite=True).stops == ""


def test_a_gene_list_that_no_file_knows_stops_the_run(files: list[Path], tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("Q1\nQ2\n")
    paths = [*files]
    found = dry_run(settings_for(paths, genes=ListRules(path=str(names))), SerialEngine(), tmp_path / "out")
    assert found.stops.startswith("none of the 2 genes")


def test_only_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "SRX3.h5ad").write_text("a,b\n")
    paths = [tmp_path / "SRX3.h5ad"]
    found = predicted(tmp_path / "out", paths)
    assert (found.n_obs, found.nnz, found.n_genes, found.seconds) == (0, 0, 0, 0)
    text = str(found)
    assert "1, 1 of them cannot be read" in text
    assert "predicted" not in text
    assert "a text file" not in text  # which the error says
    assert "a text file" in found.stops


def test_pairs_without_a_shared_gene_are_told_by_their_cause(write_raw: Write, tmp_path: Path) -> None:
    genes = {
        "SRX1": ["ENSG00000000001", "ENSG00000000002"],
        "SRX2": ["ENSG00000000001", "ENSG00000000003"],
        "SRX3": ["ENSMUSG00000000001", "ENSMUSG00000000002"],
        "SRX4": ["TP53", "ACTB"],
    }
    paths = [str(write_raw(f"{name}.h5ad", position_counts(3, 2), names)) for name, names in genes.items()]
    found = predicted(tmp_path / "out", paths)
    lines = str(found).splitlines()
    at = lines.index("  least shared:")
    assert [line.strip() for line in lines[at + 1 : at + 4]] == [
        "0.0 %  3 pairs of lists: human against mouse, e.g. SRX1.h5ad, SRX3.h5ad",
        "0.0 %  2 pairs of lists: ids against symbols, e.g. SRX1.h5ad, SRX4.h5ad",
        "50.0 %  SRX1.h5ad, SRX2.h5ad (1 gene)",
    ]


def test_the_demo_is_simulated_elsewhere(tmp_path: Path) -> None:
    inputs = SimulatedInput(directory=str(tmp_path / "demo"), n_files=2, cells_per_file=50, n_genes=1000)
    assert dry_run(settings_for([], input=inputs), SerialEngine(), tmp_path / "out").n_obs == 100
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_as_the_run_would_and_writes_no_dataset(files: list[Path], tmp_path: Path) -> None:
    out, run = tmp_path / "out", tmp_path / "run"

    def process(*more: str) -> subprocess.CompletedProcess[str]:
        settings = ["input=files", f"input.paths={tmp_path}/raw", f"paths.processed_dir={out}", f"hydra.run.dir={run}"]
        return run_python(ROOT / "process.py", *settings, *more, cwd=tmp_path)

    result = process("dry_run=true")
    assert result.returncode == 0, result.stderr
    assert "dry run: from headers alone; nothing was written" in result.stdout
    assert "  cells    15\n" in result.stdout
    assert [path.name for path in out.iterdir()] == [".survey"]
    files[0].write_text("a,b\n")
    dry, wet = process("dry_run=true"), process()
    assert (dry.returncode, wet.returncode) == (1, 1)
    assert "3, 1 of them cannot be read" in dry.stdout
    error = dry.stderr.splitlines()[-1]
    assert error.startswith("error: 1 of 3 files failed")
    assert wet.stderr.splitlines()[-1] == error.replace("; leave", f"; all in {out}/failure_report.json; leave")


def test_what_a_killed_dry_run_left_goes_and_what_another_one_holds_stays(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("killed", "running"):
        (out / f".dry-run-{name}" / "fetched").mkdir(parents=True)
    with held_file(out / ".dry-run-running" / ".lock"):
        predicted(out, files)
        assert sorted(path.name for path in out.iterdir()) == [".dry-run-running", ".survey"]
    prepare(out, out, overwrite=False, resume=False)
    assert sorted(path.name for path in out.iterdir()) == [".survey", ".work"]
