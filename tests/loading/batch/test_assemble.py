from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.loading.batch.assemble import Batch
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.loading.loader import BatchLoader
from scvae_data.loading.stream import BatchStream, StreamSpec


def spec_of(directory: Directory, **settings: Any) -> StreamSpec:
    module = ChunkedDataModule(directory.path, **{"batch_size": 16, "split": None, "x_format": "compact", **settings})
    module.setup()
    return module.train_dataloader().spec


def plain(value: Any) -> Any:
    """Tensors as lists, wherever they are."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, SparseRows)) else value


def batches_of(spec: StreamSpec, **settings: Any) -> list[Batch | None]:
    return list(BatchStream(replace(spec, **settings)).batches(epoch=1))


@pytest.mark.parametrize("settings", [{}, {"counts": True}, {"x_format": "csr", "counts": True}, {"genes": [3, 1]}])
@pytest.mark.parametrize("together", [2, 5, 100])
def test_batches_made_together_equal_those_made_alone(
    hashed: Directory, settings: dict[str, Any], together: int
) -> None:
    spec = spec_of(hashed, max_chunks_in_memory=3, **settings)
    assert plain(batches_of(spec, together=together)) == plain(batches_of(spec, together=1))


def test_how_many_are_made_together(hashed: Directory) -> None:
    assert spec_of(hashed, batch_size=16).together == 64
    assert spec_of(hashed, batch_size=300).together == 3
    assert spec_of(hashed, x_format="dense").together == 1


def test_what_is_kept_of_batches_made_together_stays(hashed: Directory) -> None:
    spec = replace(spec_of(hashed, counts=True), together=4)
    stream = BatchStream(spec)
    kept = []
    for epoch in range(3):
        for batch in stream.batches(epoch):
            assert batch is not None
            assert batch["counts"] is batch["x"]
            kept.append((batch["index"], batch["x"], batch["library_size"]))
            batch["size_factor"][:] = -1
    for rows, x, library_size in kept:
        counts = hashed.counts[rows.numpy()]
        np.testing.assert_array_equal(x.to_dense().numpy(), counts)
        np.testing.assert_array_equal(library_size.numpy(), counts.sum(axis=1))


@pytest.mark.parametrize("start", [0, 3, 17])
def test_any_start(hashed: Directory, start: int) -> None:
    spec = replace(spec_of(hashed), together=4)
    wanted = batches_of(spec)[start:]
    got = list(BatchStream(spec).batches(1, start))
    assert plain(got) == plain(wanted)


def test_one_damaged_chunk_leaves_the_others_of_its_task(hashed: Directory, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "copy"
    shutil.copytree(hashed.path, path)
    victim = sorted(path.glob("chunk_*.h5"))[4]
    size = victim.stat().st_size
    with victim.open("r+b") as file:
        file.truncate(size // 2)
    module = ChunkedDataModule(path, batch_size=16, split=None, x_format="compact", on_bad_chunk="skip")
    module.setup()
    loader = module.train_dataloader()
    assert isinstance(loader, BatchLoader) and loader.spec.together > 1
    rows = [row for batch in loader for row in batch["index"].tolist()]
    assert len(rows) == len(set(rows))
    assert set(rows) <= {row for row in range(300) if not 120 <= row < 150}
    # A batch of one cell is left out whole.
    assert 265 <= len(rows) == 300 - module.counters()["train"]["skipped_cells"]
