"""A model and two groups of cells in, how the expression of each gene changes from one to the other out.

The test is that of Boyeau et al. (2019, bioRxiv 794289; 2023, PNAS 120,
e2209124120), the ``mode="change"`` of scvi-tools' ``differential_expression``:
pairs of cells, one of each group, are drawn from the posterior, and a gene is
differentially expressed as far as the log2 fold change of its share of the
counts exceeds ``delta`` in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.filter import check_filter, columns_in
from scvae_data.results.align import AlignedData
from scvae_data.results.cells import Data, batches, check_samples, drawing, served
from scvae_data.results.expression import as_if_in, batch_codes, genes_of
from scvae_data.results.model import Model
from scvae_data.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChangeTest", "differential_expression"]

PAIRS = 256  # decoded at once
BLOCK_BYTES = 128_000_000  # fold changes of all pairs that are held at once, for some of the genes
UNEXPRESSED = 0.01  # a gene with fewer counts a cell in a group tells how large shares are by mistake
QUANTILE = 0.9  # of such genes' largest shares
LEAST = 1e-10  # pseudocount
SHRUNK = 1e-3  # of the pseudocount, where fold changes are described and not tested
EPS = 1e-8


@dataclass(frozen=True)
class ChangeTest:
    """Settings of a test for differential expression.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    delta: float = 0.25
    """Smallest log2 fold change that counts."""
    pseudocounts: float | None = None
    """Added to shares before they are compared; None: from genes that a group does not express."""
    fdr: float = 0.05
    """Expected share of false discoveries among the genes that are called."""
    n_samples: int = 5_000
    """Pairs of cells drawn, and most cells of a group that they are drawn from: a random choice by the seed."""
    batch_correction: bool = False
    """Compare the cells of a pair as if both were of one batch, over all batches in turn."""
    batches: str | Sequence[str] | None = None
    """Those batches; None: all that training has seen."""
    seed: int = 0
    """Of the choice of cells and the draws."""

    def __post_init__(self) -> None:
        check_samples(self.n_samples)
        for name, low, high in (("delta", 0, np.inf), ("pseudocounts", 0, 1), ("fdr", 0, 1)):
            value = getattr(self, name)
            if value is None and name == "pseudocounts":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"{name}={value} must be a number from {low}" + ("" if high > 1 else f" to {high}"))
        if self.batches is not None and not self.batch_correction:
            named = self.batches if isinstance(self.batches, str) else f"[{', '.join(self.batches)}]"
            raise ConfigError(f"batches={named} are for batch_correction=True; set it, or leave them out")


@dataclass(frozen=True)
class Group:
    """Some cells of a group, as their posterior knows them; tensors on the model's device."""

    obs: dict[str, Tensor]
    """Columns of the cells, (n,) each."""
    mean: Tensor
    """Of the latent, (n, n_latent)."""
    log_var: Tensor
    """Of the latent, (n, n_latent)."""
    counts: NDArray[np.float64]
    """Mean counts of each gene, (n_vars,)."""
    nonzero: NDArray[np.float64]
    """Share of cells that have any, (n_vars,)."""


def differential_expression(
    model: Model, data: Data, groups: tuple[str, str | None], test: ChangeTest, where: str | None = None
) -> pd.DataFrame:
    """Test each gene of the model for a change between two groups of cells.

    At most ``n_samples`` cells of each group are read, chosen by the seed;
    memory and time do not grow with the cells beyond what filters take.

    Parameters
    ----------
    model
        Of counts.
    data
        A directory, or a data module of one.
    groups
        Filters of obs; the second None for the cells that the first leaves out
        and that have a value in each column that it names.
    test
        How.
    where
        A filter of the cells of both groups.

    Returns
    -------
    A row for each gene, most certain changes first: ``gene_symbol``,
    ``proba_de``, ``proba_not_de``, ``bayes_factor`` (natural log), ``scale1`` and
    ``scale2`` (mean shares), ``lfc_mean``, ``lfc_median``, ``lfc_std``,
    ``lfc_min``, ``lfc_max`` (log2, group 1 over group 2), ``raw_mean1``,
    ``raw_mean2``, ``non_zeros_proportion1``, ``non_zeros_proportion2`` (of the
    cells read), ``pseudocounts``, ``delta``, ``n_cells1`` and ``n_cells2`` (sizes
    of the groups), ``n_cells_left_out`` (of neither group, for want of a value)
    and ``is_de_fdr_…``.

    Raises
    ------
    ConfigError
        If the model has no counts, or corrects for no batch and shall.
    SelectionError
        If a group has no cell, or a filter names what is not there.
    """
    first, second = groups
    for name, text in (("group1", first), ("group2", second), ("where", where)):
        check_filter(text, name)
    cells = (
        _served_as("group1", model, data, _within(where, first), tell=True),
        _others(model, data, first, where)
        if second is None
        else _served_as("group2", model, data, _within(where, second), tell=False),
    )
    one, other = (read_group(model, group, test) for group in cells)
    n_first, n_second = (group.n_obs for group in cells)
    if n_first == n_second and torch.equal(one.mean, other.mean):
        raise SelectionError(
            f"group1 and group2 are the same {counted(n_first, 'cell')}, between which nothing changes; "
            "name others in one of them"
        )
    n_all = served(model, data, where, tell=False).n_obs if second is None else n_first + n_second
    return compare(model, one, other, test).assign(
        n_cells1=n_first, n_cells2=n_second, n_cells_left_out=n_all - n_first - n_second
    )


