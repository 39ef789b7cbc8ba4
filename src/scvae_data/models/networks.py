"""Multilayer perceptrons of the VAE: expression in, latent distribution out, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn

from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models import fused
from scvae_data.models.densities import widened

__all__ = ["Covariates", "Decoder", "Encoder", "MlpShape"]

MOMENTUM = 0.01  # weight of the latest batch in running statistics, in the long run
RECENT = 10  # until then its weight is RECENT / (RECENT + batches before it)


@dataclass(frozen=True)
class MlpShape:
    """What encoder and decoder have in common."""

    n_hidden: int = 128
    """Width of each hidden layer."""
    n_layers: int = 1
    """Hidden layers."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation between the linear map and the ReLU."""
    n_codes: int = 0
    """Codes of all categorical covariates together, each with one for "unknown"; 0: no such covariate."""
    n_categorical: int = 1
    """Categorical covariates that share these codes."""
    n_continuous: int = 0
    """Continuous covariates, which the first layer sees."""
    batch_dim: int = 0
    """Length of the learned vector that stands for a code; 0: one-hot."""


class Covariates(NamedTuple):
    """What the networks are told of cells beside their expression or latents."""

    codes: Tensor
    """int64 (n, n_categorical): of each covariate the number of its code among those of all."""
    numbers: Tensor
    """float32 (n, n_continuous): standardised."""


