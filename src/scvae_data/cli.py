"""``scvae-data``: the programs and a look into a dataset directory, from anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scvae_data.commands.arguments import Parser
from scvae_data.errors import ScvaeDataError
from scvae_data.remote.location import as_written, local_path
from scvae_data.system.closed_output import until_closed
from scvae_data.wording import counted

if TYPE_CHECKING:
    from scvae_data.store.dataset_index import DatasetIndex

__all__ = ["describe", "main"]

USAGE = """\
usage: scvae-data COMMAND …

  process [key=value …]   raw count files -> a directory of chunk files (scvae-data process --help)
  train [key=value …]     a directory of chunk files -> a trained model (scvae-data train --help)
  latents RUN --out FILE  latents of the cells of a directory, as .h5ad, .zarr or .parquet
  elbo RUN --out FILE     their ELBO
  express RUN --out FILE  the expression that a trained model decodes for them
  ppc RUN                 counts of each gene against those that the model simulates
  de RUN --group1 FILTER  differential expression between two groups of cells
  card RUN                the model card; with --out, the model in a folder to hand on
  info DIR                what a directory of chunk files holds
  diversity DIR           how mixed the batches would be, by obs column, against a random order
  verify DIR              whether every file is what was written (--deep, --against SOURCE …)
  report DIR              what became of its inputs, as a page: qc_report.html, and tables for MultiQC (--out FOLDER)
  why DIR SRX BARCODE     where a cell of an experiment is, or which rule dropped it
  diff DIR OTHER          experiments, genes and cells that OTHER has more, or has not, or has otherwise
  upgrade DIR             bring a directory into the present version of the format, without touching its chunks
  compact DIR [TARGET]    one generation of chunks of a directory that has grown, in a new directory
  compile                 compile ahead what the first runs of process and train would (make setup does it)
  --version               the version of this package

scvae-data COMMAND --help says more of each."""

DIVERSITY_LEGEND = """\

