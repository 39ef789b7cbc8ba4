"""Files of tensors that anybody may have written in, plain values or one-line refusals out."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scvae_data.errors import ConfigError
from scvae_data.wording import first_line

__all__ = ["check_archive", "check_size", "fitting", "read_plain"]


def read_plain(path: Path, what: str) -> Any:
    """Contents of a file of ``torch.save``: tensors and plain types, never code.

    Raises
    ------
    ConfigError
        If it is absent, damaged, or holds anything else.
    """
    if not path.is_file():
        raise ConfigError(f"{what}={path}: no such file; give a checkpoint, e.g. RUN_DIR/checkpoints/best.ckpt")
    try:
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"{what}={path} is damaged, or holds more than tensors and plain values and could run any code; "
            "it is not opened"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{what}={path} is not a whole checkpoint ({first_line(error)}); give another") from None


@contextmanager
def fitting(where: str) -> Iterator[None]:
    """Say of what does not fit in a file, which may hold anything, that it does not.

    Raises
    ------
    ConfigError
        With the reason.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{where}: its weights and settings do not fit ({first_line(error)}); give another") from None


def check_archive(path: Path) -> None:
    """Raise ValueError where an archive holds more bytes than the file: ``torch.save`` does not compress."""
    with zipfile.ZipFile(path) as archive:
        n_bytes = sum(member.file_size for member in archive.infolist())
    if n_bytes > path.stat().st_size:
        raise ValueError(f"it would unpack to {n_bytes:,} bytes")


def check_size(
    make: Callable[..., Any], settings: dict[str, Any], weights: dict[str, torch.Tensor], n_bytes: int
) -> None:
    """Raise before memory is taken for a model whose weights are not in the file of ``n_bytes``.

    A tensor of a few bytes may have any shape.

    Parameters
    ----------
    make
        Makes the model of ``settings``.
    """
    if settings.get("n_layers", 0) > len(weights):
        raise ValueError(f"{settings['n_layers']} layers and {len(weights)} arrays of weights")
    if sum(values.numel() * values.element_size() for values in weights.values()) > n_bytes:
        raise ValueError("the weights are larger than the file")
    with torch.device("meta"):
        model = make(**settings)
        model.configure_model()
    for name, values in model.state_dict().items():
        if values.shape != weights[name].shape:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(values.shape)}")
