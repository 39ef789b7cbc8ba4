"""The older loader's names: each is a `ChunkedDataModule`, and says with a warning how to write it now."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scvae_data.calling import command, override
from scvae_data.compat.chunk_cache import CACHE_DIR, chunked, is_raw
from scvae_data.compat.json_config import pattern_of
from scvae_data.errors import ConfigError, InputError
from scvae_data.loading.datamodule import ChunkedDataModule
from scvae_data.loading.dataset import ChunkedDataset
from scvae_data.loading.loader import BatchLoader
from scvae_data.loading.select.rows import as_names
from scvae_data.processing.settings.inputs import SUFFIXES
from scvae_data.remote.location import local_path

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["ChunkedDataLoader", "DatasetConfig", "VAEDataModule", "create_vae_dataloaders", "load_and_preprocess_data"]

IN_MEMORY = ("include_srx_accessions", "normalized")
OWN_SETTINGS = ("cache_dir", "process_overrides")


def default(name: str) -> Any:
    """Return the default of a setting where it has its home."""
    return inspect.signature(ChunkedDataModule).parameters[name].default


def check_names(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an argument that does not exist.

    Raises
    ------
    TypeError
        With the closest name that does.
    """
    names = [name for name in known if name != "self"]
    if unknown := [name for name in given if name not in names]:
        close = get_close_matches(unknown[0], names, n=1, cutoff=0.0)[0]
        raise TypeError(f"{owner} has no argument {unknown[0]!r}; did you mean {close}?")


@dataclass
class DatasetConfig:
    """What to load and how: the arguments of `VAEDataModule`, whose documentation holds for each."""

    data_path: str | Path
    batch_size: int = default("batch_size")
    chunk_cache_size: int | None = default("chunk_cache_size")
    max_chunks_in_memory: int | None = default("max_chunks_in_memory")
    include_srx_accessions: str | Sequence[str] | None = None
    exclude_srx_accessions: str | Sequence[str] | None = None
    batch_key: str | None = default("batch_key")
    label_keys: str | Sequence[str] = ()
    split: Mapping[str, Any] | None = field(default_factory=lambda: dict(default("split")))
    normalized: bool = default("normalized")
    counts: bool = default("counts")
    num_workers: int = default("num_workers")
    num_threads: int = default("num_threads")
    seed: int = default("seed")
    cache_dir: str | Path = CACHE_DIR
    process_overrides: Sequence[str] = ()

    def __new__(cls, *args: Any, **settings: Any) -> DatasetConfig:
        """Name the argument that was meant before the generated ``__init__`` refuses one."""
        check_names(cls.__name__, settings, inspect.signature(cls.__init__).parameters)
        return super().__new__(cls)


