"""Configured inputs in, a list of files with their identities out.

An accession names the experiment a file belongs to. It comes from the
manifest, else from the file's own obs, else from the file name or its parent
folders (10x files are all called ``filtered_feature_bc_matrix.h5``).
"""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from scvae_data.errors import ConfigError
from scvae_data.processing.labels import label, number, spelling
from scvae_data.processing.settings.named_file import named_file, why_absent
from scvae_data.processing.settings.text_table import read_text_table
from scvae_data.readers.folders import (
    STORE_FILES,
    InputsBelow,
    find_inputs,
    in_words,
    is_matrix,
    is_store,
    left_out,
    listed_inputs,
    patterns,
)
from scvae_data.readers.mtx_folder import names_of_matrix
from scvae_data.readers.opening import Opening, TableRows
from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath, as_written, local_path, location
from scvae_data.remote.range_file import open_anywhere
from scvae_data.store import SRX_COLUMN
from scvae_data.store.files import sha256_file
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits
from scvae_data.wording import counted, named

__all__ = [
    "ACCESSION_COLUMNS",
    "SUFFIXES",
    "FileInput",
    "InputFile",
    "Inputs",
    "ManifestInput",
    "ObsValue",
    "Origin",
    "SimulatedInput",
    "accession_from_path",
    "check_accession",
    "names_experiments",
    "source_names",
    "without_ending",
]

log = logging.getLogger(__name__)

