"""``test_chunked_system.py``: a dataset directory or raw files in, a table of what works out, with remedies."""

from __future__ import annotations

import logging
import shlex
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scvae_data.calling import override
from scvae_data.errors import DamagedFileError, InputError, MissingIndexError, ScvaeDataError
from scvae_data.progress import progress
from scvae_data.remote.location import local_path
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index, read_json
from scvae_data.store.verify import file_fault, listed
from scvae_data.wording import counted

if TYPE_CHECKING:
    from scvae_data.loading.datamodule import ChunkedDataModule

__all__ = ["Result", "check", "main"]

USAGE = """\
usage: python test_chunked_system.py [DIR | FILE …]

Checks an installation: process, verify, index, SRX filter, loader, one
training step. DIR is a dataset directory or a folder of H5AD files, FILE a raw
file; without them four small experiments are simulated. The exit status is 0
if everything passes."""
MOST_BATCHES = 40
N_ROWS = 20
DEMO = ("input=demo", "input.n_files=4", "input.cells_per_file=400", "input.n_genes=3000", "chunk_size=300")


@dataclass(frozen=True)
class Result:
    """What came of a step: PASS, FAIL or SKIP, its wall time, what was found, and for a failure what to do."""

    step: str
    verdict: str
    seconds: float
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """Lay the result out as a row of the table, with the remedy in a row of its own."""
        row = f"{self.verdict:<5}{self.step:<15}{self.seconds:7.1f} s  {self.found}"
        return f"{row}\n{'':<30}remedy: {self.remedy}" if self.remedy else row


def import_all() -> str:
    """Import what training needs: seconds that a program spends once."""
    import lightning
    import torch

    from scvae_data import VAE, ChunkedDataModule, __version__  # noqa: F401 - importing them is the check

    return f"scvae-data {__version__}, torch {torch.__version__}, lightning {lightning.__version__}"


def verify(directory: Path) -> str:
    """Compare every file with what the index lists."""
    files = listed(open_index(directory))
    for name, facts in progress(files.items(), total=len(files), desc="verify"):
        if (fault := file_fault(directory / name, *facts)) is not None:
            raise DamagedFileError(f"{directory / name}: {fault}")
    return f"{len(files):,} files are what the index lists"


def look_up(directory: Path) -> str:
    """Find cells by their global row, and their metadata by cell."""
    index = open_index(directory)
    rows = np.unique(np.linspace(0, index.n_obs - 1, N_ROWS).astype(np.int64))
    chunk_ids, local = index.locate(rows)
    if not np.array_equal(index.first_rows[chunk_ids] + local, rows):
        raise DamagedFileError(f"{directory}: chunk and row of a cell do not lead back to it")
    obs = index.obs([SRX_COLUMN], rows)
    if len(obs) != len(rows) or not obs.index.is_unique:
        raise DamagedFileError(f"{directory}: {len(rows)} cells have {obs.index.nunique()} names")
    n_accessions = len(index.obs_columns[SRX_COLUMN].categories or ())
    return (
        f"{counted(index.n_obs, 'cell')} of {counted(n_accessions, 'experiment')}, "
        f"{counted(len(index.genes.names), 'gene')}, {counted(len(index.chunks), 'chunk')}"
    )


def filter_by_srx(directory: Path) -> str:
    """Ask for the smallest experiment, and get its cells and no others."""
    index = open_index(directory)
    names = index.obs_columns[SRX_COLUMN].categories or ()
    sizes = np.bincount(index.codes(SRX_COLUMN), minlength=len(names))[: len(names)]
    accession = names[int(np.argmin(np.where(sizes > 0, sizes, np.iinfo(sizes.dtype).max)))]
    data = data_module(index, include_srx_accessions=[accession])
    served = np.concatenate([batch["index"].numpy() for batch in data.predict_dataloader()])
    data.teardown()
    if not np.array_equal(served, index.rows([accession])):
        raise DamagedFileError(f"{directory}: the cells served for {accession} are not those of obs.parquet")
    return f"{accession}: {served.size:,} of {index.n_obs:,} cells"


def load(directory: Path) -> str:
    """Serve batches whose totals must be those that processing recorded, each cell once."""
    index = open_index(directory)
    target, kept = index.normalization["target_sum"], index.normalization["size_factor_genes"] == "kept"
    data = data_module(index)
    seen: list[Any] = []
    started = time.perf_counter()
    for batch in data.train_dataloader():
        totals = batch["x"].double().sum(dim=1).numpy()
        wrong = ~np.isclose(totals, batch["library_size"].numpy(), rtol=1e-5)
        if kept:
            wrong |= ~np.isclose(totals / target, batch["size_factor"].numpy(), rtol=1e-5)
        if wrong.any():
            row = int(batch["index"][int(np.argmax(wrong))])
            raise DamagedFileError(f"{directory}: cell {row} has other totals than processing recorded")
        seen.append(batch["index"].numpy())
        if len(seen) == MOST_BATCHES:
            break
    seconds = time.perf_counter() - started
    data.teardown()
    rows = np.concatenate(seen)
    if np.unique(rows).size != rows.size:
        raise DamagedFileError(f"{directory}: a cell was served twice in one epoch")
    return f"{counted(rows.size, 'cell')} in {counted(len(seen), 'batch')}, {rows.size / seconds:,.0f} cells/s"


