"""``scvae-data latents``, ``elbo``, ``express``, ``ppc``, ``de`` and ``card``: a trained model in, its results out."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvae_data.commands.arguments import Parser
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.remote.location import Location, as_written, local_path

if TYPE_CHECKING:
    import pandas as pd

    from scvae_data.models.vae import VAE
    from scvae_data.results.align import AlignedData
    from scvae_data.results.cells import Data
    from scvae_data.results.files import Content

__all__ = ["COMMANDS", "add_arguments", "main"]

log = logging.getLogger(__name__)

SHOWN = 10  # genes printed
Options = argparse.Namespace


def main(command: str, arguments: Sequence[str]) -> None:
    """Run one of the commands; an error ends the program with one line."""
    describe, _, run = COMMANDS[command]
    parser = Parser(command, describe)
    add_arguments(command, parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    started = time.perf_counter()
    try:
        lines = run(options)
    except ScvaeDataError as error:
        sys.exit(f"error: {error}")
    print("\n".join([*lines, *([] if command == "card" else [f"{'time':<8} {time.perf_counter() - started:,.1f} s"])]))


def add_arguments(command: str, parser: Parser) -> None:
    """Say what one of the commands is called with."""
    parser.add_argument("run", metavar="RUN", help="a run directory, a checkpoint, or a folder of a saved model")
    parser.add_argument("--likelihood", metavar="PATH", help="import path of the model's likelihood, if it is your own")
    COMMANDS[command][1](parser)


def latents(options: Options) -> list[str]:
    """Write the latents of cells."""
    from scvae_data.results.cells import latents as blocks_of
    from scvae_data.results.files import Content

    out, model = _output(options), _model(options)
    cells = _served(model, options)
    columns = [f"latent_{number}" for number in range(model.hparams["n_latent"])]
    return _write_cells(out, cells, blocks_of(model, cells), Content("obsm", "X_scvae", columns, uns=_uns(options)))


def elbo(options: Options) -> list[str]:
    """Write the ELBO of cells."""
    from scvae_data.results.cells import elbos
    from scvae_data.results.files import Content

    out, model = _output(options), _model(options)
    cells = _served(model, options)
    blocks = elbos(model, cells, options.samples, options.seed)
    return _write_cells(out, cells, blocks, Content("obs", "elbo", ["elbo", "recon", "kl"], uns=_uns(options)))


def express(options: Options) -> list[str]:
    """Write the decoded expression of cells."""
    import pandas as pd

    from scvae_data.results.expression import Decoding, columns_of, expression, genes_of
    from scvae_data.results.files import Content

    out, model = _output(options), _model(options)
    size = options.library_size
    how = Decoding(options.transform_batch, options.samples, size if size == "latent" else _number(size), options.seed)
    genes, columns = genes_of(model), columns_of(model, options.genes)
    names = genes.names[columns].tolist()
    var = pd.DataFrame(
        {"gene_id": genes.ids[columns], "gene_symbol": genes.symbols[columns]}, index=pd.Index(names, dtype=str)
    ).dropna(axis="columns", how="any")
    cells = _served(model, options)
    content = Content("X", "expression", names, var, _uns(options))
    return [*_write_cells(out, cells, expression(model, cells, options.genes, how), content), _row("genes", len(names))]


MEANINGS = (
    (
        "lfc",
        "log2 fold change, group 1 over group 2, of what the model decodes: shares of a cell's counts, without depth",
    ),
    ("raw_mean", "mean counts of the cells as measured, with their depth: they may differ the other way"),
)


def de(options: Options) -> list[str]:
    """Test genes for a change between two groups of cells."""
    from scvae_data.results.change import ChangeTest

    out, model = _output(options), _model(options)
    test = ChangeTest(
        delta=options.delta,
        pseudocounts=options.pseudocounts,
        fdr=options.fdr,
        n_samples=options.samples,
        batch_correction=options.batch_correction,
        batches=options.batches,
        seed=options.seed,
    )
    groups = options.group1, options.group2
    table = model.differential_expression(_data(options, model), *groups, where=options.where, test=test)
    chosen = int(table[f"is_de_fdr_{test.fdr:g}"].sum())
    shown = table[["gene_symbol", "proba_de", "bayes_factor", "lfc_median", "raw_mean1", "raw_mean2"]]
    mistaken = f"at most {100 * test.fdr:.3g} % of these are expected to be called by mistake"
    called = f"{chosen:,} of {len(table):,} genes change (is_de_fdr_{test.fdr:g}); {mistaken}"
    lines = [*_write_table(out, table), *_head(shown), *(_row(*line) for line in MEANINGS)]
    return [*lines, *_groups(options.group1, table.iloc[0]), _row("called", called)]


def _groups(first: str, gene: pd.Series[Any]) -> list[str]:
    """Sizes of the groups, and how those are taken in that the second leaves out."""
    from scvae_data.filter import columns_in

    one, other, left_out = (f"{gene[name]:,}" for name in ("n_cells1", "n_cells2", "n_cells_left_out"))
    why = f" ({left_out} without {' or '.join(columns_in(first))} left out; "
    why += f"--group2 {shlex.quote(f'not ({first})')} takes them in)"
    return [_row("group 1", f"{one} cells"), _row("group 2", f"{other} cells{why if gene['n_cells_left_out'] else ''}")]


def ppc(options: Options) -> list[str]:
    """Compare counts with simulated ones."""
    import numpy as np

    out, model = _output(options), _model(options)
    table = model.predictive_check(_data(options, model), options.where, n_samples=options.samples, seed=options.seed)
    lines = _write_table(out, table)
    for name in ("mean", "variance", "zeros"):
        observed, simulated = (table[f"{what}_{name}"].to_numpy() for what in ("observed", "simulated"))
        known = np.isfinite(observed) & np.isfinite(simulated)
        apart = np.abs(simulated[known] - observed[known])
        r = np.corrcoef(observed[known], simulated[known])[0, 1]
        lines.append(_row(name, f"correlation over genes {r:.4f}, median difference {np.median(apart):.3g}"))
    return lines


def card(options: Options) -> list[str]:
    """Print the model card, or write the folder that it belongs to."""
    from scvae_data.results.card import card as card_of

    model = _model(options)
    if options.out is None:
        return [card_of(model, options.license)]
    folder = local_path("--out", options.out)
    model.save(folder, options.license)
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return [_row("written", f"{folder} ({n_bytes / 1e6:,.1f} MB)"), _row("load", f'VAE.load("{folder}")')]


def _of_cells(parser: Parser) -> None:
    parser.add_argument("--data", metavar="DIR", help="the directory of chunk files; that of training by default")
    parser.add_argument(
        "--generations",
        type=int,
        nargs="+",
        metavar="N",
        help="the first so many generations of a directory that has grown, of several directories a number for each",
    )
    parser.add_argument(
        "--where", metavar="FILTER", help="""cells to take, e.g. "cell_type == 'B cell'"; all if left out"""
    )


def _drawn(parser: Parser, option: str, n: int, what: str) -> None:
    parser.add_argument(option, dest="samples", type=int, default=n, metavar="N", help=f"{what} (default {n:,})")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")


def _file(parser: Parser, required: bool) -> None:
    help = "what to write: .h5ad, .zarr or .parquet"
    parser.add_argument("--out", metavar="FILE", required=required, help=help)


def _add_latents(parser: Parser) -> None:
    _of_cells(parser)
    _file(parser, required=True)


def _add_elbo(parser: Parser) -> None:
    _add_latents(parser)
    _drawn(parser, "--samples", 1, "draws from each cell's posterior, whose mean is written")


def _add_express(parser: Parser) -> None:
    _add_elbo(parser)
    parser.add_argument("--genes", nargs="+", metavar="GENE", help="names, ids or symbols; all genes if left out")
    parser.add_argument(
        "--transform-batch", nargs="+", metavar="BATCH", help="decode as if cells were of it; several are averaged"
    )
    parser.add_argument(
        "--library-size", default="1", metavar="SIZE", help='counts a cell sums to, or "latent" for its own (default 1)'
    )


def _add_ppc(parser: Parser) -> None:
    _of_cells(parser)
    _file(parser, required=False)
    _drawn(parser, "--simulations", 1, "counts drawn for each cell")


def _add_de(parser: Parser) -> None:
    _of_cells(parser)
    _file(parser, required=False)
    parser.add_argument("--group1", required=True, metavar="FILTER", help="the cells of the first group")
    parser.add_argument(
        "--group2",
        metavar="FILTER",
        help="those of the second; if left out, all others with a value in what FILTER of --group1 names",
    )
    parser.add_argument("--delta", type=float, default=0.25, help="least log2 fold change that counts (default 0.25)")
    parser.add_argument("--pseudocounts", type=float, help="added to shares; from genes not expressed if left out")
    parser.add_argument("--fdr", type=float, default=0.05, help="expected share of false calls (default 0.05)")
    parser.add_argument("--batch-correction", action="store_true", help="compare cells as if of one batch, over all")
    parser.add_argument("--batches", nargs="+", metavar="BATCH", help="those batches; all if left out")
    _drawn(parser, "--pairs", 5_000, "pairs of cells that are compared, of at most so many cells of each group")


def _add_card(parser: Parser) -> None:
    parser.add_argument("--license", metavar="NAME", help="under which the model is given away, e.g. cc-by-4.0")
    parser.add_argument("--out", metavar="FOLDER", help="write the model with its card there; printed if left out")


def _model(options: Options) -> VAE:
    """The model, where it computes fastest."""
    import torch

    from scvae_data.models.likelihoods import import_likelihood
    from scvae_data.training.runs import load_run

    import_likelihood(options.likelihood)
    model = load_run(local_path("RUN", options.run).expanduser())
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _data(options: Options, model: VAE) -> Data:
    """The directory that is named, else the one of training, or those; as many generations of it as are asked for."""
    trained_on = model.record.get("facts") or {}
    path = options.data or trained_on.get("data_path")
    if path is None:
        raise ConfigError("it is not recorded which directory the model was trained on; give one: --data DIR")
    found = [as_written(one) for one in path] if isinstance(path, list) else as_written(path)
    if options.generations is None:
        if options.data is None:
            _tell_growth(found, trained_on)
        return found
    from scvae_data.loading.datamodule import ChunkedDataModule

    first, *more = options.generations
    chosen = [first, *more] if more else first
    return ChunkedDataModule(found, batch_size=1, split=None, normalized=False, generations=chosen)


def _tell_growth(path: Location | list[Location], trained_on: Mapping[str, Any]) -> None:
    """Warn of cells that came into a directory after the model was trained on it."""
    from scvae_data.store import open_dataset

    index = open_dataset(path)
    number = index.grown_from(trained_on.get("content_hash", ""))
    if number is None:
        return
    before = open_dataset(path, generations=number).n_obs
    numbers = " ".join(map(str, number if isinstance(number, list) else [number]))
    log.warning(
        "%s has grown since the model was trained: %s of %s cells are new, and taken too; "
        "--generations %s leaves them out",
        index.where, f"{index.n_obs - before:,}", f"{index.n_obs:,}", numbers,
    )  # fmt: skip


def _served(model: VAE, options: Options) -> AlignedData:
    from scvae_data.results.cells import served

    return served(model, _data(options, model), options.where)


def _output(options: Options) -> Path | None:
    """Where to write, checked before any work."""
    if options.out is None:
        return None
    from scvae_data.results.files import check_suffix

    path = local_path("--out", options.out)
    check_suffix(path)
    if path.exists():
        raise ConfigError(f"--out={path} exists already; name another file, or remove it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out={path}: there is no folder {path.parent}; make it first")
    return path


def _write_cells(path: Path | None, cells: AlignedData, blocks: Iterable[Any], content: Content) -> list[str]:
    from scvae_data.results.files import write_cells

    assert path is not None
    n_obs = write_cells(path, blocks, cells.index.cells.obs_tables, content)
    return [_row("cells", f"{n_obs:,} of {cells.index.n_obs:,} in {cells.index.path}"), _written(path)]


def _write_table(path: Path | None, table: pd.DataFrame) -> list[str]:
    from scvae_data.results.files import write_genes

    if path is None:
        return []
    write_genes(path, table)
    return [_written(path)]


def _uns(options: Options) -> dict[str, Any]:
    """What a file says of how it was made."""
    return {name: str(value) for name, value in vars(options).items() if value is not None and name != "out"}


def _written(path: Path) -> str:
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    return _row("written", f"{path} ({sum(file.stat().st_size for file in files) / 1e6:,.1f} MB)")


def _head(table: pd.DataFrame) -> list[str]:
    return table.head(SHOWN).to_string(float_format="{:.3g}".format).splitlines()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f'--library-size={text} is neither a number nor "latent"') from None


def _row(name: str, value: object) -> str:
    return f"{name:<8} {value:,}" if isinstance(value, int) else f"{name:<8} {value}"


COMMANDS: Mapping[str, tuple[str, Callable[[Parser], None], Callable[[Options], list[str]]]] = {
    "latents": ("Write the latents of the cells of a directory.", _add_latents, latents),
    "elbo": ("Write the ELBO of the cells of a directory.", _add_elbo, elbo),
    "express": ("Write the expression that a model decodes for the cells of a directory.", _add_express, express),
    "ppc": ("Compare the counts of each gene with those that the model simulates.", _add_ppc, ppc),
    "de": ("Test genes for differential expression between two groups of cells.", _add_de, de),
    "card": ("Print the model card, or write the model and its card into a folder.", _add_card, card),
}
