"""The data module under a trainer: what Lightning asks for, and resuming in the middle of an epoch."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.loading.conftest import Directory, flat

from scvae_data import ChunkedDataModule
from scvae_data.loading.batch.sparse import SparseRows

# Lightning's own use of torch, in releases of torch that are newer than it.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Linear(lightning.LightningModule):
    """Learns library sizes, and records which cells it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: torch.nn.Linear | None = None
        self.seen: list[list[int]] = []

    def configure_model(self) -> None:
        if self.layer is None:
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(self.trainer.datamodule.n_vars, 1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["index"].tolist())
        return (self.layer(batch["x"])[:, 0] - batch["library_size"].log()).square().mean()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch["x"]).mean())

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return batch["index"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer_of(folder: Path, **settings: Any) -> lightning.Trainer:
    return lightning.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            **settings,
        }
    )


def data_of(directory: Directory, **settings: Any) -> ChunkedDataModule:
    return ChunkedDataModule(directory.path, **{"batch_size": 32, "chunk_cache_size": 3, **settings})


def weights(model: Linear) -> torch.Tensor:
    assert model.layer is not None
    return torch.cat([parameter.detach().flatten() for parameter in model.layer.parameters()])


@pytest.mark.parametrize(("takes", "x_format", "kind"), [
    (True, "csr", SparseRows), (False, "csr", torch.Tensor), (True, "compact", torch.Tensor),
])  # fmt: skip
def test_sparse_rows_stay_so_for_a_model_that_takes_them(
    hashed: Directory, tmp_path: Path, takes: bool, x_format: Any, kind: type
) -> None:
    class Recording(Linear):
        takes_sparse_rows = takes
        kinds: ClassVar[set[type]] = set()

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            self.kinds.add(type(batch["x"]))
            x = batch["x"] if torch.is_tensor(batch["x"]) else batch["x"].to_dense()
            return super().training_step({**batch, "x": x}, batch_idx)

        def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
            self.kinds.add(type(batch["x"]))

    model = Recording()
    trainer_of(tmp_path, max_steps=1).fit(model, datamodule=data_of(hashed, x_format=x_format))
    assert model.kinds == {kind}


def test_fit_sees_every_training_cell_in_every_epoch(hashed: Directory, tmp_path: Path) -> None:
    model, data = Linear(), data_of(hashed)
    trainer_of(tmp_path).fit(model, datamodule=data)
    n_batches = data.facts()["batches_per_epoch"]
    epochs = [flat(model.seen[first : first + n_batches]) for first in range(0, 3 * n_batches, n_batches)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(epochs[0])] * 3
    assert len(epochs[0]) == data.n_cells("train") and epochs[0] != epochs[1] != epochs[2]
    counters = data.counters()
    assert counters["train"]["hit_rate"] == counters["train"]["predicted_hit_rate"] == pytest.approx(2 * 3 / 30)
    assert counters["train"]["cells"] == 3 * data.n_cells("train")


def test_a_limited_epoch_is_followed_by_another(hashed: Directory, tmp_path: Path) -> None:
    model, data = Linear(), data_of(hashed)
    trainer_of(tmp_path, limit_train_batches=2, limit_val_batches=1).fit(model, datamodule=data)
    reference = data_of(hashed)
    reference.setup()
    loader = reference.train_dataloader()
    expected = []
    for _ in range(3):
        expected += [batch["index"].tolist() for batch in loader][:2]
    assert model.seen == expected


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("step", [2, 9, 12, 18])
def test_resume_equals_a_run_without_interruption(
    hashed: Directory, tmp_path: Path, step: int, num_workers: int
) -> None:
    """Nine batches an epoch: in the first epoch, at its end, in the second, at its end."""
    whole = Linear()
    trainer_of(tmp_path).fit(whole, datamodule=data_of(hashed))
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    saving = {"callbacks": [keep], "enable_checkpointing": True}
    first = Linear()
    stopped = trainer_of(tmp_path, max_steps=step, max_epochs=-1, **saving)
    stopped.fit(first, datamodule=data_of(hashed, num_workers=num_workers))
    second, data = Linear(), data_of(hashed)
    resumed = trainer_of(tmp_path, **saving)
    resumed.fit(second, datamodule=data, ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=True)
    assert first.seen + second.seen == whole.seen
    assert torch.equal(weights(second), weights(whole))
    assert data.state_dict()["epoch"] == 2


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_checkpoint_of_two_ranks_goes_on_with_one(hashed: Directory, tmp_path: Path) -> None:
    """The checkpoint of one rank, made to be that of the first of two, which both stopped after three batches."""
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    saving = {"callbacks": [keep], "enable_checkpointing": True}
    trainer_of(tmp_path, max_steps=3, max_epochs=-1, **saving).fit(Linear(), datamodule=data_of(hashed))
    checkpoint = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    loaders = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    for state in (*loaders, checkpoint["ChunkedDataModule"]):
        assert (state["world_size"], state["next_batch"]) == (1, 3)
        state["world_size"] = 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    reference = data_of(hashed)
    reference.setup()
    plan = reference.train_dataloader().spec.sampler
    row_groups = reference.train_dataloader().spec.row_groups
    done = []
    for rank in range(2):
        share = replace(plan, world_size=2, rank=rank).epoch(0)
        for batch in islice(share.batches(), 3):
            for segment in batch.segments:
                rows = [row_groups[group].global_rows(slice(None)) for group in share.windows[segment.window]]
                done += np.concatenate(rows)[segment.slots].tolist()
    model = Linear()
    resumed = trainer_of(tmp_path, max_epochs=2, **saving)
    resumed.fit(model, datamodule=data_of(hashed), ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    n_rest = len(model.seen) - plan.n_batches
    assert sorted(done + flat(model.seen[:n_rest])) == sorted(flat(model.seen[n_rest:]))
    assert resumed.current_epoch == 2


def test_predict_yields_cells_in_global_order(hashed: Directory, tmp_path: Path) -> None:
    data = data_of(hashed, include_srx_accessions="SRX2")
    rows = torch.cat(trainer_of(tmp_path).predict(Linear(), datamodule=data)).tolist()
    accessions = hashed.obs["SRX_accession"].to_numpy(object)
    assert rows == [row for row in range(300) if accessions[row] == "SRX2"]


def test_a_checkpoint_of_one_directory_predicts_another(
    hashed: Directory, by_source: Directory, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, max_epochs=1)
    trainer.fit(Linear(), datamodule=data_of(hashed))
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    rows = trainer_of(tmp_path).predict(
        Linear(), datamodule=data_of(by_source), ckpt_path=tmp_path / "done.ckpt", weights_only=True
    )
    assert torch.cat(rows).tolist() == list(range(300))
