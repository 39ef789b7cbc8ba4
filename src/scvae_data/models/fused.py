"""Operators of a training step on a CPU: sparse rows and what the networks say in, densities and gradients out.

Each is an operator of torch with a gradient of its own, and does in one pass
over its arguments what the plain expressions of :mod:`scvae_data.models.densities`
and ``torch.nn.functional.linear`` do in many. float32 and float64; results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models.kernels import gaussian as gaussian_kernels
from scvae_data.models.kernels import nb as nb_kernels
from scvae_data.models.kernels import sparse_linear as linear_kernels
from scvae_data.models.threads import Part, in_threads, parts_of

__all__ = ["gaussian", "nb", "serves", "sparse_linear"]

GENES = 64  # fewest whose gradient a thread makes, each from all rows


def serves(rows: SparseRows, values: Tensor) -> bool:
    """Whether the operators can compute these rows with these values."""
    return rows.data.device.type == "cpu" and rows.data.dtype == values.dtype in (torch.float32, torch.float64)


def sparse_linear(rows: SparseRows, weight: Tensor, bias: Tensor) -> Tensor:
    """``rows @ weight.T + bias``, (n, n_hidden); no copy is made of a weight whose columns are contiguous."""
    out: Tensor = _sparse_linear(rows.indptr, rows.indices, rows.data, weight, bias)
    return out


def nb(
    rows: SparseRows, logits: Tensor, log_theta: Tensor, measured: Tensor | None, zero_logit: Tensor | None = None
) -> Tensor:
    """Log-density of each cell, (n,), as of :class:`scvae_data.models.likelihoods.NB`; with ``zero_logit`` of ZINB."""
    shapes = log_theta.reshape(-1, logits.shape[1])
    log_prob: Tensor = _nb(rows.indptr, rows.indices, rows.data, logits, shapes, measured, zero_logit)[0]
    return log_prob


def gaussian(rows: SparseRows, mean: Tensor, log_scale: Tensor, measured: Tensor | None) -> Tensor:
    """Log-density of each cell, (n,), as of :class:`scvae_data.models.likelihoods.Gaussian`."""
    scales = log_scale.reshape(-1, mean.shape[1])
    log_prob: Tensor = _gaussian(rows.indptr, rows.indices, rows.data, mean, scales, measured)
    return log_prob


@torch.library.custom_op("scvae_data::sparse_linear", mutates_args=(), device_types="cpu")
def _sparse_linear(indptr: Tensor, indices: Tensor, data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = data.new_empty(len(indptr) - 1, len(weight))
    given = _arrays(indptr, indices, data, weight.t(), bias)
    _run(linear_kernels.sparse_linear, given, [out.numpy()], parts_of(len(out)))
    return out


@torch.library.custom_op("scvae_data::sparse_linear_weight", mutates_args=(), device_types="cpu")
def _sparse_linear_weight(indptr: Tensor, indices: Tensor, data: Tensor, upstream: Tensor, n_vars: int) -> Tensor:
    """Gradient of the weight, (n_vars, n_hidden)."""
    gradient = data.new_empty(n_vars, upstream.shape[1])
    given = _arrays(indptr, indices, data, upstream)
    size = max(GENES, -(-n_vars // torch.get_num_threads()))
    parts = [(first, min(n_vars, first + size)) for first in range(0, n_vars, size)]
    _run(linear_kernels.sparse_linear_weight, given, [gradient.numpy()], parts)
    return gradient


@torch.library.custom_op("scvae_data::nb", mutates_args=(), device_types="cpu")
def _nb(
    indptr: Tensor, indices: Tensor, data: Tensor, logits: Tensor, log_theta: Tensor, measured: Tensor | None,
    zero_logit: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Log-density of each cell, (n,), and what its softmax is made of, (n, 2)."""
    log_prob, softmax = logits.new_empty(len(logits)), logits.new_empty(len(logits), 2)
    given = _arrays(indptr, indices, data, logits, log_theta, *_optional(logits, measured, zero_logit))
    _run(nb_kernels.nb_log_prob, given, [log_prob.numpy(), softmax.numpy()], parts_of(len(logits)))
    return log_prob, softmax


