"""The recipes of docs/extending.md, run as they stand and through nothing but what is public."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.support.datasets import make_dataset

from scvae_data import ChunkedDataModule, ConfigError, SelectionError, open_index

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"
Recipe = Callable[[str], Path]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Write the files of a section into a folder on the import path, also of processes to come."""
    folder = tmp_path / "mine"
    folder.mkdir()

    def write(heading: str) -> Path:
        section = re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)
        (text,) = [part for part in section if part.startswith(f"{heading}\n")]
        for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            (folder / name).write_text(code)
        return folder

    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield write
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def batches(path: Path, **settings: Any) -> list[dict[str, Any]]:
    module = ChunkedDataModule(path, **{"batch_size": 16, "split": None, "normalized": False, **settings})
    module.setup()
    made = list(module.train_dataloader())
    module.teardown()
    return made


# --- a codec ---------------------------------------------------------------------------------------------------------


def test_a_codec_of_ones_own(recipe: Recipe, tmp_path: Path) -> None:
    recipe("A codec")
    path, x, _ = make_dataset(tmp_path / "zstd", n_obs=120, compression="my_codecs.Zstd")
    assert open_index(path).codec.name == "my_codecs.Zstd"
    wanted = batches(make_dataset(tmp_path / "gzip", n_obs=120)[0])
    for settings in ({}, {"num_workers": 1, "multiprocessing_context": "spawn"}):
        for mine, its in zip(batches(path, **settings), wanted, strict=True):
            assert torch.equal(mine["x"], its["x"]) and torch.equal(mine["index"], its["index"])
    with h5py.File(path / "chunk_0000.h5") as file:  # hdf5plugin, which writing imported, reads them too
        assert np.array_equal(file["X/data"][()], x[:30].data)


def test_a_directory_does_not_import_its_codec(recipe: Recipe, tmp_path: Path) -> None:
    recipe("A codec")
    path, *_ = make_dataset(tmp_path / "zstd", compression="my_codecs.Zstd")
    command = "from scvae_data import open_index; index = open_index({!r}); print(index.codec.level)"
    told = subprocess.run([sys.executable, "-c", command.format(str(path))], capture_output=True, text=True)
    assert told.stderr.splitlines()[-1].endswith(
        "compressed by my_codecs.Zstd, which is not imported just because a file says so; if you trust it, import "
        "my_codecs first, or give scvae-data train chunking.compression=my_codecs.Zstd"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import my_codecs; {command.format(str(path))}"], capture_output=True, text=True
    )
    assert done.stdout == "3\n", done.stderr


# --- a sampler -------------------------------------------------------------------------------------------------------

SAMPLER = "my_samplers.OneExperiment"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("sampler") / "data", n_obs=300)[0]


def rows_of(made: list[dict[str, Any]]) -> list[list[int]]:
    return [batch["index"].tolist() for batch in made]


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_threads": 4}, {"num_workers": 2}, {"num_workers": 1, "multiprocessing_context": "spawn"}],
    ids=str,
)
def test_a_sampler_of_ones_own(recipe: Recipe, cells: Path, settings: dict[str, Any]) -> None:
    recipe("A sampler")
    made = batches(cells, sampler=SAMPLER, **settings)
    assert all(len(batch["obs"]["SRX_accession"].unique()) == 1 for batch in made)
    assert sorted(row for rows in rows_of(made) for row in rows) == list(range(300))
    assert rows_of(made) == rows_of(batches(cells, sampler=SAMPLER))


def module_of(cells: Path, **settings: Any) -> ChunkedDataModule:
    module = ChunkedDataModule(cells, **{"batch_size": 16, "sampler": SAMPLER, **settings})
    module.setup()
    return module