class Covariate(nn.Module):
    """What covariates add to the input of a layer's nonlinearity.

    Concatenating one-hot codes to the input of a linear map is the same as
    adding columns of its weights, so the columns are looked up and no one-hot
    matrix is built.

    Parameters
    ----------
    shape
        Number of covariates, of codes and length of their vectors.
    n_in
        Inputs of the linear map beside it, for the scale of the first values.
    n_out
        Outputs of the linear map beside it.
    """

    def __init__(self, shape: MlpShape, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = (n_in + shape.n_codes + shape.n_continuous) ** -0.5
        self.table: nn.Embedding | None = None
        self.weight: nn.Linear | None = None
        self.numbers: nn.Linear | None = None
        if shape.n_codes:
            self.table = nn.Embedding(shape.n_codes, shape.batch_dim or n_out)
            if shape.batch_dim:
                self.weight = nn.Linear(shape.n_categorical * shape.batch_dim, n_out, bias=False)
            else:
                nn.init.uniform_(self.table.weight, -bound, bound)
        if shape.n_continuous:
            self.numbers = nn.Linear(shape.n_continuous, n_out, bias=False)
            nn.init.uniform_(self.numbers.weight, -bound, bound)

    def forward(self, covariates: Covariates) -> Tensor:
        """Covariates of n cells in, (n, n_out) out."""
        added = []
        if self.table is not None:
            rows = self.table(covariates.codes)
            added.append(rows.sum(dim=1) if self.weight is None else self.weight(rows.flatten(1)))
        if self.numbers is not None:
            added.append(self.numbers(covariates.numbers))
        return torch.stack(added).sum(dim=0) if len(added) > 1 else added[0]


class RowsLinear(nn.Linear):
    """A linear map of dense or sparse rows; the weights of one input lie side by side in memory."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())

    def forward(self, x: Tensor | SparseRows) -> Tensor:
        """(n, n_in) in, (n, n_out) out."""
        if not isinstance(x, SparseRows):
            return super().forward(x)
        if fused.serves(x, self.weight):
            return fused.sparse_linear(x, self.weight, self.bias)
        return super().forward(x.to_dense().to(self.weight.dtype))


class Layer(nn.Module):
    """Linear map plus covariates, normalisation, ReLU, dropout."""

    def __init__(self, n_in: int, shape: MlpShape, dropout: float) -> None:
        super().__init__()
        self.linear = RowsLinear(n_in, shape.n_hidden)
        self.covariate = Covariate(shape, n_in, shape.n_hidden) if shape.n_codes or shape.n_continuous else None
        self.norm = _norm(shape)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor | SparseRows, covariates: Covariates | None) -> Tensor:
        """(n, n_in) in, (n, n_hidden) out."""
        hidden = self.linear(x)
        if self.covariate is not None:
            hidden = hidden + self.covariate(covariates)
        activated: Tensor = self.dropout(torch.relu(self.norm(hidden)))
        return activated


class Mlp(nn.Module):
    """``n_layers`` layers, each of which sees the categorical covariates, and the first the continuous ones."""

    def __init__(self, n_in: int, shape: MlpShape, dropout: float) -> None:
        super().__init__()
        widths = [n_in, *[shape.n_hidden] * (shape.n_layers - 1)]
        deeper = replace(shape, n_continuous=0)
        self.layers = nn.ModuleList(Layer(width, deeper if i else shape, dropout) for i, width in enumerate(widths))

    def forward(self, x: Tensor | SparseRows, covariates: Covariates | None) -> Tensor:
        """(n, n_in) in, (n, n_hidden) out."""
        first, *others = self.layers
        hidden: Tensor = first(x, covariates)
        for layer in others:
            hidden = layer(hidden, covariates)
        return hidden


class Encoder(nn.Module):
    """Expression to the mean and log-variance of a diagonal normal over latents."""

    def __init__(self, n_vars: int, n_latent: int, shape: MlpShape, dropout: float) -> None:
        super().__init__()
        self.mlp = Mlp(n_vars, shape, dropout)
        self.mean = nn.Linear(shape.n_hidden, n_latent)
        self.log_var = nn.Linear(shape.n_hidden, n_latent)

    def forward(self, x: Tensor | SparseRows, covariates: Covariates | None) -> tuple[Tensor, Tensor]:
        """(n, n_vars) in, mean and log-variance, (n, n_latent), out, at least float32.

        The log-variance is kept within ±15: its exponential enters the KL term,
        where a stray cell of extreme depth would otherwise overflow.
        """
        hidden = self.mlp(x, covariates)
        return widened(self.mean(hidden)), widened(self.log_var(hidden)).clamp(-15.0, 15.0)


class Decoder(nn.Module):
    """Latents to one or more rows of gene-wise parameters.

    Parameters
    ----------
    n_vars
        Genes.
    n_latent
        Latent dimensions.
    shape
        Hidden layers and covariates.
    heads
        Names of the parameters; each gets a linear map of its own.
    """

    def __init__(self, n_vars: int, n_latent: int, shape: MlpShape, heads: tuple[str, ...]) -> None:
        super().__init__()
        # Dropout before a decoder's output only blurs the reconstruction; SCVI has none there either.
        self.mlp = Mlp(n_latent, shape, dropout=0.0)
        self.heads = nn.ModuleDict({name: nn.Linear(shape.n_hidden, n_vars) for name in heads})

    def forward(self, z: Tensor, covariates: Covariates | None) -> dict[str, Tensor]:
        """(n, n_latent) in, one (n, n_vars) tensor per head out, at least float32."""
        hidden = self.mlp(z, covariates)
        return {name: widened(head(hidden)) for name, head in self.heads.items()}


class TrackingNorm(nn.BatchNorm1d):
    """Batch normalisation whose running statistics are those of the last tenth of training, or of 100 batches if less.

    SCVI averages over 100 batches from the start. While the weights still
    move, or fewer batches have passed, such statistics are not those of the
    network at hand, and held-out cells are scored by another model than the
    one that is trained. An average whose weight falls as ``c / (c + n)`` is
    that of Shamir and Zhang (2013).

    Several ranks normalise by the mean and variance over the cells of all of
    them, on any device, so that they train as one process does on all cells.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features, eps=1e-3, momentum=MOMENTUM)  # SCVI's values
        self._n_batches: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_features) in and out."""
        if self.training:
            assert self.num_batches_tracked is not None
            if self._n_batches is None:  # reading the counter waits for the device: once, not at every step
                self._n_batches = int(self.num_batches_tracked)
            self.momentum = max(MOMENTUM, RECENT / (RECENT + self._n_batches))
            self._n_batches += 1
        if self.training and distributed.is_initialized() and distributed.get_world_size() > 1:
            return self._over_ranks(x)
        return super().forward(x)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._n_batches = None
        super()._load_from_state_dict(*args, **options)

    def _over_ranks(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        shift = self.running_mean.clone()  # sums of squares lose less around it, and it is the same on all ranks
        centred = x.float() - shift
        ones = centred.new_full((1, x.shape[1]), len(x))
        sums = torch.cat([ones, centred.sum(0)[None], centred.square().sum(0)[None]])
        n, total, squares = SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
        mean = total / n
        var = squares / n - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean + shift, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        normal: Tensor = (centred - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
        return normal.to(x.dtype)


class SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all ranks, which the gradients of all of them flow back through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Any shape in, the same out."""
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Every rank's loss depends on the values of this one."""
        summed = gradients[0].clone()
        distributed.all_reduce(summed)
        return summed


def _norm(shape: MlpShape) -> nn.Module:
    """The normalisation that ``shape`` names."""
    if shape.norm == "batch":
        return TrackingNorm(shape.n_hidden)
    return nn.LayerNorm(shape.n_hidden) if shape.norm == "layer" else nn.Identity()