@torch.library.custom_op("scvae_data::nb_gradients", mutates_args=(), device_types="cpu")
def _nb_gradients(
    indptr: Tensor, indices: Tensor, data: Tensor, logits: Tensor, log_theta: Tensor, measured: Tensor | None,
    zero_logit: Tensor | None, upstream: Tensor, softmax: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of logits, log-dispersions and, without rows where there are none, logits of extra zeros."""
    mask, zeros = _optional(logits, measured, zero_logit)
    of_logits, of_zeros = torch.empty(logits.shape, dtype=logits.dtype), torch.empty(zeros.shape, dtype=logits.dtype)
    given = _arrays(indptr, indices, data, logits, log_theta, mask, zeros)
    made = _arrays(upstream, softmax, of_logits, of_zeros)
    return of_logits, _run_summing(nb_kernels.nb_gradients, given, made, log_theta, len(logits)), of_zeros


@torch.library.custom_op("scvae_data::gaussian", mutates_args=(), device_types="cpu")
def _gaussian(
    indptr: Tensor, indices: Tensor, data: Tensor, mean: Tensor, log_scale: Tensor, measured: Tensor | None
) -> Tensor:
    log_prob = mean.new_empty(len(mean))
    given = _arrays(indptr, indices, data, mean, log_scale, *_optional(mean, measured))
    _run(gaussian_kernels.gaussian_log_prob, given, [log_prob.numpy()], parts_of(len(mean)))
    return log_prob


@torch.library.custom_op("scvae_data::gaussian_gradients", mutates_args=(), device_types="cpu")
def _gaussian_gradients(
    indptr: Tensor, indices: Tensor, data: Tensor, mean: Tensor, log_scale: Tensor, measured: Tensor | None,
    upstream: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of means and log-scales."""
    of_mean = torch.empty(mean.shape, dtype=mean.dtype)
    given = _arrays(indptr, indices, data, mean, log_scale, *_optional(mean, measured))
    made = _arrays(upstream, of_mean)
    return of_mean, _run_summing(gaussian_kernels.gaussian_gradients, given, made, log_scale, len(mean))


@_sparse_linear.register_fake
def _(indptr: Tensor, indices: Tensor, data: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return data.new_empty(indptr.shape[0] - 1, weight.shape[0])


@_sparse_linear_weight.register_fake
def _(indptr: Tensor, indices: Tensor, data: Tensor, upstream: Tensor, n_vars: int) -> Tensor:
    return data.new_empty(n_vars, upstream.shape[1])


@_nb.register_fake
def _(indptr: Tensor, indices: Tensor, data: Tensor, logits: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[0]), logits.new_empty(logits.shape[0], 2)


@_nb_gradients.register_fake
def _(
    indptr: Tensor, indices: Tensor, data: Tensor, logits: Tensor, log_theta: Tensor, measured: Tensor | None,
    zero_logit: Tensor | None, *_: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    of_zeros = logits.new_empty(0, logits.shape[1]) if zero_logit is None else logits.new_empty(logits.shape)
    return logits.new_empty(logits.shape), log_theta.new_empty(log_theta.shape), of_zeros


@_gaussian.register_fake
def _(indptr: Tensor, indices: Tensor, data: Tensor, mean: Tensor, *_: Tensor | None) -> Tensor:
    return mean.new_empty(mean.shape[0])


@_gaussian_gradients.register_fake
def _(
    indptr: Tensor, indices: Tensor, data: Tensor, mean: Tensor, log_scale: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor]:
    return mean.new_empty(mean.shape), log_scale.new_empty(log_scale.shape)


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    indptr, indices, data, weight, _ = inputs
    ctx.save_for_backward(indptr, indices, data, weight)


def _linear_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    indptr, indices, data, weight = ctx.saved_tensors
    of_weight = _sparse_linear_weight(indptr, indices, data, upstream, weight.shape[1])
    return None, None, None, of_weight.t(), upstream.sum(dim=0)


def _keep_nb(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _nb_backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, softmax = ctx.saved_tensors
    of_logits, of_theta, of_zeros = _nb_gradients(*inputs, upstream, softmax)
    return None, None, None, of_logits, of_theta, None, None if inputs[-1] is None else of_zeros


def _keep_gaussian(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gaussian_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    return None, None, None, *_gaussian_gradients(*ctx.saved_tensors, upstream), None


_sparse_linear.register_autograd(_linear_backward, setup_context=_keep_linear)
_nb.register_autograd(_nb_backward, setup_context=_keep_nb)
_gaussian.register_autograd(_gaussian_backward, setup_context=_keep_gaussian)


def _run(
    kernel: Callable[..., None], given: Sequence[NDArray[Any]], made: Sequence[NDArray[Any]], parts: Sequence[Part]
) -> None:
    """Have a kernel write what it makes of each part of what is given."""
    in_threads(lambda _, first, last: kernel(*given, first, last, *made), parts)


def _run_summing(
    kernel: Callable[..., None], given: Sequence[NDArray[Any]], made: Sequence[NDArray[Any]], learned: Tensor, n: int
) -> Tensor:
    """:func:`_run` over ``n`` rows; returns the gradient of what is learned of genes, (1 or n, n_vars)."""
    parts, shared = parts_of(n), len(learned) == 1
    gradient = learned.new_empty(len(parts) if shared else n, learned.shape[1])
    sums = gradient.numpy()

    def work(number: int, first: int, last: int) -> None:
        kernel(*given, first, last, *made, sums[number : number + 1] if shared else sums[first:last])

    in_threads(work, parts)
    return gradient.sum(dim=0, keepdim=True) if shared else gradient


def _arrays(*values: Tensor) -> list[NDArray[Any]]:
    return [each.detach().contiguous().numpy() for each in values]


def _optional(like: Tensor, measured: Tensor | None, *others: Tensor | None) -> list[Tensor]:
    """Which genes count, and further rows, as the kernels want what is not there: without rows."""
    mask = torch.empty((0, like.shape[1]), dtype=torch.bool) if measured is None else measured
    return [mask, *(like.new_empty(0, like.shape[1]) if each is None else each for each in others)]
