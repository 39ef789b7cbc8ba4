"""How well the held-out cells of each experiment are explained for their depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.support.datasets import make_dataset
from tests.support.pages import code_of, table_of
from tests.training.conftest import Compose, Run

from scvae_data import ChunkedDataModule
from scvae_data.store import open_index
from scvae_data.training.experiment_elbo import N_BLOCKS, ExperimentElbo, blocks_of, scored_part
from scvae_data.training.experiment_scores import (
    Expectation,
    Scored,
    expectation_of,
    qc_flags,
    read_scores,
    score_table,
    scores_told,
    write_scores,
)
from scvae_data.training.outputs import write_experiments
from scvae_data.training.run import train

ACCESSIONS = [f"SRX{number}" for number in range(6)]
N_CELLS, N_GENES = 720, 30


def profiles(n_obs: int) -> sp.csr_matrix:
    """Counts of cells of six experiments in turn: a third of the genes high, which third says the cell's type."""
    rng = np.random.default_rng(0)
    rates = np.full((3, N_GENES), 0.3)
    for kind in range(3):
        rates[kind, kind::3] = 12.0
    depth = rng.uniform(0.5, 2, n_obs)
    return sp.csr_matrix(rng.poisson(rates[rng.integers(0, 3, n_obs)] * depth[:, None]).astype(np.int32))


def spoiled(x: sp.csr_matrix, number: int) -> sp.csr_matrix:
    """The same, with the counts of each cell of one experiment shuffled between genes."""
    dense, rng = x.toarray(), np.random.default_rng(1)
    for row in range(number, len(dense), len(ACCESSIONS)):
        dense[row] = rng.permutation(dense[row])
    return sp.csr_matrix(dense)