def test_it_is_resumed_within_an_epoch(recipe: Recipe, cells: Path) -> None:
    recipe("A sampler")
    whole = module_of(cells)
    epochs = [rows_of(list(whole.train_dataloader())) for _ in range(2)]
    assert epochs[0] != epochs[1]
    first = module_of(cells)
    for number, _ in enumerate(loader := first.train_dataloader()):
        if number == 4:
            break
    state = first.state_dict()
    assert state["sampler"] == SAMPLER and loader.next_batch == 5
    rest = module_of(cells)
    rest.load_state_dict(state)
    assert rows_of(list(rest.train_dataloader())) == epochs[0][5:]
    assert rows_of(list(rest.train_dataloader())) == epochs[1]
    for changed in ({"sampler": None}, {"seed": 1}):
        other = module_of(cells, **changed)
        other.load_state_dict(state)
        with pytest.raises(SelectionError, match="cannot resume"):
            other.train_dataloader()


def test_it_shares_among_ranks_or_is_refused(recipe: Recipe, cells: Path) -> None:
    recipe("A sampler")
    from my_samplers import OneExperiment  # type: ignore[import-not-found]

    from scvae_data.loading import ListedEpoch

    class Shared(OneExperiment):
        def __init__(self, cells: Any) -> None:
            self.world_size, self.rank = cells.world_size, cells.rank
            super().__init__(cells)

        def epoch(self, number: int) -> ListedEpoch:
            whole = super().epoch(number)
            n_each = whole.n_batches // self.world_size
            mine = [list(batch.segments) for batch in list(whole.batches())[self.rank :: self.world_size]]
            return ListedEpoch(whole.windows, mine[:n_each])

    trainer = SimpleNamespace(world_size=2, global_rank=0, num_nodes=1)
    module = ChunkedDataModule(cells, batch_size=16, sampler=SAMPLER)
    module.trainer = trainer
    with pytest.raises(ConfigError, match=r"sampler=my_samplers\.OneExperiment serves 1 rank\(s\), this run has 2"):
        module.setup()
    seen = []
    for rank in range(2):
        module = ChunkedDataModule(cells, batch_size=16, sampler=Shared, split=None)
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank, num_nodes=1)
        module.setup()
        loader = module.train_dataloader()
        seen += [row for rows in rows_of(list(loader)) for row in rows]
        state = {**module.state_dict(), "next_batch": 3}
    assert len(seen) == len(set(seen)) > 250
    alone = module_of(cells, sampler=Shared, split=None)
    alone.load_state_dict(state)
    with pytest.raises(SelectionError, match=r"had 2 rank\(s\) and this one 1, and the sampler cannot share"):
        alone.train_dataloader()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "no_such.Sampler"}, r"sampler='no_such\.Sampler' cannot be imported"),
        ({"sampler": "os.sep"}, r"sampler='os\.sep' must be a class or function"),
        ({"sampler": "types.SimpleNamespace", "range_rows": 3}, "sampler decides the order by itself; leave out"),
        ({"sampler": lambda cells: cells}, r"which has no n_rows; docs/extending\.md"),
    ],
    ids=["absent", "no function", "beside range_rows", "no sampler"],
)
def test_mistakes_are_told_in_one_line(cells: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ChunkedDataModule(cells, **settings).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("windows", "batches", "n_batches", "message"),
    [
        ([[0]], [[(0, [0, 999])]], 1, r"asks for rows 0 to 999 of a window of 30"),
        ([[0], [1]], [[(1, [0, 1])], [(0, [0, 1])]], 2, "go back to a window that was passed"),
        ([[0]], [[(0, [0, 1])]], 7, "ends epoch 0 after 1 of its n_batches=7 batches"),
    ],
    ids=["beyond", "backwards", "short"],
)
def test_a_sampler_that_errs(cells: Path, windows: Any, batches: Any, n_batches: int, message: str) -> None:
    from scvae_data.loading import ListedEpoch, Segment

    def listed(_: int) -> ListedEpoch:
        return ListedEpoch(windows, [[Segment(at, np.array(rows)) for at, rows in batch] for batch in batches])

    wrong = SimpleNamespace(n_rows=300, n_batches=n_batches, batch_size=16, window=1, world_size=1, epoch=listed)
    module = ChunkedDataModule(cells, split=None, batch_size=16, sampler=lambda _: wrong)
    module.setup()
    with pytest.raises(ConfigError, match=message):
        list(module.train_dataloader())