MOST_NAMED = 4
ObsValue = str | int | float | bool | None
Place = TypeVar("Place", Path, RemotePath)
ACCESSION_COLUMNS = (SRX_COLUMN, "srx_accession")
"""Obs columns that tell the accession of each cell."""
ACCESSION = re.compile(r"(?<![A-Za-z])[SEDN]RX\d+")
FORBIDDEN = re.compile(r"[:#\s\x00-\x1f]")
LIKE_ACCESSION = ("accession", "srx", "experiment", "experimentaccession", "sample", "samplename")
"""How columns of a manifest that may name experiments are spelt, see `spelling`."""
COUNTS = re.compile(r"X|raw|layers/.+|sum:[^+]+(\+[^+]+)+", re.DOTALL)
SUFFIXES = (".gz", ".h5ad", ".h5", ".hdf5", ".mtx", ".loom", ".h5mu", ".zip", ".zarr", ".csv", ".tsv", ".txt")
# Endings of names that say what kind of matrix a file is, not which experiment it came from.
GENERIC = re.compile(
    r"(^|[._-]+)((filtered|raw|sample_filtered|sample_raw|sample)_(feature|gene)_bc_matri(x|ces)(_mex|_h5)?"
    r"|cellbender(_out(put)?)?(_filtered)?|output_filtered|(raw_|umi_?|gene_|read_?)?counts?_(matrix|table)|dge"
    r"|matrix|matrices|(raw_|umi_?|gene_|read_?)?counts?|adata|anndata|data|outs|count|solo\.out|(rsec|dbec)_molspercell(_unfiltered)?(_mex)?"
    r"|(refdata-gex-)?(hg19|hg38|grch3[78]|mm10|mm9|grcm3[89])(-20\d\d-[a-z])?|genome)$",
    re.IGNORECASE,
)
# Whole names of files and folders that programs give whatever the sample is called.
OF_PROGRAMS = re.compile(
    r"filter(ed)?|raw|unfiltered|(filter|filtered|raw)_matrix"
    r"|per_sample_outs|multi|aggr|cellranger|cell_ranger"  # Cell Ranger
    r"|gene|genefull(_ex50pas|_exonoverintron)?|velocyto|sj|transcript3p|uniqueandmult-\w+|star|starsolo"  # STARsolo
    r"|counts_(un)?filtered(_modified)?|cells_x_(genes|tcc)(\.\w+)?|(un)?spliced|genes|tcc|genecount|eqcount"  # kb
    r"|kb|kallisto|bustools|(kb|bus|kallisto)_out(put)?"
    r"|alevin([_-]fry)?|alevin_out(put)?|simpleaf|simpleaf_(quant|out(put)?)|(af_)?quants?|quants_mat|af_map|quant_res"
    r"|dge|dge_(un)?filtered|all[_-](samples?|wells?)"  # Parse
    r"|samples?|results?|out(puts?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class InputFile:
    """One file or folder to process.

    Parameters
    ----------
    path
        Absolute path, or the address in a remote store.
    accession
        From the manifest; None where the file itself or its name must say.
    obs_values
        Further manifest columns, given to every cell of the file.
    is_chunk
        Whether it is a chunk of a dataset directory, whose cells have names and metrics already.
    """

    path: Location
    accession: str | None = None
    obs_values: dict[str, ObsValue] = field(default_factory=dict)
    is_chunk: bool = False


@dataclass(frozen=True)
class Origin:
    """An input of a dataset directory that is an input.

    Parameters
    ----------
    directory
        The directory.
    source_file
        What its obs calls it.
    measured
        Names of the genes of the directory that it measured; None for all.
    """

    directory: str
    source_file: str
    measured: frozenset[str] | None = None


@dataclass(frozen=True)
class Inputs:
    """What every kind of input has in common.

    Parameters
    ----------
    merge_same_accession
        Accept several files of one accession.
    obs_columns
        Input obs columns to keep; None keeps all (an error beyond 50).
    join_columns
        Name of an obs column → the columns of the files' own obs that are it, as
        they are called there. A cell has the value of that which has one.
    numeric_columns
        Columns of text, of the manifest or of the files' obs, that are wanted
        as numbers; one that holds anything else is refused.
    missing_labels
        Texts that mean a missing value in columns of text, of the files, the manifest or the table of
        cells, such as ``nan``. None is one by itself, but the empty field of a table of text.
    obs_table
        CSV, TSV or Parquet with a row per cell: a column ``barcode``, and
        ``srx_accession`` or ``file`` (what obs calls ``source_file``, or a
        path: relative ones start at the table's folder). Any further column
        becomes an obs column, as those of a manifest do.
    full_hash
        Hash whole files instead of samples of them: sure to see every
        change, and as much reading again as the run itself.
    count_tolerance
        Round values that are at most so far from a whole number: for counts
        with the noise of float arithmetic, never for normalised values.
    counts
        The matrix of files with several that holds the counts: ``X``, ``raw``,
        ``layers/NAME``, or ``sum:NAME+NAME`` for layers that are added. None
        finds it by its values and the genes it covers. Formats with one matrix are not concerned.
    table_rows
        What the rows of tables of text are, ``genes`` or ``cells``. None tells it by their names.
    max_table_bytes
        Bytes of one array that is read whole from an input: names, obs
        columns, row borders; or of one HDF5 chunk. One that declares more is not read.
    max_inflation
        Bytes of an array for each byte that it takes in the file, beyond
        which the file is not read.
    readers
        Import paths of readers for formats of your own, see `ReaderClass`; they are asked before ours.
    scratch_gb
        Bound on the copies of files of a remote store, in GB (10**9 bytes):
        each is fetched, read and removed.
    fetch_ahead
        Files of a remote store that are fetched before they are read.
    """

    merge_same_accession: bool = False
    obs_columns: Sequence[str] | None = None
    join_columns: Mapping[str, Sequence[str]] | None = None
    numeric_columns: Sequence[str] = ()
    missing_labels: Sequence[str] = ()
    obs_table: str | None = None
    full_hash: bool = False
    count_tolerance: float = 0.0
    counts: str | None = None
    table_rows: TableRows | None = None
    max_table_bytes: int = DEFAULT_LIMITS.max_table_bytes
    max_inflation: int = DEFAULT_LIMITS.max_inflation
    readers: Sequence[str] = ()
    scratch_gb: float = 20.0
    fetch_ahead: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.count_tolerance, int | float) or not 0 <= self.count_tolerance < 0.1:
            raise ConfigError(f"input.count_tolerance={self.count_tolerance} must be from 0 to below 0.1")
        if self.counts is not None and not COUNTS.fullmatch(str(self.counts)):
            raise ConfigError(
                f"input.counts={self.counts} must be X, raw, layers/NAME or sum:NAME+NAME (layers that are added)"
            )
        if self.table_rows not in (None, *get_args(TableRows)):
            raise ConfigError(f"input.table_rows={self.table_rows} must be genes, cells or null (told by their names)")
        if not isinstance(self.scratch_gb, int | float) or not self.scratch_gb > 0:
            raise ConfigError(f"input.scratch_gb={self.scratch_gb!r} must be a positive number of GB")
        for name in ("max_table_bytes", "max_inflation", "fetch_ahead"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ConfigError(f"input.{name}={value!r} must be a whole number of at least 1")
        self._check_join_columns()
        if isinstance(self.missing_labels, str):
            raise ConfigError(f"input.missing_labels={self.missing_labels} must be a list, [{self.missing_labels}]")
        if odd := [text for text in self.missing_labels if not isinstance(text, str)]:
            raise ConfigError(
                f"input.missing_labels holds {odd[0]}, which is no text; quote it, 'input.missing_labels=[\"nan\"]'"
            )
        if isinstance(self.numeric_columns, str):
            raise ConfigError(f"input.numeric_columns={self.numeric_columns} must be a list, [{self.numeric_columns}]")

    def _check_join_columns(self) -> None:
        """Refuse what names no columns to join, or one for two names."""
        named: Counter[str] = Counter()
        for name, columns in (self.join_columns or {}).items():
            if isinstance(columns, str) or not columns or not all(isinstance(column, str) for column in columns):
                raise ConfigError(f"input.join_columns.{name}={columns} must be a list of obs columns, [{columns}]")
            named.update(columns)
        if twice := [column for column, n in named.items() if n > 1]:
            raise ConfigError(f"input.join_columns names {twice[0]} twice; a column has one name")
        if {*named, *(self.join_columns or ())} & set(ACCESSION_COLUMNS):
            raise ConfigError(
                f"input.join_columns cannot make or take {SRX_COLUMN}; say accessions in a manifest (input=manifest)"
            )

    @property
    def opening(self) -> Opening:
        """How inputs are opened."""
        return Opening(Limits(self.max_table_bytes, self.max_inflation), tuple(self.readers), self.table_rows)

    @property
    def of_content(self) -> dict[str, Any]:
        """Settings that change the content of chunks and are set; with none, chunks are as if there were no such."""
        found: dict[str, Any] = {"numeric_columns": sorted(self.numeric_columns)} if self.numeric_columns else {}
        if self.table_rows is not None:
            found["table_rows"] = self.table_rows
        if self.missing_labels:
            found["missing_labels"] = sorted(self.missing_labels)
        if self.join_columns:
            found["join_columns"] = {name: sorted(columns) for name, columns in sorted(self.join_columns.items())}
        if self.obs_table is not None:
            found["obs_table"] = sha256_file(self.obs_table_path)
        return found

    @property
    def obs_table_path(self) -> Path:
        """The table of cells, which must exist."""
        path = local_path("input.obs_table", str(self.obs_table)).expanduser().absolute()
        return named_file("input.obs_table", path, "give a CSV, TSV or Parquet file with a row per cell")

    renamed: ClassVar[Mapping[str, str]] = {}
    """What columns of the files' own obs are called for this kind of input, where not by their own name."""

    @property
    def obs_names(self) -> dict[str, str]:
        """What columns of the files' own obs are called in the directory, where not by their own name."""
        joined = {column: name for name, columns in (self.join_columns or {}).items() for column in columns}
        return {**self.renamed, **joined}

    @property
    def cell_metadata(self) -> str:
        """Hash of the tables of cells that lie beside the files; empty without such."""
        return ""

    @property
    def simulated(self) -> bool:
        """Whether the counts come from a simulator."""
        return False

    @property
    def cells_where(self) -> str | None:
        """Which cells of dataset directories are wanted; None for all."""
        return None

    @property
    def origins(self) -> Sequence[Origin]:
        """The inputs of dataset directories that are inputs; those are where their cells came from."""
        return ()

    @property
    def cell_columns(self) -> Sequence[str]:
        """Obs columns that these tables add."""
        return ()

    def check_named(self) -> None:
        """Refuse to go without what says where the input is, before anything else is looked at."""

    def files(self) -> list[InputFile]:
        """List the files; raises `ConfigError` where there are none."""
        raise NotImplementedError


@dataclass(frozen=True)
class FileInput(Inputs):
    """Files named by path or glob.

    Parameters
    ----------
    paths
        A path or address, a glob (``**`` descends), or a list of them. A folder without
        a matrix of its own stands for the H5AD files below it, linked folders
        included; one with a matrix for that matrix. A warning names hidden files,
        and other inputs there that no other path names.
    """

    paths: str | Sequence[str] = ()

    def check_named(self) -> None:
        """Refuse no path."""
        if not self.paths:
            raise ConfigError("input.paths is empty; give a path or a glob, e.g. input.paths='\"data/*.h5ad\"'")

    def files(self) -> list[InputFile]:
        """Expand the globs; every pattern must match something."""
        self.check_named()
        patterns = [self.paths] if isinstance(self.paths, str) else list(self.paths)
        found: dict[Location, InputFile] = {}
        folders: dict[Path, InputsBelow] = {}
        for pattern in patterns:
            literal = location(pattern)
            if isinstance(literal, RemotePath):
                found |= {path: InputFile(path) for path in expand_remote(literal) if path not in found}
                continue
            inside = below(literal)
            holds_matrix = has_matrix(literal)
            if holds_matrix or inside.h5ad:
                folders[literal] = inside
            for path in expand(pattern) if holds_matrix or not inside.h5ad else inside.h5ad:
                found.setdefault(path, InputFile(path))
        for folder, inside in folders.items():
            warn_of_others(folder, inside, found.keys(), folder)
        for path, first in same_files(found):
            log.warning("input.paths: %s is the same file as %s, and is taken once", path, first)
            del found[path]
        return list(found.values())


@dataclass(frozen=True)
class ManifestInput(Inputs):
    """Files listed in a table.

    Parameters
    ----------
    manifest
        CSV, TSV or Parquet with a column ``path`` (relative paths start at
        the manifest's folder), optionally ``srx_accession``; any further
        column becomes an obs column: of text, as it is written, unless
        `numeric_columns` names it. Parquet keeps its types.
    """

    manifest: str | None = None

    def check_named(self) -> None:
        """Refuse no manifest."""
        if not self.manifest:
            raise ConfigError("input.manifest is not set; give a CSV or Parquet file with a column 'path'")

    def files(self) -> list[InputFile]:
        """Read the manifest."""
        self.check_named()
        assert self.manifest is not None
        path = local_path("input.manifest", self.manifest).absolute()
        files = [self._file(path, number, row) for number, row in enumerate(read_manifest(path), start=1)]
        if not files:
            raise ConfigError(f"{path}: the manifest lists no file")
        twice = [str(name) for name, n in Counter(file.path for file in files).items() if n > 1]
        if twice:
            raise ConfigError(f"{path}: the manifest lists {min(twice)} more than once")
        if same := same_files([file.path for file in files]):
            raise ConfigError(f"{path}: {same[0][0]} is the same file as {same[0][1]}; remove one of the rows")
        return files

    def _file(self, path: Path, number: int, row: Mapping[str, ObsValue]) -> InputFile:
        """Return the file that a row names."""
        if not isinstance(row["path"], str) or not row["path"]:
            raise ConfigError(f"{path}: row {number} has no path; every row names one file")
        given = as_written(row["path"])
        # Whether there is such an object the survey will see, from many at a time.
        target = given if isinstance(given, RemotePath) else path.parent / given
        if isinstance(target, Path) and (why := why_absent(target)):
            raise ConfigError(
                f"{path}: row {number} names {target}, which {why}; correct it (relative paths start at the manifest's "
                "folder) or remove the row"
            )
        accession = row.get("srx_accession")
        named = None if accession is None else check_accession(label(accession), path)
        values = {name: value for name, value in row.items() if name not in ("path", "srx_accession")}
        for name in [name for name in values if name in self.numeric_columns]:
            value = None if values[name] in self.missing_labels else values[name]
            values[name] = wanted_number(value, f"{path}: row {number}", name)
        return InputFile(location(target), named, values)


@dataclass(frozen=True)
class SimulatedInput(Inputs):
    """Simulated files, made on the spot: a demonstration without a download.

    Parameters
    ----------
    directory
        Where the files are written.
    n_files, cells_per_file, n_genes
        Size of the simulation.
    seed
        Seed of the simulation.
    """

    directory: str = "data/demo"
    n_files: int = 4
    cells_per_file: int = 2000
    n_genes: int = 20_000
    seed: int = 0

    @property
    def simulated(self) -> bool:
        """They do."""
        return True

    def files(self) -> list[InputFile]:
        """Write the simulated files and list them."""
        from scvae_data.simulate import simulate_files

        paths = simulate_files(
            local_path("input.directory", self.directory).absolute(),
            n_files=self.n_files,
            cells_per_file=self.cells_per_file,
            n_genes=self.n_genes,
            seed=self.seed,
        )
        return [InputFile(path) for path in paths]


def expand(pattern: str) -> list[Path]:
    """Return the absolute paths a pattern names, in sorted order; a path that exists is taken literally."""
    literal = Path(pattern).expanduser()
    why = why_absent(literal)
    if not why:
        return [literal.absolute()]
    if not glob.has_magic(pattern):
        raise ConfigError(f"input.paths: {literal.absolute()} {why}; give a file, a folder or a glob")
    matches = sorted(glob.glob(str(literal), recursive=True))  # noqa: PTH207 - a pattern may be absolute
    if not matches:
        raise ConfigError(f"input.paths: {pattern} matches no file (searched from {Path.cwd()})")
    return without_sides(pattern, without_nested(pattern, [Path(match).absolute() for match in matches]))


def without_nested(pattern: Location | str, matches: Sequence[Place]) -> list[Place]:
    """Return what a glob matches without folders that hold other matches, and without what Zarr stores are made of."""
    holding = {parent for match in matches for parent in match.parents}.intersection(matches)
    marked = {match.parent for match in matches if match.name in STORE_FILES}
    stores = {place for place in holding if place in marked or (isinstance(place, Path) and is_store(place))}
    left = [match for match in matches if stores.isdisjoint(match.parents)]
    if folders := [match for match in left if match in holding - stores]:
        log.info(
            "input.paths=%s: what it matches in %s is read, not the folders themselves: %s",
            pattern, counted(len(folders), "folder"), named([str(folder) for folder in folders], MOST_NAMED),
        )  # fmt: skip
    return [match for match in left if match not in holding - stores]


def without_sides(pattern: Location | str, matches: Sequence[Place]) -> list[Place]:
    """Return what a glob matches without the barcodes and features of matrices that it matches too."""
    places = set(matches)
    sides = [place for place in matches if any(place.parent / name in places for name in names_of_matrix(place.name))]
    if sides:
        log.info(
            "input.paths=%s: %s belong to the matrices beside them and are read with those: %s",
            pattern, counted(len(sides), "file"), named([place.name for place in sides], MOST_NAMED),
        )  # fmt: skip
    left = set(sides)
    return [place for place in matches if place not in left]


def expand_remote(pattern: RemotePath) -> list[RemotePath]:
    """Return the inputs that an address names: matches, an object, a folder that is one, or the H5AD files below it."""
    if glob.has_magic(pattern.url):
        if not (matches := objects.glob(pattern)):
            objects.check_bucket(pattern)
            raise ConfigError(f"input.paths: {pattern} matches nothing")
        return without_sides(pattern, without_nested(pattern, matches))
    if not (found := objects.find(pattern)):
        return [pattern]  # an object, or nothing, as the survey will tell
    top = {path.name for path in found if path.parent == pattern}
    if not STORE_FILES.isdisjoint(top):
        return [pattern]
    places = {Path(path.below(pattern)): path for path in found}
    inside = listed_inputs(map(str, places))
    holds_matrix = any(is_matrix(name) and not name.startswith(".") for name in top)
    taken = [pattern] if holds_matrix else [places[path] for path in inside.h5ad]
    if not taken:
        raise ConfigError(f"input.paths: no H5AD file, Zarr store or matrix in {pattern}; give a glob")
    warn_of_others(pattern, inside, {Path()} if holds_matrix else set(inside.h5ad), Path())
    return taken


def below(folder: Path) -> InputsBelow:
    """Return what lies below a folder; nothing for a file or a Zarr store."""
    return InputsBelow() if why_absent(folder) or not folder.is_dir() or is_store(folder) else find_inputs(folder)


def has_matrix(folder: Path) -> bool:
    """Whether a folder holds a matrix of the usual name itself, and stands for it."""
    return not why_absent(folder) and any(any(folder.glob(name)) for name in ("[!.]*matrix.mtx*", "matrix.mtx*"))


def warn_of_others(folder: Location, found: InputsBelow, taken: Collection[Location], root: Path) -> None:
    """Warn of what lies below a folder, and is called like an input, but is not taken where its own are.

    Parameters
    ----------
    taken
        All that is taken; the root itself where the folder stands for a matrix.
    root
        The folder as the paths of what was found, and taken, begin.
    """
    if said := left_out(found):
        log.warning("input.paths=%s: left out: %s", folder, said)
    kinds = dict(found.others)
    for ending in {path.suffix for path in found.h5ad}:
        kinds[f"{ending} file"] = [path for path in found.h5ad if path.suffix == ending]
    left = {
        kind: [
            path.relative_to(root)
            for path in paths
            if path not in taken and not (is_matrix(path.name) and path.parent in taken)
        ]
        for kind, paths in kinds.items()
    }
    if others := in_words(left):
        globs = [f"{glob.escape(str(folder))}/{pattern}" for pattern in patterns(left)]
        own = "the matrix in it" if root in taken else f"the {counted(len(found.h5ad), 'H5AD file')} below it"
        log.warning(
            "input.paths=%s stands for %s; left out there: %s; to take them too: input.paths='[%s]'",
            folder, own, others, ",".join(f'"{pattern}"' for pattern in (str(folder), *globs)),
        )  # fmt: skip


def same_files(paths: Iterable[Location]) -> list[tuple[Path, Path]]:
    """Return the files that an earlier one is too, by a link or another way of writing its path, each with that one."""
    first: dict[tuple[int, int], Path] = {}
    found = []
    for path in paths:
        if isinstance(path, Path) and path.exists():
            status = path.stat()
            if (known := first.setdefault((status.st_dev, status.st_ino), path)) is not path:
                found.append((path, known))
    return found


def read_manifest(path: Path) -> list[dict[str, ObsValue]]:
    """Read the rows of a manifest, a table with a column ``path``; a text file's fields are text, or None if empty."""
    rows = read_rows("input.manifest", path, ["path"])
    names = list(rows[0]) if rows else []
    found = [name for name in names if names_experiments(name)]
    if len(found) > 1:
        raise ConfigError(f"{path}: has both {found[0]} and {found[1]}; leave one out")
    if found:
        return [{"srx_accession" if name in found else name: value for name, value in row.items()} for row in rows]
    meant = [name for name in names if all(ACCESSION.fullmatch(str(row[name])) for row in rows)]
    meant += [name for name in names if spelling(name) in LIKE_ACCESSION]
    if meant:
        log.warning(
            "%s: no column srx_accession, so experiments are called as their files say, and %s is an obs column; "
            "if it names the experiments, call it srx_accession", path, meant[0],
        )  # fmt: skip
    return rows


def names_experiments(column: str) -> bool:
    """Whether a column is called ``srx_accession``, in any case and with any mark between the words.

    >>> [names_experiments(name) for name in ("SRX_accession", "SRX Accession", "srx-accession", "accession")]
    [True, True, True, False]
    """
    return spelling(column) == "srxaccession"


def read_rows(setting: str, path: Path, needed: Sequence[str] = ()) -> list[dict[str, ObsValue]]:
    """Read the rows of a table that a setting names; a text file's fields are text, or None if empty.

    Raises
    ------
    ConfigError
        There is no such table, or it lacks a column of ``needed``.
    """
    columns = f" with a column {needed[0]!r}" if needed else ""
    named_file(setting, path, f"give a CSV, TSV or Parquet file{columns}")
    if path.suffix.lower() in {".parquet", ".pq"}:
        return read_parquet_rows(path, needed)
    table = read_text_table(path, list(needed))
    return [dict(zip(table.columns, [field or None for field in row], strict=True)) for row in table.rows]


def read_parquet_rows(path: Location, needed: Sequence[str] = ()) -> list[dict[str, ObsValue]]:
    """Read the rows of a Parquet table; numbers and booleans stay, all else becomes text."""
    import pyarrow as pa  # here: training on raw files, by the older names, starts without it
    import pyarrow.parquet as pq

    try:
        with open_anywhere(path) as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}; write it again") from error
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    if absent := [name for name in needed if name not in names]:
        raise ConfigError(f"{path}: no column {absent[0]!r} among {', '.join(names)}")
    if nested := [field.name for field in table.schema if pa.types.is_nested(field.type)]:
        raise ConfigError(f"{path}: column {nested[0]} holds lists or structures; store text, numbers or booleans")
    return [{name: plain(value) for name, value in row.items()} for row in table.select(names).to_pylist()]