means over batches, and over as many random choices of cells (random_…)
  entropy    of the values in a batch, in bits
  labels     distinct values in a batch
  variation  how far a batch is from all cells: 0, the same shares of each value, to 1, no value in common
  share      entropy in shares of random_entropy, at most 1; below 0.99 training is known to suffer"""


def main() -> None:
    """Hand the rest of the command line to the named command."""
    with until_closed():
        run(*(sys.argv[1:] or ["--help"]))


def run(command: str, *rest: str) -> None:
    """Run a command; mistakes and errors end the program with one line."""
    if command in ("-h", "--help", "help"):
        print(USAGE)
    elif command == "--version":
        from scvae_data import __version__

        print(f"scvae-data {__version__}")
    elif command in _COMMANDS:
        _COMMANDS[command](rest)
    else:
        print(USAGE, file=sys.stderr)
        sys.exit(f"error: {command!r} is not a command; there are {', '.join(_COMMANDS)}")


def _process(arguments: Sequence[str]) -> None:
    from scvae_data.commands import process

    sys.argv = ["scvae-data process", *arguments]  # Hydra reads it
    process.main()


def _train(arguments: Sequence[str]) -> None:
    from scvae_data.commands import train

    sys.argv = ["scvae-data train", *arguments]
    train.main()


def _results(command: str) -> Callable[[Sequence[str]], None]:
    def run_it(arguments: Sequence[str]) -> None:
        from scvae_data.commands import results

        results.main(command, arguments)

    return run_it


def _info(arguments: Sequence[str]) -> None:
    parser = Parser("info", "What a directory of chunk files holds, as its index says.")
    _add_directory(parser)
    options = parser.parse_args(arguments)
    from scvae_data.store import open_index

    try:
        print(describe(open_index(options.directory)))
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _why(arguments: Sequence[str]) -> None:
    parser = Parser("why", "Where a cell of an experiment is, or which rule dropped it.")
    _add_directory(parser)
    parser.add_argument("accession", metavar="SRX", help="the experiment, as obs calls it")
    parser.add_argument("barcode", metavar="BARCODE", help="the cell's name in its file, or in the directory")
    options = parser.parse_args(arguments)
    from scvae_data.commands.why import why

    try:
        print(why(as_written(options.directory), options.accession, options.barcode))
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _report(arguments: Sequence[str]) -> None:
    parser = Parser("report", "What became of the inputs of a directory, as a page and as tables for MultiQC.")
    _add_directory(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where the files go; by default the directory itself")
    options = parser.parse_args(arguments)
    from scvae_data.processing.finished.report import write_report

    try:
        folder = local_path("--out FOLDER" if options.out else "without --out, DIR", options.out or options.directory)
        print(write_report(as_written(options.directory), folder))
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _verify(arguments: Sequence[str]) -> None:
    from scvae_data.commands import verify

    sys.exit(verify.main(arguments))


def _diff(arguments: Sequence[str]) -> None:
    parser = Parser("diff", "How a directory differs from another; exit status 1 if it does, 2 if one cannot be read.")
    _add_directory(parser)
    parser.add_argument("other", metavar="OTHER", help="the directory that it is compared with")
    options = parser.parse_args(arguments)
    from scvae_data.commands.diff import diff

    try:
        same, text = diff(local_path("DIR", options.directory), local_path("OTHER", options.other))
    except ScvaeDataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    sys.exit(0 if same else 1)


def _upgrade(arguments: Sequence[str]) -> None:
    parser = Parser(
        "upgrade", "Write what the present version of the format has beside the chunks; they stay as they are."
    )
    _add_directory(parser)
    options = parser.parse_args(arguments)
    from scvae_data.commands.upgrade import upgrade_directory

    try:
        print(upgrade_directory(local_path("DIR", options.directory)))
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _compact(arguments: Sequence[str]) -> None:
    parser = Parser("compact", "Write the cells of a directory that has grown as one run over all inputs would.")
    _add_directory(parser)
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a new folder; DIR.compact by default")
    options = parser.parse_args(arguments)
    from scvae_data.commands.compact import compact_directory

    try:
        target = None if options.target is None else local_path("TARGET", options.target)
        print(compact_directory(local_path("DIR", options.directory), target))
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _compile(arguments: Sequence[str]) -> None:
    from scvae_data.commands import compile as command

    command.main(arguments)


def _diversity(arguments: Sequence[str]) -> None:
    parser = Parser("diversity", "How mixed the batches would be, by obs column, against a random order.")
    _add_directory(parser)
    options = parser.parse_args(arguments)
    from scvae_data.loading.plan.mixing import diversity_table
    from scvae_data.store import open_index

    try:
        mixing, table = diversity_table(open_index(options.directory))
        print(mixing.describe())
        print(table.to_string(index=False, float_format="{:.3f}".format))
        print(DIVERSITY_LEGEND)
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")


def _add_directory(parser: Parser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a directory that process.py has written")


def describe(index: DatasetIndex) -> str:
    """Say in a few lines what a dataset holds; chunk-level facts only, so it costs one small file."""
    from scvae_data.store import SRX_COLUMN

    stored = sum(chunk.bytes for chunk in index.chunks)
    method = index.normalization["method"]
    grown = f", in {len(index.generations)} generations" if len(index.generations) > 1 else ""
    accessions = index.obs_columns[SRX_COLUMN].categories or ()
    facts = {
        "directory": f"{index.path}{' (simulated)' if index.simulated else ''}",
        "cells": f"{index.n_obs:,} from {counted(len(accessions), 'experiment')}",
        "genes": f"{index.n_vars:,}",
        "non-zeros": f"{index.nnz:,} ({index.nnz / max(index.n_obs, 1):,.0f} a cell)",
        "chunks": f"{len(index.chunks):,} of {index.chunk_size:,} cells, {stored / 1e6:,.1f} MB "
        f"({stored / max(index.nnz, 1):.2f} bytes a non-zero){grown}",
        "normalised": method if method == "none" else f"{method} to {index.normalization['target_sum']:,g} counts",
        "obs columns": ", ".join(index.obs_columns),
        "format": f"version {index.format_version}, content {index.content_hash}",
    }
    return "\n".join(f"{name:<12} {fact}" for name, fact in facts.items())


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "process": _process,
    "train": _train,
    **{command: _results(command) for command in ("latents", "elbo", "express", "ppc", "de", "card")},
    "info": _info,
    "diversity": _diversity,
    "verify": _verify,
    "report": _report,
    "why": _why,
    "diff": _diff,
    "upgrade": _upgrade,
    "compact": _compact,
    "compile": _compile,
}

if __name__ == "__main__":
    main()
