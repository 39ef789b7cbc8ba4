from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset

from scvae_data import ChunkedDataModule, SelectionError


def more_obs(obs: pd.DataFrame) -> pd.DataFrame:
    """Donors of two of three cells, ages of all but every seventh, far from 0 beside how much they differ."""
    i = np.arange(len(obs))
    donor = pd.Categorical([None if k % 3 == 0 else f"D{k % 2}" for k in i])
    age = np.where(i % 7 == 0, np.nan, 1e6 + i % 10).astype(np.float32)
    return obs.assign(donor=donor, age=age, depth=np.where(i == 25, np.inf, i).astype(np.float32))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    path, _, obs = make_dataset(tmp_path_factory.mktemp("data") / "chunks", 100, 5, 30, more_obs=more_obs)
    return path, obs


def opened(path: Path, categorical: list[str], continuous: list[str]) -> ChunkedDataModule:
    data = ChunkedDataModule(
        path, batch_size=10, categorical_covariates=categorical, continuous_covariates=continuous, split={"val": 0.2}
    )
    data.setup("fit")
    return data


def test_facts_are_those_of_the_training_cells(dataset: tuple[Path, pd.DataFrame]) -> None:
    path, obs = dataset
    data = opened(path, ["donor"], ["age", "donor_age"])
    rows = np.concatenate([batch["index"].numpy() for batch in data.train_dataloader()])
    train = obs.iloc[np.sort(rows)]
    facts = data.covariate_facts()
    n_missing = int(train["donor"].isna().sum())
    assert facts["categorical"] == {"donor": {"categories": ["D0", "D1"], "n_missing": n_missing}}
    age, whole = facts["continuous"]["age"], train["age"].to_numpy(np.float64)
    assert (age["mean"], age["sd"]) == pytest.approx((np.nanmean(whole), np.nanstd(whole)), rel=1e-9)
    assert age["n_missing"] == np.isnan(whole).sum() > 0
    assert facts["continuous"]["donor_age"]["n_missing"] == 0


def test_batches_carry_the_columns(dataset: tuple[Path, pd.DataFrame]) -> None:
    path, obs = dataset
    batch = next(iter(opened(path, ["donor"], ["age"]).predict_dataloader()))
    first = obs.iloc[batch["index"].numpy()]
    codes = first["donor"].cat.codes.replace(-1, 2).to_numpy()
    assert batch["obs"]["donor"].tolist() == codes.tolist()
    np.testing.assert_array_equal(batch["obs"]["age"].numpy(), first["age"].to_numpy())


@pytest.mark.parametrize(
    ("categorical", "continuous", "words"),
    [
        pytest.param(["age"], [], "'age' is float32, not categorical", id="numbers as categories"),
        pytest.param([], ["donor"], "'donor' is categorical, not numbers; name it in categorical_cov", id="categories"),
        pytest.param([], ["agee"], "obs column agee not in .* did you mean age", id="unknown"),
        pytest.param([], ["depth"], "'depth' has infinite values; exclude their cells by data.filter", id="infinite"),
        pytest.param([], ["pct_counts_mt"], "'pct_counts_mt' is 0 in all training cells.*leave it out", id="constant"),
        pytest.param([], ["pct_counts_hb"], "'pct_counts_hb' is missing in all training cells", id="missing"),
    ],
)
def test_columns_that_cannot_be_are_refused(
    dataset: tuple[Path, pd.DataFrame], categorical: list[str], continuous: list[str], words: str
) -> None:
    with pytest.raises(SelectionError, match=words):
        opened(dataset[0], categorical, continuous).covariate_facts()
