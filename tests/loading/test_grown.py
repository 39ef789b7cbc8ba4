"""A directory that cells were added to: batches of all, each cell on its side, and the cells of before on request."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.loading import conftest
from tests.loading.conftest import flat, rows_of
from tests.support.datasets import make_dataset

from scvae_data.errors import SelectionError, StoreError
from scvae_data.loading.plan.scatter import Selected, blend
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.grow import adopt


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("old") / "data", n_obs=600, chunk_size=60)[0]


@pytest.fixture(scope="module")
def grown(old: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """600 cells of three experiments, and then 200 and 100 of others."""
    path = Path(shutil.copytree(old, tmp_path_factory.mktemp("grown") / "data"))
    for number, n_obs in enumerate((200, 100)):
        names = [f"SRX{k}" for k in range(4 + 3 * number, 7 + 3 * number)]
        more, _, _ = make_dataset(
            path.parent / f"more{number}", n_obs=n_obs, chunk_size=60, accessions=names,
            more_obs=lambda obs, number=number: obs.rename(index=lambda name: f"{name}-{number}"),
        )  # fmt: skip
        adopt(open_index(path), open_index(more), f"made of {number + 2}")
    return open_index(path)


module_of = partial(conftest.module_of, batch_size=30)


def test_every_cell_once_with_its_values(grown: DatasetIndex) -> None:
    obs, module = grown.obs(), module_of(grown.path, label_keys=["cell_type", "donor_age"])
    assert obs.index.is_unique and len(obs) == 900 and grown.obs(rows=[899, 3]).equals(obs.iloc[[899, 3]])
    seen: list[int] = []
    for loader in (module.train_dataloader(), module.val_dataloader()):
        for batch in loader:
            rows = batch["index"].numpy()
            seen += rows.tolist()
            np.testing.assert_allclose(batch["library_size"], obs["total_counts"].to_numpy()[rows])
            assert batch["obs"]["donor_age"].tolist() == obs["donor_age"].to_numpy()[rows].tolist()
            found = np.array(module.categories["SRX_accession"])[batch["obs"]["SRX_accession"]]
            assert found.tolist() == obs["SRX_accession"].astype(str).to_numpy()[rows].tolist()
            assert batch["gene_set"].tolist() == ((rows >= 600) * 1 + (rows >= 800)).tolist()
    assert sorted(seen) == list(range(900))


def test_a_cell_stays_on_its_side_of_a_split(old: Path, grown: DatasetIndex) -> None:
    before, after = (set(flat(rows_of(module_of(path).val_dataloader()))) for path in (old, grown.path))
    assert before == {row for row in after if row < 600} and len(after) > len(before)


def test_batches_mix_all_generations(grown: DatasetIndex) -> None:
    shares = [np.mean(np.array(batch) >= 600) for batch in rows_of(module_of(grown.path).train_dataloader())]
    assert 0.1 < min(shares) < max(shares) < 0.6


@pytest.mark.parametrize("sizes", [[(4, 4), (1,)], [(10, 10, 3), (2,), (7, 7)], [(1,), (1,)]])
def test_row_groups_have_their_share_of_every_stretch(sizes: list[tuple[int, ...]]) -> None:
    first_rows = np.cumsum([0, *(size for stretch in sizes for size in stretch)])
    ends = np.cumsum([len(stretch) for stretch in sizes]).tolist()
    stretches = [range(end - len(stretch), end) for stretch, end in zip(sizes, ends, strict=True)]
    made = blend(Selected.of(to_row_groups(None, first_rows)), stretches)
    rows = [group.global_rows(slice(None)) for group in made]
    assert sorted(flat(rows)) == list(range(first_rows[-1])) and all(group.n_rows for group in made)
    for stretch in stretches:
        low, high = first_rows[stretch.start], first_rows[stretch.stop]
        shares = [int(((of_group >= low) & (of_group < high)).sum()) for of_group in rows]
        assert max(shares) <= -(-(high - low) // ends[-1])


def test_a_run_of_before_goes_on_with_its_cells(old: Path, grown: DatasetIndex) -> None:
    whole = module_of(old)
    epoch, first = rows_of(whole.train_dataloader()), module_of(old)
    batches = iter(first.train_dataloader())
    for _ in range(5):
        next(batches)
    state = first.state_dict()
    again = module_of(grown.path)
    again.load_state_dict(state)
    with pytest.raises(SelectionError, match=r"has grown since; data\.generations=1 has the cells of the saved run"):
        again.train_dataloader()
    again = module_of(grown.path, generations=1)
    assert again.categories == whole.categories
    again.load_state_dict(state)
    assert rows_of(again.train_dataloader()) == epoch[5:]


def test_training_that_runs_goes_on_with_what_it_opened(old: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(old, tmp_path / "data"))
    expected, module = rows_of(module_of(old).train_dataloader()), module_of(path, chunk_cache_size=1)
    batches = iter(module.train_dataloader())
    served = [next(batches)["index"].tolist() for _ in range(3)]
    more, _, _ = make_dataset(tmp_path / "more", accessions=["SRX8"])
    adopt(open_index(path), open_index(more), "both")
    assert served + rows_of(batches) == expected


def test_generations_that_are_not_there(grown: DatasetIndex) -> None:
    for number in (1, 2, 3):
        assert grown.first_generations(number).n_obs == (600, 800, 900)[number - 1]
    with pytest.raises(SelectionError, match="has 3 generations of cells, not 4"):
        module_of(grown.path, generations=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_vars": 21}, "its n_vars is 21"),
        ({"order": {"kind": "hash", "seed": 9, "group_column": None}}, "its order is .*'seed': 9"),
        ({"obs_columns": {}}, "its obs column SRX_accession is not there"),
        ({"gene_list_hash": "0"}, "its gene_list_hash is 0"),
    ],
)
def test_what_does_not_fit_is_named(old: Path, change: dict[str, object], message: str) -> None:
    index = open_index(old)
    with pytest.raises(StoreError, match=message):
        adopt(index, replace(index, **change), "both")  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(open_index(old).obs(), index.obs())
