"""``scvae-data``: the programs, the results of a model and a look into dataset directories, from anywhere.

Each command imports what it needs when it runs: the words on them are there at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from scvae_data.commands.arguments import Parser
from scvae_data.errors import ScvaeDataError
from scvae_data.remote.location import as_written
from scvae_data.system.closed_output import until_closed
from scvae_data.system.quick_import import quick_exit
from scvae_data.system.stopping import interruptible

__all__ = ["COMMANDS", "Command", "main", "start"]

Options = argparse.Namespace

DIVERSITY_LEGEND = """\

means over batches, and over as many random choices of cells (random_…)
  entropy    of the values in a batch, in bits
  labels     distinct values in a batch
  variation  how far a batch is from all cells: 0, the same shares of each value, to 1, no value in common
  share      entropy in shares of random_entropy, at most 1; below 0.99 training is known to suffer"""


@dataclass(frozen=True)
class Command:
    """What is called by a name: how, what for, and what runs it."""

    usage: str
    """What follows its name."""
    summary: str
    """What it does, in a line."""
    add: Callable[[Parser], None] | None
    """Says what it is called with; None where Hydra reads that."""
    main: Callable[[Sequence[str]], object]
    """Runs it with the words after its name."""


def main() -> None:
    """Hand the rest of the command line to the named command."""
    quick_exit()
    with interruptible(), until_closed():
        run(*(sys.argv[1:] or ["--help"]))


def run(name: str, *rest: str) -> None:
    """Run a command; mistakes and errors end the program with one line."""
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        from scvae_data import __version__

        print(f"scvae-data {__version__}")
    elif name in COMMANDS:
        COMMANDS[name].main(rest)
    elif close := get_close_matches(name, COMMANDS, n=1):
        sys.exit(f"error: {name!r} is not a command; did you mean {close[0]}? scvae-data --help has them all")
    else:
        print(usage(), file=sys.stderr)
        sys.exit(f"error: {name!r} is not a command; there are {', '.join(COMMANDS)}")


def usage() -> str:
    """Return how commands are called and what they do."""
    rows = [(f"{name} {command.usage}".rstrip(), command.summary) for name, command in COMMANDS.items()]
    rows.append(("--version", "the version of this package"))
    lines = [f"  {called:<23} {summary}" for called, summary in rows]
    return "\n".join(["usage: scvae-data COMMAND …\n", *lines, "\nscvae-data COMMAND --help says more of each."])


def start(name: Literal["process", "train"]) -> None:
    """Run a program whose command line Hydra reads; its worker processes start while its modules are imported."""
    from importlib import import_module

    quick_exit()
    if name == "process":
        # Matrices are multiplied in one thread, so that sums are the same anywhere; others would spin from the start.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if name == "process" and "engine=local" in sys.argv:
        from scvae_data.processing.engine.workers import preload

        preload()
    import_module(f"scvae_data.commands.{name}").main()


def _program(name: Literal["process", "train"]) -> Callable[[Sequence[str]], None]:
    def run_it(arguments: Sequence[str]) -> None:
        sys.argv = [f"scvae-data {name}", *arguments]  # Hydra reads it
        start(name)

    return run_it


def _results(name: str, usage: str, summary: str) -> Command:
    def add(parser: Parser) -> None:
        from scvae_data.commands import results

        results.add_arguments(name, parser)

    def run_it(arguments: Sequence[str]) -> None:
        from scvae_data.commands import results

        results.main(name, arguments)

    return Command(usage, summary, add, run_it)


def _telling(
    name: str, usage: str, summary: str, add: Callable[[Parser], None], tell: Callable[[Options], object]
) -> Command:
    """Make a command that prints what it found or did."""

    def run_it(arguments: Sequence[str]) -> None:
        parser = Parser(name, f"{summary[0].upper()}{summary[1:]}.")
        add(parser)
        options = parser.parse_args(arguments)
        try:
            print(tell(options))
        except ScvaeDataError as error:
            sys.exit(f"error: {error}")

    return Command(usage, summary, add, run_it)


def _of_directory(parser: Parser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a directory of chunk files, as process writes it")


def _of_why(parser: Parser) -> None:
    _of_directory(parser)
    parser.add_argument(
        "experiment", metavar="SRX|FILE", help="the experiment as obs calls it, or the name of its file"
    )
    parser.add_argument(
        "barcode", metavar="BARCODE", nargs="?",
        help="the cell's name in its file, or in the directory; without one all cells of the experiment are counted",
    )  # fmt: skip


def _of_report(parser: Parser) -> None:
    _of_directory(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where the files go; by default the directory itself")


def _of_diff(parser: Parser) -> None:
    _of_directory(parser)
    parser.add_argument("other", metavar="OTHER", help="the directory that it is compared with")


def _of_compact(parser: Parser) -> None:
    _of_directory(parser)
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a new folder; DIR.compact by default")
    _with_scratch(parser)


def _of_upgrade(parser: Parser) -> None:
    _of_directory(parser)
    _with_scratch(parser)


def _with_scratch(parser: Parser) -> None:
    parser.add_argument(
        "--scratch",
        default="data/scratch",
        metavar="FOLDER",
        help="where files are made that go to a store (%(default)s)",
    )


def _of_verify(parser: Parser) -> None:
    from scvae_data.commands import verify

    verify.add_arguments(parser)


def _of_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh"], metavar="SHELL", help="bash or zsh")
    parser.add_argument("--line", help="what the script asks: print how this line of process or train can go on")


def _info(options: Options) -> str:
    from scvae_data.commands.info import info

    return info(as_written(options.directory))


def _diversity(options: Options) -> str:
    from scvae_data.loading.plan.mixing import diversity_table
    from scvae_data.store import open_index

    mixing, table = diversity_table(open_index(options.directory))
    return f"{mixing.describe()}\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n{DIVERSITY_LEGEND}"


def _why(options: Options) -> str:
    from scvae_data.commands.why import why

    return why(as_written(options.directory), options.experiment, options.barcode)


def _report(options: Options) -> object:
    from scvae_data.processing.finished.report import write_report

    return write_report(as_written(options.directory), as_written(options.out or options.directory))


def _upgrade(options: Options) -> str:
    from scvae_data.commands.upgrade import upgrade_directory

    return upgrade_directory(as_written(options.directory), Path(options.scratch))


def _compact(options: Options) -> str:
    from scvae_data.commands.compact import compact_directory

    target = None if options.target is None else as_written(options.target)
    return compact_directory(as_written(options.directory), target, Path(options.scratch))


def _completion(options: Options) -> str:
    from scvae_data.commands.completion import candidates, script

    if options.line is not None:
        program, *line = options.line.split()
        word = line.pop() if line and not options.line[-1].isspace() else ""
        sys.argv[1:] = line  # whose --config-dir counts
        return "\n".join(candidates(program, line, word))
    return script(options.shell, {name: command.add for name, command in COMMANDS.items()})


def _diff(arguments: Sequence[str]) -> None:
    parser = Parser("diff", "How a directory differs from another; exit status 1 if it does, 2 if one cannot be read.")
    _of_diff(parser)
    options = parser.parse_args(arguments)
    from scvae_data.commands.diff import diff

    try:
        same, text = diff(as_written(options.directory), as_written(options.other))
    except ScvaeDataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    sys.exit(0 if same else 1)


def _verify(arguments: Sequence[str]) -> None:
    from scvae_data.commands import verify

    sys.exit(verify.main(arguments))


def _compile(arguments: Sequence[str]) -> None:
    from scvae_data.commands import compile as command

    command.main(arguments)


COMMANDS: dict[str, Command] = {
    "process": Command(
        "[key=value …]", "raw count files -> a directory of chunk files (scvae-data process --help)", None,
        _program("process"),
    ),
    "train": Command(
        "[key=value …]", "a directory of chunk files -> a trained model (scvae-data train --help)", None,
        _program("train"),
    ),
    "latents": _results("latents", "RUN --out FILE", "latents of the cells of a directory: .h5ad, .zarr or .parquet"),
    "elbo": _results("elbo", "RUN --out FILE", "their ELBO"),
    "express": _results("express", "RUN --out FILE", "the expression that a trained model decodes for them"),
    "ppc": _results("ppc", "RUN", "counts of each gene against those that the model simulates"),
    "de": _results("de", "RUN --group1 FILTER", "differential expression between two groups of cells"),
    "card": _results("card", "RUN", "the model card; with --out, the model in a folder to hand on"),
    "info": _telling("info", "DIR", "what a directory of chunk files holds", _of_directory, _info),
    "diversity": _telling(
        "diversity", "DIR", "how mixed the batches would be, by obs column, against a random order", _of_directory,
        _diversity,
    ),
    "verify": Command(
        "DIR", "whether every file is what was written (--deep, --against SOURCE …)", _of_verify, _verify
    ),
    "report": _telling(
        "report", "DIR",
        "what became of its inputs, as a page: qc_report.html, and tables for MultiQC (--out FOLDER)", _of_report,
        _report,
    ),
    "why": _telling(
        "why", "DIR SRX|FILE [BARCODE]",
        "what became of an experiment; or where a cell of it is, or which rule dropped it", _of_why, _why,
    ),
    "diff": Command(
        "DIR OTHER", "experiments, genes and cells that OTHER has more, or has not, or has otherwise", _of_diff, _diff
    ),
    "upgrade": _telling(
        "upgrade", "DIR", "bring a directory into the present version of the format, without touching its chunks",
        _of_upgrade, _upgrade,
    ),
    "compact": _telling(
        "compact", "DIR [TARGET]", "one generation of chunks of a directory that has grown, in a new directory",
        _of_compact, _compact,
    ),
    "compile": Command(
        "", "compile ahead what the first runs of process and train would (make setup does it)", lambda parser: None,
        _compile,
    ),
    "completion": _telling(
        "completion", "SHELL", "what makes the tab key complete commands, settings and options: bash or zsh",
        _of_completion, _completion,
    ),
}  # fmt: skip

if __name__ == "__main__":
    main()
