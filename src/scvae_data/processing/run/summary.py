"""What a run did, in a few lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scvae_data.calling import command, override
from scvae_data.processing.facts import FailedFile
from scvae_data.processing.run.losses import lost_text
from scvae_data.remote.location import Location
from scvae_data.store import INDEX_FILE, DatasetIndex
from scvae_data.store.names import generation_file
from scvae_data.wording import counted, shown

__all__ = ["Summary", "human_bytes"]


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Parameters
    ----------
    n_files
        Inputs that were read; of a directory that was left alone, those to add that it had already.
    lost
        Cells not kept, per rule.
    worst
        Name, cells and losses per rule of the files that lost most of their cells.
    seconds
        Wall time per stage.
    duplicates
        Cells that equal another one, see `report_copies`.
    left_alone
        The directory was finished before, and nothing was done but what ``rebuilt`` says.
    rebuilt
        Damaged files of a finished directory that were built again.
    peak_rss
        Peak memory of the largest process, bytes.
    experiments
        How many experiments are flagged, and the worst of them, see `write_experiments`.
    columns_alike
        Obs columns that may be one under several names, and how many files have each.
    written_missing
        Texts of obs that may mean a missing value: column → text → cells.
    overview
        What the inputs have that their user may not expect, line by line: what it is about, and the fact.
    species
        The only one that is kept; None for all.
    left_out
        Files of other species.
    genes_lost
        Genes not kept, per rule.
    genes_absent
        Genes of the directory that no file has.
    genes_of_others
        Genes of other species that the file with most of them has.
    genes_apart
        Genes that may have another column too: their number, counts and names.
    genes_crossed
        Rows of gene tables with the id of one gene and the symbol of another: their number, counts and first pairs.
    unapplied
        Rules of quality control that could not be applied, and to which files.
    report
        The page that tells all this and more, if there is one.
    """

    processed_dir: Location
    n_files: int = 0
    failed: Sequence[FailedFile] = ()
    n_obs_in: int = 0
    n_obs: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    worst: Sequence[tuple[str, int, dict[str, int]]] = ()
    n_genes_in: int = 0
    n_vars: int = 0
    nnz: int = 0
    n_chunks: int = 0
    chunk_size: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss: int = 0
    simulated: bool = False
    left_alone: bool = False
    rebuilt: Sequence[str] = ()
    duplicates: dict[str, Any] = field(default_factory=dict)
    unapplied: dict[str, list[str]] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    genes_lost: dict[str, int] = field(default_factory=dict)
    genes_absent: int = 0
    genes_of_others: int = 0
    genes_apart: dict[str, Any] = field(default_factory=dict)
    genes_crossed: dict[str, Any] = field(default_factory=dict)
    columns_alike: Sequence[dict[str, int]] = ()
    written_missing: dict[str, dict[str, int]] = field(default_factory=dict)
    overview: Sequence[tuple[str, str]] = ()
    species: str | None = None
    left_out: Sequence[str] = ()
    grown: tuple[int, int] | None = None
    report: Location | None = None

    def of_added(self, directory: Location, grown: DatasetIndex) -> Summary:
        """Return the summary of cells that were added to a directory, whose files have the names that they have there.

        Parameters
        ----------
        grown
            The index of the directory, with them.
        """
        experiments = dict(self.experiments)
        if experiments:
            experiments["file"] = generation_file(experiments["file"], len(grown.generations) - 1)
        together = (grown.n_obs, len(grown.chunks))
        return replace(self, processed_dir=directory, experiments=experiments, grown=together)

    def __str__(self) -> str:
        """Lay the summary out as aligned lines."""
        if self.left_alone and self.grown:
            made = f"{counted(self.n_obs, 'cell')} in {counted(self.n_chunks, 'chunk')}"
            return (
                f"{shown(self.processed_dir)}: {made}, made by a run that was interrupted, are added; together "
                f"{self._together()}"
            )
        if self.left_alone and self.n_files:
            these = "the input" if self.n_files == 1 else f"all {self.n_files:,} inputs"
            return f"{shown(self.processed_dir)} has {these} already, nothing to add: {self._together()}"
        if self.left_alone:
            done = f"{', '.join(self.rebuilt)} built again" if self.rebuilt else "nothing to do"
            facts = ((self.n_obs, "cell"), (self.n_vars, "gene"), (self.n_chunks, "chunk"))
            sizes = ", ".join(counted(*fact) for fact in facts)
            return f"{shown(self.processed_dir)} is finished, with these settings and inputs: {sizes}; {done}"
        total = sum(self.seconds.values())
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        lost = lost_text(self.lost) or "none"
        share = 100 * self.n_obs / max(self.n_obs_in, 1)
        rows = [
            ("files", f"{self.n_files:,}" + (f", {len(self.failed):,} failed" if self.failed else "")
             + (" (simulated demo)" if self.simulated else "")),
            *self.overview,
            ("cells", f"{self.n_obs_in:,} in, {self.n_obs:,} kept ({share:.1f} %)"),
            ("not kept", lost),
            *self._worst(),
            *self._of_species(),
            *self._unapplied(),
            *self._copies(),
            *self._flagged(),
            ("genes", self._genes()),
            *self._genes_apart(),
            *self._genes_crossed(),
            ("chunks", f"{self.n_chunks:,} of up to {counted(self.chunk_size, 'cell')}"),
            ("size", f"{human_bytes(self.bytes)}, {self.bytes / max(self.nnz, 1):.2f} bytes per stored count"),
            ("time", f"processing took {total:.1f} s, {self.n_obs_in / max(total, 1e-9):,.0f} cells/s ({stages})"),
            ("memory", f"{human_bytes(self.peak_rss)} at most in one process"),
            *self._grown(),
            ("index", shown(self.processed_dir / INDEX_FILE)),
            *([("report", shown(self.report))] if self.report else []),
            ("next", command("train", "data=chunked", override("paths.processed_dir", shown(self.processed_dir)))),
        ]  # fmt: skip
        return "\n".join(f"{name:<9} {text}" for name, text in rows)

    def _grown(self) -> list[tuple[str, str]]:
        """Say in one row what the directory has now that the cells were added to; a new one, no row."""
        if self.grown is None:
            return []
        return [("together", self._together())]

    def _together(self) -> str:
        n_obs, n_chunks = self.grown or (self.n_obs, self.n_chunks)
        return f"{counted(n_obs, 'cell')} in {counted(n_chunks, 'chunk')}"

    def _unapplied(self) -> list[tuple[str, str]]:
        """Say in one row which rules could not be applied; none, no row."""
        text = ", ".join(f"{rule} to {counted(len(files), 'file')}" for rule, files in self.unapplied.items())
        return [("no rule", f"could not be applied: {text}")] if text else []

    def _worst(self) -> list[tuple[str, str]]:
        """Say which files lost most of their cells, and where all of them are; none, no row."""
        rows = []
        for name, n_cells, lost in self.worst:
            share = 100 * sum(lost.values()) / n_cells
            rows.append(f"{name}: {share:.1f} % of {counted(n_cells, 'cell')} ({lost_text(lost)})")
        if self.n_files > len(rows) > 0:
            rows.append(f"all files in {shown(self.processed_dir / self.experiments['file'])}")
        return list(zip(["lost most", *len(rows) * [""]], rows, strict=False))

    def _of_species(self) -> list[tuple[str, str]]:
        """Say in one row which species is kept alone; all, no row."""
        if self.species is None:
            return []
        parts = [
            counted(len(self.left_out), "file") if self.left_out else "",
            f"up to {counted(self.genes_of_others, 'gene')} of a file" if self.genes_of_others else "",
        ]
        left_out = f"; {text} of other species left out" if (text := " and ".join(filter(None, parts))) else ""
        return [("species", f"{self.species} alone (genes.species){left_out}")]

    def _genes(self) -> str:
        """Say how many genes are kept, and which rules took the others."""
        absent = f", {self.genes_absent:,} of them in no file" if self.genes_absent else ""
        lost = f"; not kept {text}" if (text := lost_text(self.genes_lost)) else ""
        return f"{self.n_genes_in:,} in, {self.n_vars:,} kept{absent}{lost}"

    def _genes_apart(self) -> list[tuple[str, str]]:
        """Say in one row which genes may have another column too; none, no row."""
        if not (apart := self.genes_apart):
            return []
        more = ", …" if apart["n_genes"] > len(apart["names"]) else ""
        n_genes, share = counted(apart["n_genes"], "gene"), 100 * apart["share"]
        return [
            (
                "apart",
                f"{n_genes} ({share:.3g} % of UMIs) may have another column too: {', '.join(apart['names'])}{more}",
            )
        ]

    def _genes_crossed(self) -> list[tuple[str, str]]:
        """Say in one row how many rows of gene tables have the symbol of another gene than their id; none, no row."""
        if not (crossed := self.genes_crossed):
            return []
        of = f"{counted(crossed['n_rows'], 'row')} of {counted(crossed['n_files'], 'file')}"
        gene_id, symbol = crossed["pairs"][0]
        return [
            (
                "crossed",
                f"{of} ({100 * crossed['share']:.3g} % of UMIs) count as the gene of their id, and have the symbol of "
                f"another, e.g. {gene_id} is called {symbol}",
            )
        ]

    def _copies(self) -> list[tuple[str, str]]:
        """Say in one row how many cells equal another one; none, no row."""
        if not (n_copies := self.duplicates.get("n_copies")):
            return []
        keep = self.duplicates["keep"]
        done = {"all": "all are kept", "first": "the first of each is kept", "none": "none of them is kept"}[keep]
        return [("copies", f"{n_copies:,} cells have the counts of another cell; {done} (keep_duplicates={keep})")]

    def _flagged(self) -> list[tuple[str, str]]:
        """Say how many experiments are odd, and what to do about the worst; none, no row."""
        if not self.experiments.get("n_flagged"):
            return []
        times = ", ".join(f"{name} {n:,}" for name, n in self.experiments["flags"].items())
        told = f"{self.experiments['n_flagged']:,} of {counted(self.experiments['n'], 'experiment')} ({times})"
        rows = [("flagged", f"{told}; all in {shown(self.processed_dir / self.experiments['file'])}")]
        for one in self.experiments["worst"]:
            what = "; ".join(f"{name}: {remedy}" for name, remedy in one["flags"].items())
            rows.append(("", f"{one['srx_accession']} ({one['source_file']}): {what}"))
        return rows


def human_bytes(n_bytes: float) -> str:
    """Return a size with its unit, e.g. ``"12.3 MB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
