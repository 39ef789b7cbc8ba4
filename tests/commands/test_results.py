"""The commands that make results of a run: files, words, and errors of one line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.results.conftest import directory, model, untrained, whole
from tests.support.datasets import make_dataset

from scvae_data import VAE, cli
from scvae_data.store import open_index
from scvae_data.store.grow import adopt

__all__ = ["directory", "model"]


@pytest.fixture(scope="session")
def run(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose record says which directory it was trained on."""
    made = untrained(directory)
    made.record = {"facts": {**made.facts, "data_path": str(directory), "n_vars": made.facts["n_vars"]}}
    folder = tmp_path_factory.mktemp("runs") / "model"
    made.save(folder)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["scvae-data", *map(str, arguments)])
    cli.main()


def test_express(
    run: Path, model: VAE, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "found.h5ad"
    more = ("--transform-batch", "SRX2", "--samples", 3, "--library-size", "1e4", "--where", "donor_age > 40")
    call(monkeypatch, "express", run, "--genes", "GENE7", "GENE2", "--out", out, *more)
    printed = capsys.readouterr().out
    adata = anndata.read_h5ad(out)
    expected = model.expression(
        directory, ["GENE7", "GENE2"], transform_batch="SRX2", n_samples=3, library_size=1e4, where="donor_age > 40"
    )
    np.testing.assert_array_equal(adata.X, whole(expected)[1])
    assert adata.var["gene_symbol"].tolist() == ["GENE7", "GENE2"]
    assert (adata.obs["donor_age"] > 40).all()
    assert f"cells    {adata.n_obs} of 60 in {directory}" in printed
    assert f"written  {out} (" in printed
    assert "time     " in printed


def test_latents_and_elbo(
    run: Path, model: VAE, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, "latents", run, "--out", tmp_path / "found.zarr")
    np.testing.assert_array_equal(
        anndata.read_zarr(tmp_path / "found.zarr").obsm["X_scvae"], whole(model.latents(directory))[1]
    )
    call(monkeypatch, "elbo", run, "--out", tmp_path / "found.parquet", "--samples", 2, "--data", directory)
    found = pd.read_parquet(tmp_path / "found.parquet")
    np.testing.assert_array_equal(found[["elbo", "recon", "kl"]], whole(model.elbo(directory, n_samples=2))[1])


def test_cells_that_came_after_training_are_told_and_can_be_left_out(
    run: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    grown = Path(shutil.copytree(directory, tmp_path / "grown"))
    more, _, _ = make_dataset(
        tmp_path / "more", n_obs=40, n_vars=20, chunk_size=20, more_obs=lambda obs: obs.rename(index="new {}".format)
    )
    made = VAE.load(run)
    made.record = {"facts": made.record["facts"] | {"data_path": str(grown)}}
    made.save(tmp_path / "model")
    call(monkeypatch, "ppc", tmp_path / "model")
    assert "grown since" not in caplog.text
    adopt(open_index(grown), open_index(more), "both")
    call(monkeypatch, "elbo", tmp_path / "model", "--out", tmp_path / "all.parquet")
    assert f"{grown} has grown since the model was trained: 40 of 100 cells are new" in caplog.text
    call(monkeypatch, "elbo", tmp_path / "model", "--out", tmp_path / "old.parquet", "--generations", 1)
    assert caplog.text.count("grown since") == 1
    found = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("all", "old")]
    assert [len(table) for table in found] == [100, 60]
    assert "cells    60 of 60" in capsys.readouterr().out


def test_de_and_ppc(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "de.parquet"
    call(monkeypatch, "de", run, "--group1", "cell_type == 'type0'", "--pairs", 50, "--out", out)
    printed = capsys.readouterr().out
    table = pd.read_parquet(out)
    n_called = int(table["is_de_fdr_0.05"].sum())
    assert f"called   {n_called} of 20 genes change (is_de_fdr_0.05); at most 5 % of these are expected" in printed
    assert "\nlfc      log2 fold change, group 1 over group 2, of what the model decodes" in printed
    n_first, n_other = table.iloc[0][["n_cells1", "n_cells2"]]
    assert f"\ngroup 1  {n_first} cells\ngroup 2  {n_other} cells (6 without cell_type left out; --group2 " in printed
    assert n_first + n_other == 60 - 6
    assert table.index[0] in printed
    call(monkeypatch, "ppc", run)
    assert "variance correlation over genes " in capsys.readouterr().out


def test_card(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "card", run, "--license", "mit")
    assert capsys.readouterr().out.startswith('---\nlicense: "mit"\n')
    call(monkeypatch, "card", run, "--license", "mit", "--out", tmp_path / "gift")
    assert f'load     VAE.load("{tmp_path / "gift"}")' in capsys.readouterr().out
    assert VAE.load(tmp_path / "gift").facts == VAE.load(run).facts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("express", "RUN", "--genes", "GEN7", "--out", "a.h5ad"), "genes GEN7 not in the model; did you mean GENE7"),
        (("express", "RUN", "--out", "a.csv"), "a.csv: the suffix says in which form to write"),
        (("express", "RUN", "--out", "there.h5ad"), "there.h5ad exists already"),
        (("express", "RUN", "--out", "no/a.h5ad"), "there is no folder no; make it first"),
        (("express", "RUN", "--out", "a.h5ad", "--library-size", "x"), "--library-size=x is neither a number nor"),
        (("express", "RUN", "--out", "a.h5ad", "--transform-batch", "SRX8"), "transform_batch=SRX8: SRX_accession of"),
        (("latents", "RUN", "--out", "a.h5ad", "--where", "tisue == 'x'"), "no obs column 'tisue'"),
        (("latents", "RUN", "--out", "a.h5ad", "--data", "nowhere"), "nowhere"),
        (("latents", "nowhere", "--out", "a.h5ad"), "RUN=nowhere: no such file; give a checkpoint"),
        (("latents", ".", "--out", "a.h5ad"), "has neither checkpoints/best.ckpt nor model.json"),
        (("de", "RUN", "--group1", "cell_type == 'type7'"), "cell_type has no value 'type7'; did you mean"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], words: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.h5ad").touch()
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, *(str(run) if text == "RUN" else text for text in arguments))
    assert isinstance(caught.value.code, str)
    assert caught.value.code.startswith("error: ")
    assert words in caught.value.code
    assert "\n" not in caught.value.code
    assert not Path("a.h5ad").exists()
