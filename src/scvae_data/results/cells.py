"""A model and a directory in; the directory's cells, as the model takes them, batch by batch out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.filter import check_filter
from scvae_data.loading.datamodule import ChunkedDataModule
from scvae_data.progress import progress
from scvae_data.remote.location import Location
from scvae_data.results.align import AlignedData
from scvae_data.results.model import Model, served_columns
from scvae_data.store import open_dataset

__all__ = ["Block", "Data", "batches", "device_batches", "drawing", "elbos", "facts_of_model", "latents", "served"]

Data = str | Location | Sequence[str | Location] | ChunkedDataModule
"""A directory, several, or a data module of them, whose accessions, filter and generations count."""

BATCH_SIZE = 256


class Block(NamedTuple):
    """Values of some cells."""

    rows: NDArray[np.int64]
    """Global rows of the cells, ascending, (n,)."""
    values: NDArray[np.float32]
    """Their values, (n, n_columns)."""


def latents(model: Model, data: AlignedData) -> Iterator[Block]:
    """Mean of the latent of each selected cell."""
    for batch in batches(model, data, data.predict_dataloader(), "latents"):
        with torch.inference_mode():
            yield block(batch, model.posterior(batch)[0])


def elbos(model: Model, data: AlignedData, n_samples: int, seed: int) -> Iterator[Block]:
    """ELBO, reconstruction and KL divergence of each selected cell in nats, means over ``n_samples`` draws."""
    check_samples(n_samples)
    for number, batch in enumerate(batches(model, data, data.predict_dataloader(), "elbo")):
        with torch.inference_mode(), drawing(seed, number, model.device):
            drawn = [model.elbo_terms(batch) for _ in range(n_samples)]
            recon, kl = (torch.stack([terms[name] for terms in drawn]).mean(dim=0) for name in ("recon", "kl"))
            found = block(batch, torch.stack([recon - kl, recon, kl], dim=1))
        yield found


def served(model: Model, data: Data, where: str | None = None, *, tell: bool = True) -> AlignedData:
    """The cells of a directory for which a filter is true, with the genes and categories of a model.

    What the directory lacks of them is said in the log, unless ``tell`` is false.

    Raises
    ------
    ConfigError
        If the model was not built yet, or ``where`` is given beside a data module with a filter of its own.
    ScvaeDataError
        If the directory cannot be read, has none of the model's genes, or no such cell.
    """
    if model.facts is None:
        raise ConfigError("the model was not built yet; train it, or load one with VAE.load(folder)")
    own: dict[str, Any] = {"filter": check_filter(where, "where")}
    path: str | Location | Sequence[str | Location]
    if isinstance(data, ChunkedDataModule):
        if where is not None and data.filter is not None:
            raise ConfigError(f"where={where!r} is given beside filter={data.filter!r}; put both into one of them")
        path = data.data_path
        own = {
            "filter": data.filter if where is None else where,
            "include_srx_accessions": data.include_srx_accessions,
            "exclude_srx_accessions": data.exclude_srx_accessions,
            "generations": data.generations,
        }
    else:
        path = data
    own |= served_columns(model.hparams, open_dataset(path).obs_columns)
    # One cell is enough; that there is a whole batch of them is checked for training.
    module = ChunkedDataModule(path, batch_size=1, split=None, normalized=False, **own)
    if isinstance(data, ChunkedDataModule):
        module.disk_cache = data.disk_cache
    module.setup("predict")
    module.batch_size = BATCH_SIZE
    facts = facts_of_model(model)
    if model.normalized and facts["normalization"] is None:
        raise ConfigError("the model does not know how its values were normalised; load a checkpoint of train.py")
    cells = AlignedData(module, model, facts)
    if tell:
        cells.report()
    return cells


def facts_of_model(model: Model) -> Mapping[str, Any]:
    """What is known of the dataset that a model was trained on, as its run records it."""
    assert model.facts is not None
    if recorded := model.record.get("facts"):
        return dict(recorded)
    own = model.facts
    known = {name: own.get(name) for name in ("gene_list_hash", "content_hash", "normalization")}
    return {**known, "n_vars": own.get("n_vars_directory", own["n_vars"])}


def batches(model: Model, data: AlignedData, loader: Any, what: str) -> Iterator[dict[str, Any]]:
    """Batches of a loader of ``data`` on the device of the model, which leaves training."""
    model.eval()
    yield from device_batches(data, loader, model.device, what)


def device_batches(data: Any, loader: Any, device: torch.device, what: str) -> Iterator[dict[str, Any]]:
    """Batches of a loader on a device, as a trainer hands them to the model."""
    for batch in progress(loader, total=len(loader), desc=what, unit="batch"):
        on_device = data.transfer_batch_to_device(data.on_before_batch_transfer(batch, 0), device, 0)
        yield data.on_after_batch_transfer(on_device, 0)


def block(batch: Mapping[str, Any], values: torch.Tensor) -> Block:
    """Values of the cells of a batch, here."""
    return Block(batch["index"].cpu().numpy(), values.float().cpu().numpy())


@contextmanager
def drawing(seed: int, number: int, device: torch.device) -> Iterator[None]:
    """Let torch draw from a stream of its own, that of batch ``number``; afterwards it goes on as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        yield


def check_samples(n_samples: int) -> None:
    """Refuse a number of draws that is none."""
    if isinstance(n_samples, bool) or not isinstance(n_samples, int) or n_samples < 1:
        raise ConfigError(f"n_samples={n_samples} must be a whole number of draws, at least 1")
