"""What reports say of the cells that were held out, and that every recipe does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset
from tests.support.pipeline import run_pipeline
from tests.training.conftest import Compose

from scvae_data import ChunkedDataModule
from scvae_data.config import instantiate
from scvae_data.training.leakage import HeldOut, copies_across, held_out, told_columns, without_value

RECIPES = re.findall(r"^python train\.py (.*data\.split.*)$", Path("docs/holdout.md").read_text(), flags=re.MULTILINE)


def studied(obs: pd.DataFrame) -> pd.DataFrame:
    """Two donors in each of three experiments, which are of one study each."""
    donor = obs["SRX_accession"].astype(str) + obs["source_row"].mod(2).astype(str)
    study = obs["SRX_accession"].astype(str).map({"SRX1": "A", "SRX2": "B", "SRX3": "C"})
    return obs.assign(donor=pd.Categorical(donor), study=pd.Categorical(study))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, _, _ = make_dataset(tmp_path_factory.mktemp("studies") / "chunks", n_obs=300, more_obs=studied)
    return path


def served(make: Compose, tmp_path: Path, data: Path, recipe: str) -> ChunkedDataModule:
    cfg = make(tmp_path, *shlex.split(recipe), f"paths.processed_dir={data}", "data.batch_size=8")
    module: ChunkedDataModule = instantiate(cfg.data)
    module.setup()
    return module


def test_there_are_recipes() -> None:
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_holds_out_whole_groups(tmp_path: Path, train_config: Compose, studies: Path, recipe: str) -> None:
    module = served(train_config, tmp_path, studies, recipe)
    column = re.search(r"(?:by|column): (\w+)", recipe)[1]  # type: ignore[index]
    groups = {part: set(np.flatnonzero(module.group_counts(column, part))) for part in ("train", "val", "test")}
    shares_cells = column == "study" and "val" not in recipe  # of the studies that are left
    assert not groups["test"] & (groups["train"] | groups["val"])
    assert groups["val"] and (groups["val"] <= groups["train"] if shares_cells else not groups["val"] & groups["train"])
    if column == "study":
        names = np.array(module.index.categories("study"))
        assert set(names[list(groups["test"])]) == ({"A", "B"} if "[A, B]" in recipe else {"B"})
    told = [one[:4] for one in held_out(module, module_split(recipe)).shared]
    assert (column, "validation", len(groups["val"]), len(groups["val"] & groups["train"])) in told


def module_split(recipe: str) -> dict[str, str]:
    kind, column = re.search(r"(by|column): (\w+)", recipe).groups()  # type: ignore[union-attr]
    return {kind: column}


def test_experiments_batches_donors_and_studies_are_told(studies: Path) -> None:
    module = ChunkedDataModule(studies, 8, split={"by": "donor", "val": 0.2})
    module.setup()
    assert told_columns(module, {"by": "donor"}) == ["SRX_accession", "donor", "study"]
    told = held_out(module, {"by": "donor"})
    counts = dict(zip(module.index.categories("donor"), module.group_counts("donor", "val"), strict=False))
    (donor,) = (name for name, n_cells in counts.items() if n_cells)
    assert ("donor", "validation", 1, 0, 0.0, donor) in told.shared
    assert ("study", "validation", 1, 1, 1.0, "") in told.shared
    assert told.copies.startswith("Copies of one cell in several parts: not known")


@pytest.mark.parametrize(
    ("split", "where"),
    [
        ({"by": "cell_type", "val": 0.3}, "28 for training"),
        ({"column": "cell_type", "test": ["type0"], "val": 0.5}, r"\d+ for training, \d+ for validation"),
    ],
)
def test_cells_without_a_value_are_counted_where_they_go(studies: Path, split: dict[str, Any], where: str) -> None:
    module = ChunkedDataModule(studies, 8, split=split)
    module.setup()
    told = without_value(module, split)
    assert re.fullmatch(rf"28 of 300 cells have no value of cell_type, which the split is by: {where}\.", told)
    assert held_out(module, split).without == told
    assert not any(without_value(module, other) for other in ({"by": "donor"}, {"val": 0.1}, None))


def test_nothing_held_out_is_said(studies: Path) -> None:
    module = ChunkedDataModule(studies, 8, split=None)
    module.setup()
    assert held_out(module, None) == HeldOut()


def test_copies_across_parts_are_exact_for_whole_files_and_expected_for_shares() -> None:
    account = {"pairs": {"first_file": ["a", "a", "b"], "file": ["a", "b", "c"], "n_copies": [3, 10, 4]}}
    files = ["a", "b", "c"]
    whole = [np.array([100, 0, 50, 0]), np.array([0, 100, 0, 0])]  # b is held out
    assert copies_across(account, whole, files) == 10 + 4
    tenth = [np.array([90, 90, 45, 0]), np.array([10, 10, 5, 0])]
    assert copies_across(account, tenth, files) == pytest.approx(17 * 2 * 0.1 * 0.9)


def test_copies_of_a_directory_are_counted(tmp_path: Path) -> None:
    """Two experiments of the same 30 cells with 60 genes each, one of them held out."""
    import anndata

    x = np.random.default_rng(0).integers(1, 9, (30, 60)).astype(np.int32)
    files = []
    for name in ("SRX1", "SRX2"):
        obs = pd.DataFrame({"SRX_accession": name}, index=[f"{name}-{i}" for i in range(30)])
        var = pd.DataFrame(index=[f"ENSG{j:011d}" for j in range(60)])
        files.append(tmp_path / f"{name}.h5ad")
        anndata.AnnData(x.astype(np.float32), obs, var).write_h5ad(files[-1])
    run_pipeline(files, tmp_path / "chunks")
    module = ChunkedDataModule(tmp_path / "chunks", 8, split={"column": "SRX_accession", "val": ["SRX2"]})
    module.setup()
    assert "about 30 of 30 cells that equal another cell" in held_out(module, None).copies
