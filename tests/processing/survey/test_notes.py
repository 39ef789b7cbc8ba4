"""What is noticed in many files is a line for each kind, not one for each file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scvae_data.processing.survey import notes

DROPPED = [(f"SRX{number:05d}.h5ad", f"dropped {number % 3 + 1} features of type Peaks") for number in range(61_000)]


def test_one_line_for_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told = [*DROPPED, ("SRX3.h5mu", "modality prot is left out")]
    notes.tell_by_kind(logging.WARNING, told)
    assert caplog.record_tuples == [
        (notes.__name__, logging.WARNING, "SRX00000.h5ad and 60,999 more files: dropped 1 features of type Peaks"),
        (notes.__name__, logging.WARNING, "SRX3.h5mu: modality prot is left out"),
    ]


def test_each_file_is_told_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notes.tell_by_kind(logging.INFO, DROPPED[:3])
    assert caplog.messages == [
        "SRX00000.h5ad and 2 more files: dropped 1 features of type Peaks",
        *(f"{file}: {text}" for file, text in DROPPED[:3]),
    ]


def test_a_note_of_one_file_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notes.tell_by_kind(logging.INFO, DROPPED[:1])
    assert caplog.messages == ["SRX00000.h5ad: dropped 1 features of type Peaks"]


def test_many_kinds_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notes.tell_by_kind(logging.INFO, [("SRX1.loom", f"left out: {'x' * number}") for number in range(40)])
    assert len(caplog.messages) == notes.MOST_NOTES + 1
    assert caplog.messages[-1] == (
        "… and 28 more kinds of notes; hydra.verbose=scvae_data.processing.survey.notes tells them file by file"
    )


def test_matrices_that_share_their_cells_are_told(
    tmp_path: Path, process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    for prefix, barcodes in (("a_", "barcodes.tsv"), ("b_", "barcodes.tsv"), ("c_", "c_barcodes.tsv")):
        (tmp_path / f"{prefix}matrix.mtx").write_text(
            "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 3\n2 2 4\n"
        )
        (tmp_path / barcodes).write_text("AAAC\nAAAG\n")
    (tmp_path / "features.tsv").write_text("TP53\nACTB\n")
    process(sorted(tmp_path.glob("*.mtx")))
    told = [message for message in caplog.messages if "one file" in message]
    assert told == [
        f"a_matrix.mtx, b_matrix.mtx have their cells from one file, {tmp_path / 'barcodes.tsv'}: each cell is there "
        "once for each matrix; give the matrix that is meant, or each its own barcodes"
    ]
