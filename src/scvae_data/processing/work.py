"""A run's work folder: the only place that names what its stages leave for each other."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from scvae_data.store.files import sweep_temporaries
from scvae_data.store.names import INDEX_FILE, WORK_FOLDER

__all__ = ["FileFolder", "ShardFolder", "WorkFolder"]


@dataclass(frozen=True)
class FileFolder:
    """What the scan of one file leaves."""

    path: Path

    @property
    def done(self) -> Path:
        """The account of the scan, written last."""
        return self.path / "done.json"

    @property
    def dropped(self) -> Path:
        """The cells that the scan dropped; absent if it dropped none."""
        return self.path / "dropped.arrow"

    @property
    def hashes(self) -> Path:
        """Hashes of the kept cells, for the search for copies."""
        return self.path / "hashes.npy"

    @property
    def rare(self) -> Path:
        """The kept cells that have a gene which few others of the file have."""
        return self.path / "rare.npy"

    @property
    def copies(self) -> Path:
        """The kept cells that equal another one and shall be dropped."""
        return self.path / "copies.npy"

    @property
    def column_totals(self) -> Path:
        """Counts of each column of the file over all its cells, whether they are kept or not."""
        return self.path / "columns.feather"

    @property
    def empty(self) -> Path:
        """Counts of each gene in barcodes that hold no cell; absent if there are none."""
        return self.path / "empty.feather"

    def gene_sums(self, *, without_copies: bool) -> Path:
        """Cells and counts of each gene, over all kept cells or without copies."""
        return self.path / ("genes-without-copies.feather" if without_copies else "genes.feather")

    def sorted_run(self, number: int) -> Path:
        """A sorted run of kept cells, without suffix."""
        return self.path / f"run{number:04d}"


@dataclass(frozen=True)
class ShardFolder:
    """What the shards of a run leave for each other; without shards there is none."""

    path: Path

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def begun(self) -> Path:
        """How many shards there are, and the hash of the survey that all of them share."""
        return self.path / "begun.json"

    @property
    def decided(self) -> Path:
        """The chunks to write, once they are known."""
        return self.path / "decided.json"

    def survey(self, key: str) -> Path:
        """The headers of some files, under the hash of what they were read from."""
        return self.path / f"survey-{key}.json"

    def scanned(self, number: int) -> Path:
        """That a shard has scanned its files."""
        return self.path / f"scanned-{number:04d}.json"

    def lock(self, name: str) -> Path:
        """Held by the process that runs one shard, or that saves the survey."""
        return self.path / f"{name}.lock"


@dataclass(frozen=True)
class WorkFolder:
    """Where a run keeps what later stages, and a later try, need of it.

    Sorted runs are known by their path below it, so that the folder may be
    seen under different paths.
    """

    path: Path

    @property
    def folders(self) -> list[Path]:
        """Folders that are there from the start."""
        return [self.path / "maps", self.scans, self.path / "chunks"]

    def make(self) -> None:
        """Make the folders."""
        self.make_survey()
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what an interrupted write left; only for a folder that nobody else is writing to."""
        for folder in (self.path, self.survey, self.tables, *self.folders):
            sweep_temporaries(folder)
        shutil.rmtree(self.fetched, ignore_errors=True)

    def make_survey(self) -> None:
        """Make the folders of what a survey finds."""
        self.tables.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete everything but what the survey found."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def started(self) -> bool:
        """Whether an earlier run got as far as scanning a file: before that there is nothing to continue."""
        return self.scans.is_dir() and any(self.scans.iterdir())

    @property
    def begun(self) -> bool:
        """Whether it has anything that a later try goes on with."""
        parts = (self.replacing, self.shards.path, self.mended, self.appended / INDEX_FILE)
        appending = WorkFolder(self.appended / WORK_FOLDER)
        return self.started or appending.started or any(part.exists() for part in parts)

    @property
    def replacing(self) -> Path:
        """With which settings a dataset is to be replaced that is there until its successor can be written."""
        return self.path / "replacing.txt"

    @property
    def scans(self) -> Path:
        """Folder of what scans leave, a folder for each file."""
        return self.path / "scan"

    @property
    def shards(self) -> ShardFolder:
        """What shards leave for each other."""
        return ShardFolder(self.path / "shards")

    @property
    def survey(self) -> Path:
        """What the survey found, for the next run as well: beside the folder, which goes when a run ends."""
        return self.path.with_name(".survey")

    @property
    def surveyed_files(self) -> Path:
        """The facts of the files whose changes can be seen."""
        return self.survey / "files.parquet"

    def surveyed(self, what: str) -> Path:
        """What is known of all gene tables together: the ``species`` of each, and the ``universe``."""
        return self.survey / f"{what}.npz"

    @property
    def tables(self) -> Path:
        """Folder of the distinct gene tables, by their hash."""
        return self.survey / "tables"

    @property
    def appended(self) -> Path:
        """Dataset directory of the cells that are to be added to this one."""
        return self.path / "appended"

    @property
    def mended(self) -> Path:
        """Folder of files that are built again, until it is known that they are the ones that are missing."""
        return self.path / "mended"

    @property
    def fetched(self) -> Path:
        """Copies of inputs of a remote store, while they are read."""
        return self.path / "fetched"

    def obs_rows(self, number: int) -> Path:
        """What the table of cells says of input ``number``."""
        return self.path / "obs_table" / f"{number:06d}.arrow"

    def gene_map(self, table: str) -> Path:
        """Place of each column of a gene table in the universe."""
        return self.path / "maps" / f"{table}.npy"

    def gene_species(self, table: str) -> Path:
        """Of which species each column of a gene table of several is; there for those tables alone."""
        return self.path / "maps" / f"{table}.species.npy"

    def universe(self, what: str) -> Path:
        """``keys``, ``flags`` (their classes) or ``hashes`` of all genes."""
        return self.path / f"universe_{what}.npy"

    def scan(self, number: int) -> FileFolder:
        """What the scan of input ``number`` leaves."""
        return FileFolder(self.scans / f"{number:06d}")

    def hashes(self, group: int) -> Path:
        """The hashes of a group of files, in order."""
        return self.path / "hashes" / f"{group:04d}.npy"

    def copies(self, part: int) -> Path:
        """The cells to drop among those whose hash falls into one part."""
        return self.path / f"copies-{part:04d}.npy"

    def genes(self, what: str) -> Path:
        """Which genes of the universe are ``kept`` or ``ranked``."""
        return self.path / f"{what}.npy"

    def ranking(self, digest: str) -> Path:
        """Folder of the passes that rank genes."""
        return self.path / "hvg" / digest

    def decision(self, digest: str, suffix: str) -> Path:
        """What holds for the whole directory: ``.json``, and its arrays, ``.npz``."""
        return self.path / f"decision-{digest}{suffix}"

    def var(self, digest: str) -> Path:
        """The var table of every chunk."""
        return self.path / f"var-{digest}.feather"

    def decided(self, digest: str) -> list[Path]:
        """All files of a decision."""
        return [self.decision(digest, ".json"), self.decision(digest, ".npz"), self.var(digest)]

    def merged_run(self, digest: str, level: int, number: int) -> str:
        """A merged sorted run, as a path below the folder."""
        return f"merged/{digest}/{level}_{number:05d}"

    def chunk_note(self, number: int) -> Path:
        """The index entry of a written chunk, and what it was made of."""
        return self.path / "chunks" / f"{number:06d}.json"

    def chunk_obs(self, number: int) -> Path:
        """The obs of a chunk."""
        return self.path / "chunks" / f"{number:06d}.feather"