def _others(model: Model, data: Data, first: str, where: str | None) -> AlignedData:
    """The cells that a filter leaves out for what they are, not for what is unknown of them."""
    columns = columns_in(first, "group1")
    known = [f"{column} not in []" for column in columns]  # false for a missing value alone
    try:
        return served(model, data, _within(where, " and ".join([f"not ({first})", *known])), tell=False)
    except SelectionError as error:
        named = " and ".join(columns)
        raise SelectionError(
            f"group2: no cell beside those of group1={first} has a value of {named}; name others in group2"
        ) from error


def _within(where: str | None, text: str) -> str:
    return text if where is None else f"({where}) and ({text})"


def _served_as(name: str, model: Model, data: Data, text: str, *, tell: bool) -> AlignedData:
    """Cells of a group; what is wrong with them is told with its name."""
    try:
        return served(model, data, text, tell=tell)
    except SelectionError as error:
        raise SelectionError(f"{name}: {str(error).removeprefix('filter: ')}") from error


def read_group(model: Model, data: AlignedData, test: ChangeTest) -> Group:
    """Posterior and counts of at most ``n_samples`` cells."""
    parts: list[tuple[Tensor, Tensor]] = []
    obs: list[dict[str, Tensor]] = []
    sums = torch.zeros(2, len(genes_of(model).names), dtype=torch.float64)
    for batch in batches(model, data, data.sample_dataloader(test.n_samples, test.seed), "de"):
        with torch.inference_mode():
            parts.append(model.posterior(batch))
            obs.append(batch["obs"])
            x = batch["x"]
            sums += torch.stack([x.double().sum(0), (x > 0).double().sum(0)]).cpu()
    mean, log_var = (torch.cat(values) for values in zip(*parts, strict=True))
    columns = {name: torch.cat([part[name] for part in obs]) for name in obs[0]}
    counts, nonzero = (sums / len(mean)).numpy()
    return Group(columns, mean, log_var, counts, nonzero)


