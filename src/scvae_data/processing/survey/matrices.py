"""The matrices of one file in; those that may hold its counts, most of the genes first, and what is left out, out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scvae_data.errors import InputError
from scvae_data.processing.facts import SlotFacts
from scvae_data.processing.genes.identity import row_numbers
from scvae_data.processing.genes.names import clean_table
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.genes.tables import load_table, store_table
from scvae_data.processing.labels import check_texts
from scvae_data.processing.survey.counts import looks_integral
from scvae_data.readers.base import GeneTable, LayeredReader, Reader, Sample
from scvae_data.readers.gene_names import are_numbers, is_cut
from scvae_data.readers.table_sides import are_cells, are_genes, name_a_gene
from scvae_data.wording import counted

__all__ = ["Matrices", "survey_matrices"]

TRANSCRIPT = re.compile(r"(?:ENS[A-Z]*T\d{11}|[NX][MR]_\d+)(?:\.\d+)?")
"""Ids of Ensembl and RefSeq."""
ESTIMATE = 1.1
"""An estimated sum is larger only if it is so many times as large."""


@dataclass
class Matrices:
    """What the headers and first values of a file's matrices say.

    Parameters
    ----------
    slots
        Where counts are looked for, in this order.
    notes, warnings
        What is told of them.
    others
        Words on the matrices that counts are not looked for in.
    """

    slots: tuple[SlotFacts, ...]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    others: str = ""

    @property
    def taken(self) -> SlotFacts:
        """The slot that is tried first: the first whose head looks like counts."""
        return next((slot for slot in self.slots if slot.looks_like_counts), self.slots[0])


def survey_matrices(
    reader: Reader, tables: Path, counts: str | None = None, reference: str | None = "builtin"
) -> Matrices:
    """Look at the matrices of an open file.

    Of those whose first values look like counts the one with the most genes
    goes first, and of equally many the one that the reader names first.

    Parameters
    ----------
    counts
        What ``input.counts`` names: then nothing else is looked at, in files that have several matrices.
    reference
        What ``genes.reference`` names: it tells Entrez ids from row numbers.

    Raises
    ------
    InputError
        No matrix may hold counts, or none is called so.
    """
    layered = reader if isinstance(reader, LayeredReader) else None
    if layered is None:
        return Matrices(
            tuple(survey_slot(reader, name, tables, reference) for name in reader.slots), list(reader.notes)
        )
    if counts is not None:
        name = layered.find_slot(counts)
        return Matrices((survey_slot(reader, name, tables, reference),), list(layered.notes_of(name)))
    samples = {name: layered.sample(name) for name in layered.others}
    held = [name for name, sample in samples.items() if looks_integral(sample.values)]
    found, without_genes = survey_slots(reader, tables, reference)
    matrices = Matrices(tuple(found), others=said_of(samples, held) if samples else "")
    taken = matrices.taken
    matrices.notes += [*layered.notes_of(taken.name), *without_genes]
    if taken.looks_like_counts:
        rest = [slot for slot in found if slot.looks_like_counts and slot != taken]
        matrices.notes += [fewer_genes(slot, taken, tables) for slot in rest if slot.n_genes < taken.n_genes]
        same_genes = {slot.name: layered.sample(slot.name) for slot in rest if slot.n_genes == taken.n_genes}
        tell_left_out(matrices, layered.sample(taken.name), same_genes, {name: samples[name] for name in held})
    return matrices


def survey_slots(reader: Reader, tables: Path, reference: str | None) -> tuple[list[SlotFacts], list[str]]:
    """Look at the slots of a reader; those with the most genes first, and what is said of those that have none."""
    found: list[SlotFacts] = []
    failed: dict[str, InputError] = {}
    for name in reader.slots:
        try:
            found.append(survey_slot(reader, name, tables, reference))
        except InputError as error:
            if error.reason != "no_counts":
                raise
            failed[name] = error
    if not found:
        raise next(iter(failed.values()))
    found.sort(key=lambda slot: -slot.n_genes)  # stable: of equally many the first stays first
    return found, [f"{name} is left out: {error.message.partition(';')[0]}" for name, error in failed.items()]


def survey_slot(reader: Reader, name: str, tables: Path, reference: str | None) -> SlotFacts:
    """Read one slot's gene table and look at its first rows.

    Raises
    ------
    InputError
        It may hold counts, and its genes have row numbers, or barcodes, for names.
    """
    genes = reader.genes(name)
    for column in (genes.names, genes.ids, genes.symbols):
        if column is not None:
            check_texts(reader.path, f"names of genes of {name}", column.tolist())
    key = store_table(genes, tables)
    head = next(iter(reader.blocks(name, max_elements=50_000)), None)
    faultless = head is None or head.data.dtype.kind in "ub" or looks_integral(head.data)
    if faultless:
        check_names(reader.path, name, genes, reference)
        check_sides(reader, name, genes)
    return SlotFacts(
        name=name,
        table=key,
        n_genes=genes.n_vars,
        looks_like_counts=faultless,
        storage=dict(reader.storage(name)),
    )


def is_transcript(name: str) -> bool:
    """Whether a name is the id of a transcript."""
    return ("T0" in name or "_" in name) and TRANSCRIPT.fullmatch(name) is not None  # few need the slower look


def check_names(path: Path, slot: str, genes: GeneTable, reference: str | None) -> None:
    """Refuse genes that are only numbered, or cut short: number 3 of one file is another gene than that of the next.

    So are transcripts, of which a gene has several.
    """
    names = genes.names if genes.symbols is None else genes.symbols
    columns = [column for column in (genes.names, genes.ids, genes.symbols) if column is not None]
    if all(2 * sum(map(is_transcript, column)) > len(column) for column in columns):
        raise InputError(
            path, "no_gene_names",
            f"the rows of {slot} are transcripts ({', '.join(names[:3])} …), not genes; add their counts up by gene, "
            "as tximport does",
        )  # fmt: skip
    if (cut := [name for name in names if name.startswith("ENS") and is_cut(name)]) and 2 * len(cut) > len(names):
        raise InputError(
            path, "no_gene_names",
            f"the ids of the genes of {slot} are cut short ({', '.join(cut[:3])} …), so that several genes have one; "
            "write them whole, with all eleven digits",
        )  # fmt: skip
    if not are_numbers(names):
        return
    if numbers := row_numbers(clean_table(genes), load_reference(reference)):
        raise InputError(
            path, "no_gene_names",
            f"the genes of {slot} are called by numbers alone ({', '.join(map(str, numbers[:3]))} …); "
            "put their symbols or ids into the index of var, or into its column gene_symbols",
        )  # fmt: skip


def check_sides(reader: Reader, slot: str, genes: GeneTable) -> None:
    """Refuse a matrix of genes × cells, as R has them: each gene would be a cell."""
    names = genes.names.tolist()
    if not names or not (are_cells(names) or (not name_a_gene(names) and are_genes(reader.barcodes().tolist()))):
        return
    raise InputError(
        reader.path, "not_single_cell",
        f"{slot} has cells for columns ({', '.join(names[:2])} …) and genes for rows "
        f"({', '.join(reader.barcodes()[:2])} …); turn it, as anndata.read_h5ad(FILE).T does",
    )  # fmt: skip


def fewer_genes(slot: SlotFacts, taken: SlotFacts, tables: Path) -> str:
    """Say why a slot with counts is not taken."""
    genes = set(load_table(tables, taken.table).names)
    n_shared = sum(name in genes for name in load_table(tables, slot.table).names)
    return (
        f"counts are those of {taken.name} with {counted(taken.n_genes, 'gene')}; {slot.name} has {slot.n_genes:,}, "
        f"{n_shared:,} of them the same"
    )


def tell_left_out(matrices: Matrices, taken: Sample, slots: dict[str, Sample], layers: dict[str, Sample]) -> None:
    """Name the matrices that hold counts and are not taken; a warning where there are more counts in them."""
    name = matrices.taken.name
    equal = [other for other, sample in (layers | slots).items() if is_equal(sample, taken)]
    left = {other: sample for other, sample in (layers | slots).items() if other not in equal}
    if not left:
        return
    same = f"{name} equals {' and '.join(equal)}; " if equal else ""
    named = ", ".join(f"{other} ({said(sample)})" for other, sample in left.items())
    text = f"{same}counts are left out that stand in {named}; {name} has {said(taken)}"
    parts = [other.removeprefix("layers/") for other in layers]
    if not any(other in layers for other in equal):
        parts = [other for other in parts if f"layers/{other}" in left]
    remedy = f"input.counts=sum:{'+'.join(parts)}" if len(parts) > 1 else f"input.counts={next(iter(left))}"
    together = sum(sample.total for other, sample in left.items() if other in layers)
    most = max([together, *(sample.total for other, sample in left.items() if other in slots)])
    exact = taken.is_whole and all(sample.is_whole for sample in left.values())
    if most > taken.total * (1 if exact else ESTIMATE):
        matrices.warnings.append(f"{text}; {remedy} takes them")
    else:
        matrices.notes.append(text)


def is_equal(first: Sample, second: Sample) -> bool:
    """Whether two matrices store the same values, as far as was looked."""
    return first.n_stored == second.n_stored and np.array_equal(first.values, second.values)


def said(sample: Sample) -> str:
    """How many counts a matrix holds."""
    return f"{'' if sample.is_whole else 'about '}{sample.total:,.0f} counts"


def said_of(samples: dict[str, Sample], held: Sequence[str]) -> str:
    """Say which matrices may be named, and how."""
    named = ", ".join(f"{name} ({said(samples[name]) if name in held else 'no counts'})" for name in samples)
    example = f"sum:{'+'.join(name.removeprefix('layers/') for name in held)}" if len(held) > 1 else "layers/NAME"
    return f"there are {named}; say with input.counts={example} if one is meant"
