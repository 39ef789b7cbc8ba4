from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset, positional_counts
from tests.support.remote import put

from scvae_data import cli, open_index
from scvae_data.commands.diff import compare, diff
from scvae_data.errors import MissingIndexError
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath


def lines_of(text: str) -> dict[str, str]:
    """Each line by what it is about."""
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {name.strip(): rest.strip() for name, rest in pairs}


def test_the_same_cells_in_another_order_and_other_chunks(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one")
    make_dataset(tmp_path / "other", chunk_size=17)
    assert diff(tmp_path / "one", tmp_path / "other") == (True, f"{'cells':<20}  100 kept, 0 changed, 0 gone, 0 added")


@pytest.mark.parametrize("part_cells", [7, 1000])
def test_cells_by_experiment(tmp_path: Path, part_cells: int) -> None:
    one = open_index(make_dataset(tmp_path / "one", n_obs=90)[0])
    x = positional_counts(120, 20).tolil()
    x[4, :] = 7  # the second cell of SRX2
    other = open_index(make_dataset(tmp_path / "other", x=x.tocsr(), accessions=["SRX1", "SRX2", "SRX4"])[0])
    found = compare(one, other, part_cells)
    assert found.experiments == ["SRX1", "SRX2", "SRX3", "SRX4"]
    assert found.kept.tolist() == [30, 29, 0, 0] and found.changed.tolist() == [0, 1, 0, 0]
    assert found.gone.tolist() == [0, 0, 30, 0] and found.added.tolist() == [10, 10, 0, 40]
    same, text = diff(one.path, other.path)
    assert not same and lines_of(text) == {
        "experiments added": "1: SRX4",
        "experiments gone": "1: SRX3",
        "experiments changed": "2: SRX1, SRX2",
        "cells": "59 kept, 1 changed, 30 gone, 60 added",
    }


def test_genes_and_settings(tmp_path: Path) -> None:
    names = [f"g{column}" for column in range(20)]
    make_dataset(tmp_path / "one", gene_names=names)
    others = [*names[1:2], *names[:1], *names[2:17], "new1", "new2", "new3"]
    make_dataset(tmp_path / "other", gene_names=others, seed=4, more_obs=lambda obs: obs.assign(dose=np.ones(len(obs))))
    same, text = diff(tmp_path / "one", tmp_path / "other")
    assert not same and lines_of(text) == {
        "order.seed": "0 → 4",
        "obs column dose": "not there → float64",
        "genes added": "3: new1, new2, new3",
        "genes gone": "3: g17, g18, g19",
        "genes changed": "2: g0, g1",
        "genes": "those of both come in another order",
        "cells": "100 kept, 0 changed, 0 gone, 0 added",
    }


@pytest.mark.parametrize("part_cells", [7, 1000])
def test_cells_of_a_file_that_was_renamed_are_known_by_their_names(tmp_path: Path, part_cells: int) -> None:
    def moved(obs: pd.DataFrame) -> pd.DataFrame:
        files = obs["source_file"].cat.rename_categories({"SRX1.h5ad": "a/one.h5ad"})
        return obs.assign(source_file=files, source_row=obs["source_row"] + 100 * (files == "a/one.h5ad"))

    one = open_index(make_dataset(tmp_path / "one")[0])
    x = positional_counts(100, 20).tolil()
    x[3, :] = 7  # the second cell of SRX1
    other = open_index(make_dataset(tmp_path / "other", x=x.tocsr(), more_obs=moved, chunk_size=17)[0])
    found = compare(one, other, part_cells)
    assert found.kept.tolist() == [33, 33, 33] and found.changed.tolist() == [1, 0, 0]
    assert not found.gone.any() and not found.added.any()


@pytest.mark.parametrize(("other", "status"), [("same", 0), ("more", 1), ("none", 2)])
def test_exit_status(other: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path / "one")
    make_dataset(tmp_path / "same")
    make_dataset(tmp_path / "more", n_obs=110)
    with pytest.raises(SystemExit) as end:
        cli.run("diff", str(tmp_path / "one"), str(tmp_path / other))
    assert end.value.code == status
    printed = capsys.readouterr()
    assert printed.err.startswith("error: no dataset") if status == 2 else "kept" in printed.out


def test_differences_of_cells_here_and_in_a_store(
    store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make_dataset(tmp_path / "one", n_obs=90)[0], make_dataset(tmp_path / "other", chunk_size=17)[0]
    there, elsewhere = put(one, store), put(other, store.parent / "other")
    same, text = diff(one, other)
    assert not same
    asked: list[str] = []
    read = objects.read
    monkeypatch.setattr(objects, "read", lambda path, *span: asked.append(path.name) or read(path, *span))
    for pair in ((there, elsewhere), (one, elsewhere), (there, other)):
        assert diff(*pair) == (same, text)
    assert diff(there, one) == (True, f"{'cells':<20}  90 kept, 0 changed, 0 gone, 0 added")
    assert {*asked} == {"chunk_index.json", "rows.bin"}
    assert asked.count("rows.bin") == 2  # one of each: copies stay
    with pytest.raises(MissingIndexError, match=f"no dataset at {store.parent}/none"):
        diff(one, store.parent / "none")
