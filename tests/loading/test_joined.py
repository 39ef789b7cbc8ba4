"""Several directories as one: genes in one order, columns by name, cells on their sides, the same batches always."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.loading import conftest
from tests.loading.conftest import flat, rows_of
from tests.support.datasets import make_dataset, positional_counts
from tests.support.grid import EVERYTHING, Setting, faults, serve_all

from scvae_data import ChunkedDataModule
from scvae_data.errors import ScvaeDataError, SelectionError
from scvae_data.loading.plan.mixing import diversity_table
from scvae_data.store import DatasetIndex, open_dataset, open_index
from scvae_data.store.joined_index import JoinedIndex, join

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

GENES = {"a": [f"g{j:02d}" for j in range(20)], "b": [f"g{j:02d}" for j in (3, 1, *range(10, 25))]}
"""The second directory lacks some genes of the first, has five of its own, and two in another order."""
ALL_GENES = [f"g{j:02d}" for j in range(25)]


def more_b(obs: pd.DataFrame) -> pd.DataFrame:
    """Other cells, with a column of their own and one of another type."""
    obs = obs.rename(index=lambda name: f"{name}-b").assign(quality=np.arange(len(obs), dtype=np.int64))
    return obs.assign(donor_age=obs["donor_age"].astype(np.float32))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """600 cells of SRX1 to SRX3, and 240 of SRX4 and SRX5."""
    folder = tmp_path_factory.mktemp("joined")
    make_dataset(folder / "a", n_obs=600, chunk_size=60, gene_names=GENES["a"])
    make_dataset(
        folder / "b", x=positional_counts(240, 17), chunk_size=40, accessions=["SRX5", "SRX4"], seed=3,
        gene_names=GENES["b"], more_obs=more_b,
    )  # fmt: skip
    return [folder / "a", folder / "b"]


module_of = partial(conftest.module_of, batch_size=28)


def dense(path: Path) -> pd.DataFrame:
    """Counts of a directory by gene; those that it lacks are NaN."""
    index = open_index(path)
    rows = np.zeros((index.n_obs, index.n_vars))
    for chunk_id, chunk in enumerate(index.chunks):
        with index.reader(chunk_id) as reader:
            rows[chunk.first_row : chunk.first_row + chunk.n_obs] = (
                reader.read_rows(0, chunk.n_obs).to_scipy().toarray()
            )
    return pd.DataFrame(rows, columns=index.genes.names).reindex(columns=ALL_GENES)


@pytest.mark.parametrize("x_format", ["dense", "csr"])
def test_every_cell_once_with_its_values(paths: list[Path], x_format: str) -> None:
    module = module_of(paths, label_keys=["processed_dir", "donor_age", "quality"], x_format=x_format)
    counts, obs = pd.concat(map(dense, paths), ignore_index=True), module.index.obs()
    assert module.var_names == ALL_GENES and len(obs) == 840
    seen: list[int] = []
    for loader in (module.train_dataloader(), module.val_dataloader()):
        for batch in loader:
            rows = batch["index"].numpy()
            seen += rows.tolist()
            x = batch["x"] if x_format == "dense" else batch["x"].to_dense()
            np.testing.assert_array_equal(x, counts.iloc[rows].fillna(0))
            np.testing.assert_array_equal(module.gene_mask(batch["gene_set"]), counts.iloc[rows].notna())
            np.testing.assert_allclose(batch["library_size"], obs["total_counts"].to_numpy()[rows])
            np.testing.assert_array_equal(
                batch["obs"]["quality"], obs["quality"].to_numpy(float, na_value=np.nan)[rows]
            )
            for column in ("SRX_accession", "processed_dir"):
                found = np.array(module.categories[column])[batch["obs"][column]]
                assert found.tolist() == obs[column].astype(str).to_numpy()[rows].tolist()
    assert sorted(seen) == list(range(840))
    assert obs["processed_dir"].tolist() == [str(paths[0])] * 600 + [str(paths[1])] * 240


def test_columns_are_joined_by_name(paths: list[Path]) -> None:
    index, alone = open_dataset(paths), [open_index(path).obs() for path in paths]
    obs = index.obs()
    assert index.categories("SRX_accession") == ("SRX1", "SRX2", "SRX3", "SRX4", "SRX5")
    kinds = [str(obs.dtypes[name]) for name in ("donor_age", "quality", "total_counts")]
    assert kinds == ["float64", "Int64", "int64"]
    assert obs["quality"].isna().tolist() == [True] * 600 + [False] * 240
    for name in ("SRX_accession", "donor_age", "split_hash"):
        assert obs[name].tolist() == [*alone[0][name], *alone[1][name]]
    rows = [839, 3, 600, 599]
    assert index.obs(rows=rows).equals(obs.iloc[rows])
    stored = [table.to_pandas() for table in index.cells.obs_tables(np.array([3, 599, 600, 839]))]
    joined = pd.concat(stored, ignore_index=True).set_index("obs_name")
    assert joined["processed_dir"].tolist() == [str(path) for path in paths for _ in range(2)]
    assert joined["quality"].isna().tolist() == [True, True, False, False]
    assert joined["gene_set"].tolist() == obs["gene_set"].iloc[[3, 599, 600, 839]].tolist() == [0, 0, 1, 1]


def test_a_cell_stays_on_its_side_of_a_split(paths: list[Path]) -> None:
    def validation(given: Any) -> set[int]:
        return set(flat(rows_of(module_of(given).val_dataloader())))

    first, second = (validation(path) for path in paths)
    assert validation(paths) == first | {600 + row for row in second}
    assert validation(paths[::-1]) == second | {240 + row for row in first}


def test_batches_mix_all(paths: list[Path]) -> None:
    mixing, table = diversity_table(open_dataset(paths), batch_size=28, columns=["SRX_accession", "processed_dir"])
    assert len(mixing.row_groups) == 16 and table["share"].min() >= 0.99


@pytest.mark.parametrize(
    ("settings", "n_obs"),
    [
        ({"filter": "SRX_accession == 'SRX4'"}, 120),
        ({"filter": "processed_dir == '{b}' and quality < 100"}, 100),
        ({"include_srx_accessions": ["SRX1", "SRX5"]}, 320),
        ({"split": {"column": "processed_dir", "val": ["{b}"]}}, 840),
    ],
)
def test_selections_know_all_directories(paths: list[Path], settings: dict[str, Any], n_obs: int) -> None:
    text = {key: value.format(b=paths[1]) if isinstance(value, str) else value for key, value in settings.items()}
    if "split" in text:
        text["split"] = {"column": "processed_dir", "val": [str(paths[1])]}
    module = module_of(paths, **text)
    assert module.n_obs == n_obs
    if "split" in text:
        assert {row >= 600 for batch in module.val_dataloader() for row in batch["index"].tolist()} == {True}


def test_the_same_batches_by_threads_and_workers(paths: list[Path]) -> None:
    plain, *others = serve_all(paths, [Setting(1, 0, None, 4, EVERYTHING), Setting(1, 2, "fork", 1, 1)])
    assert [faults(made, plain) for made in others] == [[], []]


def test_ranks_share_the_cells(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[list[int]] = []
    for rank in range(2):
        monkeypatch.setattr(ChunkedDataModule, "_ranks", lambda _, rank=rank: (2, rank))
        served.append(flat(rows_of(module_of(paths, split=None).train_dataloader())))
    assert sorted(flat(served)) == list(range(840))


def test_a_run_goes_on_with_the_directories_it_had(paths: list[Path]) -> None:
    def epoch(state: dict[str, Any] | None, given: Any = paths) -> tuple[list[list[int]], dict[str, Any]]:
        module, made = module_of(given), []
        if state is not None:
            module.load_state_dict(state)
        for number, batch in enumerate(module.train_dataloader()):
            made.append(batch["index"].tolist())
            if number == 4:
                saved = module.state_dict()
        return made, saved

    whole, state = epoch(None)
    module = module_of(paths)
    module.load_state_dict(state)
    assert rows_of(module.train_dataloader()) == whole[5:]
    facts = module.facts()
    assert facts["data_path"] == [str(path) for path in paths] and facts["missing_genes"] == [5, 8]
    assert facts["content_hashes"] == [open_index(path).content_hash for path in paths]
    with pytest.raises(SelectionError, match="cannot resume: the saved run has content_hash="):
        epoch(state, paths[::-1])


def changed(change: Callable[[DatasetIndex], DatasetIndex]) -> Callable[[list[Path]], JoinedIndex]:
    return lambda paths: join([open_index(paths[0]), change(open_index(paths[1]))])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda paths: open_dataset([]), r"paths\.processed_dir=\[\] names no directory"),
        (lambda paths: open_dataset([paths[0]] * 2), "hold the same cells .* name each directory once"),
        (lambda paths: open_dataset(paths, generations=1), "generations=1 must have a number for each of the 2"),
        (lambda paths: open_dataset(paths, generations=[1, 2]), "b has 1 generations of cells, not 2"),
        (changed(lambda one: replace(one, normalization={**one.normalization, "target_sum": 5.0})),
         r"b has normalization\.target_sum=5\.0, .*a has 1000\.0, .* process one again with normalization\.target_s"),
        (changed(lambda one: replace(one, obs_columns={"processed_dir": one.obs_columns["quality"]})),
         "b has an obs column processed_dir, which is what"),
    ],
)  # fmt: skip
def test_what_cannot_be_one_is_named(paths: list[Path], made: Callable[..., Any], message: str) -> None:
    with pytest.raises(ScvaeDataError, match=message):
        made(paths)


def test_genes_of_another_species(paths: list[Path], tmp_path: Path) -> None:
    mouse, _, _ = make_dataset(tmp_path / "mouse", gene_names=[f"ENSMUSG{j:011d}" for j in range(20)])
    first = open_index(paths[0])
    first.__dict__["genes"] = replace(first.genes, symbols=first.genes.ids)
    with pytest.raises(SelectionError, match=r"mouse has none of the genes of .*a .*of one species"):
        join([first, open_index(mouse)])


def test_what_was_joined_is_told(paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more, _, _ = make_dataset(
        tmp_path / "c", gene_names=GENES["a"], seed=1, accessions=["SRX1"],
        more_obs=lambda obs: obs.assign(donor_age=[f"{age} years" for age in obs["donor_age"]]),
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        open_dataset([*paths, more]).tell()
    told = caplog.messages
    assert "a: 600 cells, 20 genes; 5 that it lacks are unmeasured (g20, g21, g22, g23, g24)" in told[0]
    assert "b: 240 cells, 17 genes, 5 of them added (g20, g21, g22, g23, g24); 8 that it lacks are unm" in told[1]
    assert "obs columns donor_age are left out" in told[3] and "donor_age is string" in told[3]
    assert "1 experiment in more than one directory (SRX1)" in told[4]