def plain(value: Any) -> ObsValue:
    """Return a value of a Parquet table as text, number, boolean, or None where it is missing."""
    if value is None or value != value:  # NaN, and missing times
        return None
    return value if isinstance(value, bool | int | float) else label(value)


def wanted_number(value: ObsValue, where: str, column: str) -> int | float | None:
    """Return a value of one of ``input.numeric_columns`` as a number; None where it is missing."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    try:
        return number(label(value))
    except ValueError as error:
        raise ConfigError(
            f"{where}, column {column}: {error}; correct it, or leave {column} out of input.numeric_columns"
        ) from error


def check_accession(accession: str, origin: Location) -> str:
    """Return an accession that can prefix cell names, or refuse it."""
    if not accession or FORBIDDEN.search(accession):
        raise ConfigError(
            f"{origin}: accession {accession!r} must not be empty or hold ':', '#' or white space; "
            "rename it in the manifest (input=manifest, column srx_accession)"
        )
    return accession


def accession_from_path(path: Location) -> str:
    """Return the accession that a file name or its parent folders give.

    Examples
    --------
    >>> accession_from_path(Path("/data/SRX123/outs/filtered_feature_bc_matrix.h5"))
    'SRX123'
    >>> accession_from_path(Path("/data/donor_1/outs/filtered_feature_bc_matrix.h5"))
    'donor_1'
    >>> accession_from_path(Path("/data/pbmc3k_2700.h5ad"))
    'pbmc3k_2700'
    >>> accession_from_path(Path("/data/donor_1/Solo.out/Gene/filtered/matrix.mtx"))
    'donor_1'
    """
    parts = [path, *path.parents]
    names = [telling_part(part.name) for part in parts]
    first = next((number for number, name in enumerate(names) if name), len(names))
    for part in parts[: max(4, first + 1)]:
        match = ACCESSION.search(part.name)
        if match:
            return match.group()
    return names[first] if first < len(names) else "unnamed"


def telling_part(name: str) -> str:
    """Return what of a file's or folder's name tells the experiment; empty where it is the same for any.

    Blanks and what else an accession cannot hold count as underscores.

    Examples
    --------
    >>> [telling_part(name) for name in ("donor 1_matrix.mtx.gz", "Bob's liver data.h5ad", "counts_unfiltered")]
    ['donor_1', "Bob's_liver", '']
    """
    name = GENERIC.sub("", FORBIDDEN.sub("_", without_ending(name))).strip("_")
    return "" if OF_PROGRAMS.fullmatch(name) or GENERIC.fullmatch(name) else name


def without_ending(name: str) -> str:
    """Return the name of a file without what tells its format.

    Examples
    --------
    >>> [without_ending(name) for name in ("GSM1.dge.txt.gz", "liver.v2.h5ad", "SRX1")]
    ['GSM1.dge', 'liver.v2', 'SRX1']
    """
    while name.lower().endswith(SUFFIXES):
        name = name[: name.rindex(".")]
    return name


def source_names(paths: Sequence[Location]) -> list[str]:
    """Return each path relative to the common parent of all, with forward slashes.

    The names, and with them the output, are the same wherever the inputs lie.
    """
    folders = [path.parent.parts for path in paths]
    first, last = min(folders), max(folders)
    n_common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))))
    return ["/".join(path.parts[n_common:]) for path in paths]