@pytest.fixture(scope="module")
def spoiled_run(tmp_path_factory: pytest.TempPathFactory, train_config: Compose) -> Run:
    """A run on a directory in which the counts of SRX4 are shuffled; depths are what they were."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("spoiled")
    x = spoiled(profiles(N_CELLS), 4)
    make_dataset(folder / "data", chunk_size=120, accessions=ACCESSIONS, x=x)
    options = ("logger=none", "outputs.latents=false", "trainer.max_epochs=15", "model.kl_warmup_epochs=5")
    split = ("data.split={val: 0.25}", f"paths.processed_dir={folder / 'data'}", "data.batch_size=32")
    return Run(folder / "run", train(train_config(folder / "run", *options, *split)))


@pytest.fixture
def scored(spoiled_run: Run) -> Scored:
    return read_scores(spoiled_run.path / "experiment_scores.parquet")


def test_an_experiment_of_shuffled_counts_is_listed_first_and_alone_flagged(scored: Scored) -> None:
    table = scored.table
    assert table["srx_accession"].iloc[0] == "SRX4"
    assert table["srx_accession"][table["flagged"]].tolist() == ["SRX4"]
    assert list(table["reasons"].iloc[0]) == ["low_elbo"]
    assert table["z"].iloc[0] < -6 < -3 < table["z"].iloc[1:].min()


def test_scores_are_of_the_cells_that_validation_is_of(scored: Scored, spoiled_run: Run) -> None:
    assert scored.part == "val"
    assert scored.n_cells == scored.blocks[:, 0].sum() == pytest.approx(0.25 * N_CELLS, rel=0.2)
    assert scored.mean("elbo") == pytest.approx(spoiled_run.metrics["val/elbo"], rel=1e-6)
    assert scored.blocks[:, 1].sum() / scored.n_cells == pytest.approx(scored.mean("elbo"), rel=1e-9)


def test_the_report_lists_the_worst(spoiled_run: Run) -> None:
    report = (spoiled_run.path / "report.html").read_text()
    assert "ELBO per cell of 6 experiments, over validation cells." in report
    table = table_of(report, "experiments")
    assert sorted(table["experiment"]) == sorted(ACCESSIONS)
    assert (table["experiment"][0], table["what is odd"][0]) == ("SRX4", ["low_elbo"])
    assert "Flagged, at 3 spreads or more below: 1 of 6." in report
    assert any('data.exclude_srx_accessions="@/' in block for block in code_of(report))
    assert (spoiled_run.path / "experiment_scores.png").read_bytes().startswith(b"\x89PNG")


def test_the_file_excludes_what_it_flags(spoiled_run: Run) -> None:
    path = spoiled_run.path / "experiment_scores.parquet"
    data = ChunkedDataModule(spoiled_run.path.parent / "data", 32, exclude_srx_accessions=f"@{path}")
    data.setup()
    assert data.n_obs == N_CELLS * 5 // 6


def test_no_experiments_are_compared_where_there_are_too_few(finished: Run) -> None:
    scored = read_scores(finished.path / "experiment_scores.parquet")
    assert scored.expectation is None and scored.table["z"].isna().all() and not scored.table["flagged"].any()
    assert "fewer than 4 of them have 20 cells or more, so none is flagged." in scores_told(scored)
    assert "Flagged" not in scores_told(scored)


def test_without_held_out_cells_all_are_scored(tmp_path: Path, train_config: Compose) -> None:
    metrics = train(train_config(tmp_path, "logger=none", "trainer.max_epochs=1", "data.split=null"))
    scored = read_scores(tmp_path / "experiment_scores.parquet")
    assert "val/elbo" not in metrics
    assert (scored.part, scored.n_cells) == ("predict", 600)
    assert "over all cells selected: none are held out" in (tmp_path / "report.html").read_text()


def test_test_cells_are_scored_where_there_are_any(dataset: Path) -> None:
    data = ChunkedDataModule(dataset, 32, split={"val": 0.1, "test": 0.1})
    data.setup()
    assert scored_part(data) == "test"


# --- sums and regression ----------------------------------------------------------------------------------------------


def sums(n_experiments: int, n_cells: int, shift: Callable[[int], float], seed: int = 0) -> np.ndarray:
    """Moments of experiments whose cells have ELBO -100 - 50 d - 30 g + noise + a shift, at depths of their own."""
    rng = np.random.default_rng(seed)
    moments = np.zeros((n_experiments, 5, 5))
    for number in range(n_experiments):
        d = rng.normal(rng.normal(0, 0.5), 0.2, n_cells)
        g = 1 + 0.5 * d + rng.normal(0, 0.1, n_cells)
        elbo = -100 - 50 * d - 30 * g + rng.normal(0, 2, n_cells) + shift(number)
        values = np.column_stack([np.ones(n_cells), d, d**2, g, elbo])
        moments[number] = values.T @ values
    return moments


def test_what_is_expected_is_found_beside_bad_experiments() -> None:
    """A fifth of the experiments are 40 nats worse than their depth says."""
    expected = expectation_of(sums(40, 100, lambda number: -40.0 * (number % 5 == 0)))
    assert expected is not None
    np.testing.assert_allclose(expected.coefficients, [-100, -50, 0, -30], atol=1.5)
    assert expected.spread < 2


def test_a_few_cells_are_not_flagged_by_chance() -> None:
    """All cells are alike; experiments of five cells lie far from the mean by chance alone."""
    index = open_index_of(200)
    scores = ExperimentElbo(index, "val")
    scores.moments[:100] = sums(100, 5, lambda number: 0.0, seed=1) * 1.0
    scores.moments[100:200] = sums(100, 400, lambda number: 0.0, seed=2)
    table = score_table(scores, expectation_of(scores.moments[:-1]), None).set_index("srx_accession")
    few = table[table["n_cells"] == 5]
    assert few["residual"].abs().max() > 4 * table["residual"][table["n_cells"] == 400].abs().median()
    assert few["flagged"].mean() <= 0.02
    assert all("few_cells" in reasons for reasons in few["reasons"])


def open_index_of(n_experiments: int) -> Any:
    """An index that knows only the names of its experiments."""

    class Index:
        def categories(self, column: str) -> tuple[str, ...]:
            return tuple(f"{column}{number:03d}" for number in range(n_experiments))

    return Index()


def test_sums_are_those_of_the_cells(dataset: Path) -> None:
    index = open_index(dataset)
    scores = ExperimentElbo(index, "predict")
    elbo = -np.arange(600, dtype=np.float64)
    for rows in np.array_split(np.arange(600), 7):
        scores.add(rows, elbo[rows])
    obs = index.obs(["SRX_accession", "total_counts"])
    grouped = pd.Series(elbo, obs.index).groupby(obs["SRX_accession"], observed=True)
    np.testing.assert_allclose(scores.moments[:-1, 0, 4], grouped.sum())
    np.testing.assert_allclose(scores.moments[:-1, 4, 4], grouped.apply(lambda values: (values**2).sum()))
    log_counts = np.log10(obs["total_counts"]).groupby(obs["SRX_accession"], observed=True).mean()
    table = score_table(scores, None, None).set_index("srx_accession")
    np.testing.assert_allclose(table["mean_log10_counts"], log_counts[table.index])
    assert scores.moments[-1].sum() == 0


@pytest.mark.parametrize("n_scored", [1, 2])
def test_one_experiment_alone_is_not_drawn(tmp_path: Path, dataset: Path, n_scored: int) -> None:
    index = open_index(dataset)
    scores = ExperimentElbo(index, "predict")
    codes = index.obs(["SRX_accession"])["SRX_accession"].cat.codes.to_numpy()
    rows = np.flatnonzero(codes < n_scored)
    scores.add(rows, -1000.0 - rows)
    expectation = Expectation((-1000.0, 0.0, 0.0, 0.0), 1.0, 4)
    made = write_experiments(tmp_path, SimpleNamespace(index=index, expectation=expectation), scores, drawn=True)
    assert ("experiments" in made) == (tmp_path / "experiment_scores.png").exists() == (n_scored > 1)


def test_flags_of_all_generations_are_read(tmp_path: Path, dataset: Path) -> None:
    index = replace(open_index(dataset), path=tmp_path)
    assert qc_flags(index) is None
    rows = {"srx_accession": ["SRX1", "SRX1", "SRX2"], "flags": [["few_cells"], ["outlier", "few_cells"], []]}
    pd.DataFrame(rows).to_parquet(tmp_path / "experiments.parquet")
    more = {"srx_accession": ["SRX2"], "flags": [["raw_droplets"]]}
    pd.DataFrame(more).to_parquet(tmp_path / "experiments_0001.parquet")
    found = qc_flags(index)
    assert found is not None and found.to_dict() == {"SRX1": ["few_cells", "outlier"], "SRX2": ["raw_droplets"]}


def test_flags_of_quality_control_stand_beside_the_reasons(tmp_path: Path, dataset: Path) -> None:
    scores = ExperimentElbo(open_index(dataset), "predict")
    scores.add(np.arange(600), np.full(600, -7.0))
    flags = pd.Series({"SRX2": ["raw_droplets"]})
    write_scores(tmp_path / "scores.parquet", scores, None, score_table(scores, None, flags))
    found = read_scores(tmp_path / "scores.parquet")
    table = found.table.set_index("srx_accession")
    assert list(table.loc["SRX2", "qc_flags"]) == ["raw_droplets"] and table.loc["SRX1", "qc_flags"] is None


def test_blocks_are_of_equal_size_wherever_held_out_cells_lie() -> None:
    """Held-out cells are the first ones of each chunk."""
    rows = (np.arange(0, 400_000, 400)[:, None] + np.arange(40)).ravel()
    counts = np.bincount(blocks_of(rows), minlength=N_BLOCKS)
    assert counts.min() > 100 and counts.max() < 350  # 200 on average