def train(directory: Path) -> str:
    """Make one optimiser step."""
    import torch
    from lightning import Trainer

    from scvae_data.models.vae import VAE

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    silent: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    model = VAE(likelihood="nb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trainer's advice on how many workers a loader should have
        trainer = Trainer(max_steps=1, limit_val_batches=0, enable_model_summary=False, **silent)
        trainer.fit(model, datamodule=data_module(open_index(directory)))
    weights = list(model.parameters())
    if trainer.global_step != 1 or not all(torch.isfinite(values).all() for values in weights):
        raise ScvaeDataError("the step left weights that are not finite")
    return f"one step on {trainer.strategy.root_device}, {sum(values.numel() for values in weights):,} weights"


def data_module(index: DatasetIndex, **settings: Any) -> ChunkedDataModule:
    """Return a data module of counts that is set up, without a split, so that a few cells are enough."""
    from scvae_data.loading.datamodule import ChunkedDataModule

    batch_size = max(1, min(256, index.n_obs // 4))
    if "include_srx_accessions" in settings:
        batch_size = 1 if index.rows(settings["include_srx_accessions"]).size < batch_size else batch_size
    data = ChunkedDataModule(index.path, batch_size=batch_size, normalized=False, split=None, **settings)
    data.setup()
    return data


REBUILD = "scvae-data verify {} prints the command that builds the damaged files again"
REPORT = "first what verify says; if it passes, report this message"
INSTALL = "make setup installs the versions that every test ran with"
FILES = "give H5AD, 10x HDF5 or 10x matrix folders with raw counts; scvae-data process dry_run=true says what they hold"
STEPS: dict[str, tuple[Callable[[Path], str], str]] = {
    "verify": (verify, REBUILD),
    "index": (look_up, REBUILD),
    "SRX filter": (filter_by_srx, REPORT),
    "loader": (load, REPORT),
    "training step": (train, REPORT),
}


def check(paths: Sequence[Path], scratch: Path) -> list[Result]:
    """Run every step on a dataset directory, on raw files, or on simulated ones.

    Parameters
    ----------
    paths
        One dataset directory, raw files or folders of H5AD files, or nothing.
    scratch
        Where raw files are processed to.
    """
    directory = paths[0] if len(paths) == 1 and is_dataset(paths[0]) else scratch / "chunks"
    results = [attempt("imports", import_all, INSTALL)]
    if directory not in paths:
        results.append(attempt("process", partial(process_raw, paths, directory, scratch), FILES))
    missing = "there is no directory" if results[-1].step == "process" and results[-1].verdict == "FAIL" else ""
    for step, (function, remedy) in STEPS.items():
        if missing:
            results.append(Result(step, "SKIP", 0.0, missing))
            continue
        results.append(attempt(step, partial(function, directory), remedy.format(shlex.quote(str(directory)))))
        if results[-1].verdict == "FAIL" and not has_index(directory):
            missing = "there is no index that can be read"
    return results


def is_dataset(path: Path) -> bool:
    """Whether a path is meant as a dataset directory, finished or not."""
    return path.is_dir() and any(path.glob("chunk_*"))


def has_index(directory: Path) -> bool:
    """Whether a directory has an index that can be read."""
    try:
        open_index(directory)
    except ScvaeDataError:
        return False
    return True


def process_raw(paths: Sequence[Path], directory: Path, scratch: Path) -> str:
    """Process raw or simulated files into a directory."""
    from scvae_data.compat.chunk_cache import input_overrides, process

    for path in paths:
        if not path.exists():
            raise InputError(path, "missing", "there is no such file or folder; check the path")
    given = input_overrides(paths) if paths else DEMO
    try:
        process(directory, [*given, override("paths.data_dir", str(scratch))])
    except ScvaeDataError as error:
        report = directory / "failure_report.json"
        raise ScvaeDataError(failures(report)) if str(report) in str(error) else error from None
    index = open_index(directory)
    stored = sum(chunk.bytes for chunk in index.chunks)
    what = f"{len(paths)} given" if paths else "simulated"
    return f"{what}: {index.n_obs:,} cells kept, {stored / 1e6:,.1f} MB in {counted(len(index.chunks), 'chunk')}"


def failures(report: Path) -> str:
    """Say which files failed and why; the report itself is deleted with the scratch folder."""
    from scvae_data.processing.facts import FailedFile
    from scvae_data.processing.run.losses import failure_table

    content = read_json(report)
    failed = [FailedFile(**facts) for facts in content["failed"]]
    return f"{len(failed):,} of {counted(content['n_files'], 'file')} failed:\n{failure_table(failed, indent=30)}"


def attempt(step: str, function: Callable[[], str], remedy: str) -> Result:
    """Run one step; what it raises becomes its result."""
    started = time.perf_counter()
    try:
        found, verdict = function(), "PASS"
    except (MissingIndexError, InputError) as error:  # these name the one thing to do
        found, _, own = str(error).partition("; ")
        verdict, remedy = "FAIL", own or remedy
    except ScvaeDataError as error:
        found, verdict = str(error), "FAIL"
    except Exception as error:  # noqa: BLE001 - a fault nobody foresaw is a result too, and the next steps tell more
        place = traceback.extract_tb(error.__traceback__)[-1]
        found, verdict = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})", "FAIL"
    return Result(step, verdict, time.perf_counter() - started, found, remedy if verdict == "FAIL" else "")


def main(arguments: Sequence[str]) -> int:
    """Print the table; return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    with tempfile.TemporaryDirectory(prefix="scvae-data-check-") as scratch:
        results = check([local_path("check", argument) for argument in arguments], Path(scratch))
    for result in results:
        print(result)
    failed = sum(result.verdict != "PASS" for result in results)
    print(f"{len(results) - failed} of {len(results)} steps pass")
    return 1 if failed else 0