class VAEDataModule(ChunkedDataModule):
    """A :class:`~scvae_data.ChunkedDataModule` that takes raw files as well.

    Raw files are processed when they are first used, as ``process.py`` would
    by default, into a directory below ``cache_dir`` that is found again as
    long as their content is the same.

    Parameters
    ----------
    data_path
        A dataset directory, a raw file, a folder of H5AD files, or a
        `DatasetConfig` with all arguments.
    args, settings
        As for :class:`~scvae_data.ChunkedDataModule`.
    cache_dir
        Where dataset directories of raw files are kept.
    process_overrides
        Settings of ``process.py`` for raw files, e.g. ``["qc=none"]``.
    """

    def __init__(
        self,
        data_path: str | Path | DatasetConfig,
        *args: Any,
        cache_dir: str | Path = CACHE_DIR,
        process_overrides: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        if isinstance(data_path, DatasetConfig):
            settings = vars(data_path) | settings
            cache_dir, process_overrides = settings.pop("cache_dir"), settings.pop("process_overrides")
            given: str | Path = settings.pop("data_path")
        else:
            given = data_path
        raw_path = local_path("data_path", given)
        check_names("VAEDataModule", settings, [*inspect.signature(ChunkedDataModule).parameters, *OWN_SETTINGS])
        super().__init__(given, *args, **settings)
        self.raw_path = raw_path
        self.cache_dir = Path(cache_dir)
        self.process_overrides = tuple(process_overrides)
        arguments = inspect.signature(ChunkedDataModule).bind(given, *args, **settings).arguments
        warn("VAEDataModule", new_call("ChunkedDataModule", arguments.pop("data_path"), arguments))

    def prepare_data(self) -> None:
        """Process raw files that are new; a trainer calls it in one process only."""
        dataset_directory(self.raw_path, self.cache_dir, self.process_overrides)

    def setup(self, stage: str | None = None) -> None:
        """Open the directory, that of the raw files if it is those that were given."""
        if self._index is None:
            self.data_path = dataset_directory(self.raw_path, self.cache_dir, self.process_overrides)
        super().setup(stage)


class ChunkedDataLoader:
    """Batches of every selected cell; each iteration is a pass over them, in a new order if shuffled.

    Parameters
    ----------
    data_path
        A dataset directory, a raw file or a folder of H5AD files.
    batch_size
        Cells per batch.
    shuffle
        Mix the cells; false: the order of the directory.
    cache_dir, process_overrides, settings
        As for `VAEDataModule`.
    """

    def __init__(
        self,
        data_path: str | Path,
        batch_size: int = 256,
        shuffle: bool = True,
        *,
        cache_dir: str | Path = CACHE_DIR,
        process_overrides: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.shuffle = shuffle
        check_names("ChunkedDataLoader", settings, [*inspect.signature(ChunkedDataModule).parameters, *OWN_SETTINGS])
        self._raw = local_path("data_path", data_path), Path(cache_dir), tuple(process_overrides)
        self._settings = {"split": None, **settings, "batch_size": batch_size}
        loader = "train_dataloader" if shuffle else "predict_dataloader"
        warn("ChunkedDataLoader", f"{new_call('ChunkedDataModule', data_path, self._settings)}: setup() and {loader}()")

    @cached_property
    def data(self) -> ChunkedDataModule:
        """The data module behind the loader, set up when it is first asked for."""
        data = ChunkedDataModule(dataset_directory(*self._raw), **self._settings)
        data.setup()
        return data

    def __len__(self) -> int:
        """Batches of a pass."""
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches of the next pass."""
        return iter(self._loader)

    @property
    def _loader(self) -> BatchLoader:
        return self.data.train_dataloader() if self.shuffle else self.data.predict_dataloader()


def create_vae_dataloaders(config: DatasetConfig) -> VAEDataModule:
    """Return the data module that a configuration describes."""
    return VAEDataModule(config)


def load_and_preprocess_data(
    data_path: str | Path,
    *,
    return_dataloaders: bool = False,
    cache_dir: str | Path = CACHE_DIR,
    process_overrides: Sequence[str] = (),
    **settings: Any,
) -> AnnData | tuple[BatchLoader, BatchLoader | list[Any]]:
    """Load cells that quality control keeps, log1p-normalised.

    Parameters
    ----------
    data_path
        A dataset directory, a raw file or a folder of H5AD files.
    return_dataloaders
        Return loaders of training and validation batches instead of an AnnData.
    cache_dir, process_overrides, settings
        As for `VAEDataModule`. Of the settings, an AnnData takes
        ``include_srx_accessions`` and ``normalized``.

    Returns
    -------
    AnnData in memory, float32 CSR, its cells in the order of the input files;
    or (training loader, validation loader).
    """
    warn(
        "load_and_preprocess_data",
        new_call("ChunkedDataModule", data_path, settings)
        if return_dataloaders
        else f"{new_call('ChunkedDataset', data_path, {})}.to_anndata()",
    )
    directory = dataset_directory(local_path("data_path", data_path), Path(cache_dir), tuple(process_overrides))
    if not return_dataloaders:
        if unknown := sorted(settings.keys() - IN_MEMORY):
            raise ConfigError(f"{unknown[0]} needs return_dataloaders=True; an AnnData takes {' and '.join(IN_MEMORY)}")
        return in_memory(directory, **settings)
    data = ChunkedDataModule(directory, **settings)
    data.setup()
    return data.train_dataloader(), data.val_dataloader()


def in_memory(
    directory: Path, include_srx_accessions: str | Sequence[str] | None = None, normalized: bool = True
) -> AnnData:
    """Read cells whole, in the order of their source files and rows, normalised as a batch would be."""
    dataset = ChunkedDataset(directory, normalized=normalized)
    names = as_names("include_srx_accessions", include_srx_accessions)
    rows = np.arange(len(dataset)) if names is None else dataset.index.rows(names)
    source = dataset.obs(["source_file", "source_row"], rows)
    adata = dataset.to_anndata(rows[np.lexsort((source["source_row"], source["source_file"].astype(str)))])
    if normalized:
        factors = np.repeat(adata.obs["size_factor"].to_numpy(), np.diff(adata.X.indptr))
        adata.X.data = np.log1p(adata.X.data / factors).astype(np.float32)
    return adata


def dataset_directory(path: Path, cache_dir: Path, process_overrides: Sequence[str]) -> Path:
    """Return a dataset directory as it is, and that of raw files.

    Raises
    ------
    InputError
        The name of a raw file that is not there.
    """
    if path.suffix in SUFFIXES and not path.exists():
        raise InputError(path, "missing", "there is no such file; check the path")
    return chunked(path, cache_dir, process_overrides) if is_raw(path) else path


def new_call(name: str, data_path: str | Path, settings: Mapping[str, Any]) -> str:
    """Write down what does the same, with the settings that are not their defaults."""
    first, directory = "", f"'{data_path}'"
    if is_raw(local_path("data_path", data_path)):
        paths = override("input.paths", pattern_of(str(data_path)))
        first = f"{command('process', 'input=files', paths, 'paths.processed_dir=DIR')} once, then "
        directory = "'DIR'"
    defaults = vars(DatasetConfig(data_path))
    given = [f"{name}={value!r}" for name, value in settings.items() if defaults.get(name) != value]
    return f"{first}scvae_data.{name}({', '.join([directory, *given])})"


def warn(old: str, new: str) -> None:
    """Warn of the older name that the user's code uses, where it does, however deep in here the warning arises."""
    level = 2
    while sys._getframe(level - 1).f_globals.get("__name__", "").startswith("scvae_data.compat"):
        level += 1
    called = sys._getframe(level - 2).f_code.co_name
    old = called if called in __all__ else old
    warnings.warn(f"{old} is an older name; now: {new}; see docs/migration.md", DeprecationWarning, stacklevel=level)