class Pairs:
    """Draws of cells of two groups, pair by pair: the same however often they are decoded."""

    def __init__(self, model: Model, groups: tuple[Group, Group], test: ChangeTest) -> None:
        self._model = model
        rng = np.random.default_rng([test.seed, 1])
        self._obs: list[dict[str, Tensor]] = []
        self._z: list[Tensor] = []
        for number, group in enumerate(groups):
            picks = torch.from_numpy(rng.integers(len(group.mean), size=test.n_samples)).to(group.mean.device)
            with drawing(test.seed, number, group.mean.device):
                mean = group.mean[picks]
                self._z.append(mean + torch.randn_like(mean) * torch.exp(0.5 * group.log_var[picks]))
            self._obs.append({name: values[picks] for name, values in group.obs.items()})
        self._codes = self._shared_batches(test, rng)
        self.n = test.n_samples

    def shares(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Shares of all genes in the cells of some pairs, of the first group and of the second; (n, n_vars) each."""
        for start in range(0, self.n, PAIRS):
            pairs = slice(start, start + PAIRS)
            with torch.inference_mode():
                yield self._decoded(0, pairs), self._decoded(1, pairs)

    def _decoded(self, which: int, pairs: slice) -> Tensor:
        batch: dict[str, Any] = {"obs": {name: values[pairs] for name, values in self._obs[which].items()}}
        codes = None if self._codes is None else self._codes[pairs]
        return self._model.log_shares(self._z[which][pairs], as_if_in(self._model, batch, codes)).exp()

    def _shared_batches(self, test: ChangeTest, rng: np.random.Generator) -> NDArray[np.int64] | None:
        """Batch that both cells of each pair are decoded for; None: each its own."""
        if not test.batch_correction:
            return None
        names = test.batches
        if names is None:
            assert self._model.facts is not None
            categories = self._model.facts["categories"]
            seen = self._model.seen_of(self._model.hparams["batch_key"])
            names = [name for name, known in zip(categories, seen, strict=True) if known]
        codes = np.array(batch_codes(self._model, names, "batches"), dtype=np.int64)
        return rng.permutation(codes)[np.arange(test.n_samples) % len(codes)]


def compare(model: Model, first: Group, second: Group, test: ChangeTest) -> pd.DataFrame:
    """Decode pairs of cells and describe the fold changes between them."""
    import pandas as pd  # here: training needs none of it

    pairs = Pairs(model, (first, second), test)
    largest, scales = largest_and_mean(pairs)
    pseudocounts = test.pseudocounts
    if pseudocounts is None:
        pseudocounts = max(offset(values, group) for values, group in zip(largest, (first, second), strict=True))
    genes = genes_of(model)
    width = max(1, BLOCK_BYTES // (4 * pairs.n))
    blocks = [slice(start, start + width) for start in range(0, genes.n_vars, width)]
    parts = [changes(pairs, block, pseudocounts, test.delta) for block in blocks]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    proba = found.pop("proba_de")
    table = {
        "gene_symbol": genes.symbols,
        "proba_de": proba,
        "proba_not_de": 1 - proba,
        "bayes_factor": np.log(proba + EPS) - np.log(1 - proba + EPS),
        "scale1": scales[0],
        "scale2": scales[1],
        **found,
        "raw_mean1": first.counts,
        "raw_mean2": second.counts,
        "non_zeros_proportion1": first.nonzero,
        "non_zeros_proportion2": second.nonzero,
        "pseudocounts": pseudocounts,
        "delta": test.delta,
    }
    frame = pd.DataFrame(table, index=pd.Index(genes.names, dtype=object, name="gene"))
    order = np.lexsort((-np.abs(found["lfc_median"]), -proba))  # many changes are certain; the largest come first
    frame = frame.iloc[order]
    frame[f"is_de_fdr_{test.fdr:g}"] = called(frame["proba_de"].to_numpy(), test.fdr)
    return frame


def largest_and_mean(pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest and mean share of each gene in both groups; (2, n_vars) each."""
    largest: Tensor | None = None
    total: Tensor | None = None
    for shares in pairs.shares():
        both = torch.stack([part.amax(dim=0) for part in shares])
        sums = torch.stack([part.double().sum(dim=0) for part in shares])
        largest = both if largest is None else torch.maximum(largest, both)
        total = sums if total is None else total + sums
    assert largest is not None and total is not None
    return largest.double().cpu().numpy(), (total / pairs.n).cpu().numpy()


def offset(largest: NDArray[np.float64], group: Group) -> float:
    """Pseudocount that a group asks for: what shares of genes that it does not express come to, over all genes."""
    unexpressed = group.counts < UNEXPRESSED
    if not unexpressed.any():
        return LEAST
    return max(LEAST, float(np.quantile(largest[unexpressed], QUANTILE)) / len(largest))


def changes(pairs: Pairs, genes: slice, pseudocounts: float, delta: float) -> dict[str, NDArray[np.float64]]:
    """Probability of a change of at least ``delta``, up or down, and log2 fold changes of some genes."""
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    described: list[NDArray[np.float32]] = []
    for shares in pairs.shares():
        one, other = (part[:, genes] for part in shares)
        tested = torch.log2(one + pseudocounts) - torch.log2(other + pseudocounts)
        ups.append((tested >= delta).sum(dim=0))
        downs.append((tested < -delta).sum(dim=0))
        shrunk = torch.log2(one + SHRUNK * pseudocounts) - torch.log2(other + SHRUNK * pseudocounts)
        described.append(shrunk.cpu().numpy())
    lfc = np.concatenate(described)
    proba = torch.maximum(torch.stack(ups).sum(dim=0), torch.stack(downs).sum(dim=0)).cpu().numpy() / pairs.n
    return {
        "proba_de": proba,
        "lfc_mean": lfc.mean(axis=0, dtype=np.float64),
        "lfc_median": np.median(lfc, axis=0).astype(np.float64),
        "lfc_std": lfc.std(axis=0, dtype=np.float64),
        "lfc_min": lfc.min(axis=0).astype(np.float64),
        "lfc_max": lfc.max(axis=0).astype(np.float64),
    }


def called(proba: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Genes, most certain first, that may be called with an expected share of at most ``fdr`` false ones."""
    expected = np.cumsum(1 - proba) / np.arange(1, len(proba) + 1)
    return np.arange(len(proba)) < np.count_nonzero(expected <= fdr)
