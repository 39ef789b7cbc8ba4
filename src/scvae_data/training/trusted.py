"""Checkpoints and configurations that anybody may have written in, plain values or one-line refusals out."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from scvae_data.errors import ConfigError
from scvae_data.models.vae import CHECKPOINT_KEY, CHECKPOINT_VERSION, VAE
from scvae_data.results.model import categories_of, moments_of
from scvae_data.results.weights import fitting, read_plain

__all__ = ["ALLOWED", "check_targets", "load_vae", "read_checkpoint"]

# What a configuration found in a run directory may build. The command line may name anything.
ALLOWED = ("scvae_data.", "lightning.", "torch.optim")
# Settings of this package's own objects that may be import paths: of a ChunkedDataModule, a Chunking, a VAE.
IMPORTED = {"sampler", "compression", "likelihood"}


def read_checkpoint(path: Path, what: str = "ckpt") -> dict[str, Any]:
    """Contents of a checkpoint of a :class:`~scvae_data.VAE`: tensors and plain types, never code.

    Parameters
    ----------
    path
        The file.
    what
        The setting that names it, for messages.

    Raises
    ------
    ConfigError
        If it is absent, not a checkpoint, holds more than plain types, or is of another model or a newer version.
    """
    found = read_plain(path, what)
    own = found.get(CHECKPOINT_KEY) if isinstance(found, dict) else None
    version = own.get("format_version") if isinstance(own, dict) else None
    if version is None:
        raise ConfigError(f"{what}={path} is not a checkpoint of a scvae_data.VAE; give one that train.py wrote")
    if version != CHECKPOINT_VERSION:
        raise ConfigError(
            f"{what}={path} is a checkpoint of format {version}, this version of scvae-data reads format "
            f"{CHECKPOINT_VERSION}; use the version that wrote it"
        )
    contents: dict[str, Any] = found
    return contents


def load_vae(path: Path, what: str = "ckpt") -> tuple[VAE, dict[str, Any]]:
    """The model of a checkpoint, on the CPU, and what the run recorded of its dataset.

    Raises
    ------
    ConfigError
        As :func:`read_checkpoint`; also if settings and weights do not fit each other.
    """
    contents = read_checkpoint(path, what)
    with fitting(f"{what}={path}"):
        check_gene_sets(contents, path.stat().st_size)
        settings = contents[VAE.CHECKPOINT_HYPER_PARAMS_KEY]
        model = VAE.restored(settings, contents["state_dict"], path.stat().st_size, contents)
        facts = contents["scvae_data"]["facts"]
        check_facts(settings, facts)
    return model, facts


def check_gene_sets(contents: dict[str, Any], n_bytes: int) -> None:
    """Raise ValueError if the gene sets of a checkpoint are not in its file of ``n_bytes``."""
    packed = contents[CHECKPOINT_KEY].get("gene_sets")
    if packed is not None and packed.numel() > n_bytes:
        raise ValueError("the gene sets are larger than the file")


def check_facts(settings: dict[str, Any], facts: Any) -> None:
    """Raise TypeError unless what is recorded of genes, categories, numbers and normalization has its types."""
    key, own = settings.get("batch_key"), settings["facts"]
    plain = isinstance(facts, dict) and isinstance(key, str | None)
    if plain:
        categories, moments = categories_of(own, key), moments_of(own)
        names = (*own["var_names"], *own["categories"], *categories, *moments, *chain(*categories.values()))
        plain = all(isinstance(name, str) for name in names)
        plain &= all(isinstance(number, float) for number in chain(*moments.values()))
    if not plain:
        raise TypeError("what it says of genes, categories and covariates is no list of names and numbers")


def check_targets(config: Any, source: str, skip: Collection[str] = ()) -> None:
    """Refuse a configuration that would build or import anything but this package's, Lightning's and torch.optim's.

    Parameters
    ----------
    config
        Plain types, resolved.
    source
        Where it was found, for the message.
    skip
        Dotted keys that the command line sets; what lies below them was named by the user.

    Raises
    ------
    ConfigError
        Naming the key and the target.
    """
    for key, target in _targets(config, ""):
        chosen = any(f"{key}.".startswith(f"{own}.") for own in skip)
        if not chosen and not _is_allowed(target):
            raise ConfigError(
                f"{source}: {key}={target} is not run, because only {', '.join(ALLOWED)} are trusted in a saved "
                f"configuration; if you trust it, name it on the command line: {key}={target}"
            )


def _targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every import path with its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield f"{key}._target_".lstrip("."), node["_target_"]
        for name in IMPORTED & node.keys():
            if isinstance(node[name], str) and "." in node[name]:
                yield f"{key}.{name}".lstrip("."), node[name]
        items: Any = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    else:
        return
    for name, inner in items:
        yield from _targets(inner, f"{key}.{name}".lstrip("."))


def _is_allowed(target: Any) -> bool:
    """Whether a target is a class of the allowed packages, or a public function of this one.

    A prefix alone proves nothing: ``lightning.pytorch.trainer.trainer.os.system`` has it too, so the object's own
    module counts as well.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED):
        return False
    try:
        found = get_object(target)
    except (ImportError, AttributeError, ValueError):
        return True  # to be reported as missing, with the key, when it is built
    home = f"{getattr(found, '__module__', '')}."
    if inspect.isclass(found):
        return home.startswith(ALLOWED)
    return home.startswith("scvae_data.training.loggers.") and found.__name__ == "wandb_logger"
