"""Which features of a matrix are genes: types, ids and names of features in, columns to keep out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import CsrBlock, GeneTable
from scvae_data.readers.gene_names import ENSEMBL_GENE, looks_ensembl
from scvae_data.wording import counted, named

__all__ = [
    "GENE_EXPRESSION",
    "MEASURED",
    "NO_CELL",
    "FeatureFilter",
    "dropped_features",
    "empty_cell_table",
    "keep_gene_expression",
    "kind_of_type",
    "says_types",
    "tell_kinds_apart",
    "type_by_name",
]

GENE_EXPRESSION = "Gene Expression"
Kind = Literal["gene", "other", "biotype", "unknown"]
Strings = NDArray[np.object_]

GENES = {"gene expression", "expression", "gene", "genes", "gex", "rna", "mrna", "transcriptome", "gbm"}
OTHERS = re.compile(
    r"antibod|\badts?\b|\bhtos?\b|hash|\bprotein\b(?! coding)|\bcite|crispr|guide|\bs?grna|multiplex|cell ?plex"
    r"|\bcmos?\b|\bcustom\b|\bpeaks?\b|\batac|chromatin|accessib|\bv ?d ?j\b|\b[tb]cr\b|antigen|dextramer"
)
# Ensembl's classes of genes, which some files have in a column of the same name: all of them are genes.
BIOTYPES = re.compile(
    r"protein coding.*|.*rna|.*pseudogene|(ig|tr) [cdjv][a-z]* gene|tec|processed transcript|ribozyme|antisense"
    r"|sense (intronic|overlapping)|nonsense mediated decay|retained intron|artifact|vault|non coding|3prime .*"
)
PEAK = re.compile(
    r"(?:\w+?_)??(?:chr[\w.]+?|\d{1,2}|[XYM]|MT|(?:GL|KI|JH)\d+[.v]\d)[:_-](?P<start>\d[\d,]*)[_-](?P<end>\d[\d,]*)"
)
SUMMARY = re.compile(
    r"_{0,2}(no_?feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique|unmapped|un_?assigned(_\w+)?|intergenic)"
    r"|N_(unmapped|multimapping|noFeature|ambiguous)|\*"
    r"|((grand|column|col|all)[ _.-]?)?(totals?|sums?)([ _.-]?(counts?|umis?|reads?|genes?|expression))?",
    re.IGNORECASE,
)
"""Rows that HTSeq and STAR write after, or before, the genes, and sums over all genes."""
NO_CELL = (
    rf"^(?:{SUMMARY.pattern}|((row|gene|cell)[ _.-]?)?(totals?|sums?|means?|averages?|medians?)"
    r"|un(mapped|assigned|determined)([ _.-]?(reads?|cells?|umis?))?)$"
)
"""Names of what stands among cells in a table and is none: sums and means over them, and reads of no cell."""
MEASURED = re.compile(
    r"n_?(counts?|genes?|umis?|features?)([_ ]?(rna|by_counts))?|(log1p_)?(total|n_genes)_(counts|by_counts)\w*"
    r"|(pct|percent|frac|fraction)[._ ]?(counts_)?(mt|mito|ribo|hb)\w*|total|sum|mean|n_cells(_by_counts)?"
    r"|(mean|median|avg|average|max|min|sum|total)[_. ]?(expr(ession)?|counts?|umis?|reads?|tpm|fpkm)"
    r"|gender|age[_. ]?(years?|months?|weeks?|days?)?|plate|stage|cell[_. ]?(type|cycle|state)|barcodes?|pseudotime"
    r"|dpt_pseudotime|velocity_\w+|n[._ ]?(gene|umi|count|feature)s?|(s|g2m)[._]score|phase"
    r"|(rna_snn_)?res[._]?\d[\d.]*|(seurat_)?clusters?|louvain|leiden|batch|sample|donor|patient|age|doublet_scores?"
    r"|.+[_.](ids?|ident(ity)?|index|code|label|score|type|status|pct|percent|fraction|ratio|group|batch|clusters?|counts?"
    r"|umis|number|time|days?|weeks?|years?)",
    re.IGNORECASE,
)
"""Numbers that describe cells, or sum up genes: no gene of any species is called so."""
MOST_NAMED = 3
DROPPED = re.compile(r"dropped (?P<n>[\d,]+) features? of type (?P<kind>.+?)(, by name \(.+\))?")
ANTIBODY = re.compile(
    r".+[_.:-]Total(Seq)?[_.:-]?[A-D]?|(hto|cite(seq)?|antibody|ab|totalseq[a-d]?|total[a-d])[_:.-].+|adt[_:.-](?!\d+$).+"
    r"|(adt|hto)\d+|.+[_:.-](adt|hto|cite|antibody)|.{2,}[_:.-]prot(ein)?|prot(ein)?[_:.-].+|hash-?tags?[_. -]?\w+"
    r"|anti[-_. ](human|mouse|rat|cd\d|hla|ig[adegm]|tcr|epcam|b220|ly-?6).*"
    r"|.+\|(pAbO|stAbO)|sample_?tag_?\d+.*|cmo3\d\d|[A-D]0\d{3}[-_][A-Za-z].*|cd\d+[a-z]*:[a-z]\w.*"
    r"|(.+[-_. ])?isotype([-_. ].+)?|(mouse|rat|(armenian[-_. ])?hamster)[-_. ]ig[gm]\d?[abc]?([-_. ].*)?",
    re.IGNORECASE,
)
"""Names that Cell Ranger, Seurat, BD or a lab gives to antibodies and hashtags; adt-1 is a gene of the worm."""
GUIDE = re.compile(
    r"(.+[-_. ])?sgrna([-_. ]?\d+|[-_. ].+)?|.+[-_]grna([-_]?\d+)?|grna[-_]\d+"
    r"|(.+[-_. ])?non[-_. ]?targeting([-_. ].*)?",
    re.IGNORECASE,
)
"""Names of guides of a screen."""


def kind_of_type(text: str) -> Kind:
    """What a feature type says, in the words of Cell Ranger, muon, Seurat or a lab.

    >>> [kind_of_type(text) for text in ("Gene Expression", "antibody_capture", "Peaks", "protein_coding", "GRCh38")]
    ['gene', 'other', 'other', 'biotype', 'unknown']
    """
    words = " ".join(re.split(r"[\W_]+", text.lower())).strip()
    if words in GENES:
        return "gene"
    if OTHERS.search(words):
        return "other"
    return "biotype" if BIOTYPES.fullmatch(words) else "unknown"


def says_types(types: Iterable[str]) -> bool:
    """Whether any value names genes, or another kind of features that is measured beside them."""
    return any(kind_of_type(text) in ("gene", "other") for text in set(types))


def tell_kinds_apart(types: Iterable[str]) -> bool:
    """Whether values are kinds of features, all of them, and name genes and another kind: types, whatever called.

    >>> tell_kinds_apart(["RNA", "RNA", "ADT"]), tell_kinds_apart(["RNA", "ADT", "yes"]), tell_kinds_apart(["RNA"])
    (True, False, False)
    """
    kinds = {kind_of_type(text) for text in {*types} - {""}}
    return "unknown" not in kinds and "other" in kinds and len(kinds) > 1


@dataclass(frozen=True)
class FeatureFilter:
    """Columns to keep of a matrix with several kinds of features."""

    keep: NDArray[np.bool_]
    """Shape (n_features,)."""
    notes: tuple[str, ...]
    """What is dropped, one line a kind."""

    def column_of(self) -> NDArray[np.int32] | None:
        """New column of each feature, −1 for dropped ones; None when all are kept."""
        if self.keep.all():
            return None
        return np.where(self.keep, np.cumsum(self.keep) - 1, -1).astype(np.int32)

    def apply(self, block: CsrBlock) -> CsrBlock:
        """The same rows with only the kept columns, renumbered."""
        column_of = self.column_of()
        if column_of is None:
            return block
        columns = column_of[block.indices]
        kept = columns >= 0
        n_kept_before = np.concatenate([[0], np.cumsum(kept)])
        return CsrBlock(
            first_row=block.first_row,
            indptr=n_kept_before[block.indptr],
            indices=columns[kept],
            data=block.data[kept],
            n_vars=int(self.keep.sum()),
        )

    def genes(self, table: GeneTable) -> GeneTable:
        """The kept rows of a table of all features."""
        if self.keep.all():
            return table
        columns = (table.names, table.ids, table.symbols)
        names, ids, symbols = (None if column is None else column[self.keep] for column in columns)
        return GeneTable(table.names[self.keep] if names is None else names, ids, symbols)


def keep_gene_expression(
    path: Path, types: Strings | None, names: Strings, symbols: Strings | None = None
) -> FeatureFilter:
    """Keep the features that are genes, by their types, or, where there are none, by their names.

    A feature without a type is a gene if it is called as the genes are: by an
    Ensembl id where those are. A feature that is called by an interval of a
    chromosome is a peak, and one called ``…_TotalSeqB`` an antibody, whatever
    the file says of types.

    Parameters
    ----------
    types
        Type of each feature, ``""`` where it has none; None if the file has no types.
    names
        Id of each feature, shape (n_features,); of those that have a type, whatever.
    symbols
        What else it is called: an antibody may be ``CD3`` and ``CD3_TotalSeqB``.

    Raises
    ------
    InputError
        ``no_counts`` if no feature is a gene.
    """
    given = np.full(len(names), "", dtype=object) if types is None else types.copy()
    for position in np.flatnonzero(given == ""):
        other = "" if symbols is None else symbols[position]
        given[position] = type_by_name(names[position]) or ("" if is_id(names[position]) else type_by_name(other))
    genes, untyped = gene_types(set(given) - {""}), given == ""
    keep = np.fromiter((kind in genes for kind in given), bool, len(given))
    if untyped.any():
        only_ensembl = looks_ensembl(names[keep]) if genes else types is not None and bool((types != "").any())
        keep |= untyped & np.array([not only_ensembl or bool(ENSEMBL_GENE.fullmatch(name)) for name in names])
    by_name = (given != "") & (True if types is None else types == "")
    counts = Counter(str(kind) for kind in given[~keep])
    if len(names) and not keep.any():
        found = ", ".join(f"{kind or 'no type'} ({n:,})" for kind, n in sorted(counts.items()))
        raise InputError(path, "no_counts", f"no feature of type {GENE_EXPRESSION}, found {found}; leave the file out")
    notes = []
    for kind in sorted(counts):
        dropped = ~keep & (given == kind)
        if n := int((dropped & ~by_name).sum()):
            notes.append(f"dropped {counted(n, 'feature')} of type {kind or '(none)'}")
        if found := names[dropped & by_name].tolist():
            notes.append(
                f"dropped {counted(len(found), 'feature')} of type {kind}, by name ({named(found, MOST_NAMED)})"
            )
    return FeatureFilter(keep, tuple(notes))


def dropped_features(notes: Iterable[str]) -> dict[str, int]:
    """How many features of each type were dropped, as the notes of a filter say.

    >>> notes = ["dropped 1,017 features of type Peaks", "dropped 1 feature of type Peaks, by name (1:2-3)"]
    >>> dropped_features([*notes, "X is left out"])
    {'Peaks': 1018}
    """
    dropped = Counter[str]()
    for match in filter(None, map(DROPPED.fullmatch, notes)):
        dropped[match["kind"]] += int(match["n"].replace(",", ""))
    return dict(dropped)


def gene_types(types: set[str]) -> set[str]:
    """Those of the types of a file that genes have."""
    kinds = {text: kind_of_type(text) for text in types}
    if "biotype" in kinds.values() and "gene" not in kinds.values():
        return {text for text, kind in kinds.items() if kind != "other"}  # spike-ins stand among biotypes
    return {text for text, kind in kinds.items() if kind in ("gene", "biotype")}


def type_by_name(name: str) -> str:
    """Type of a feature whose name can be no gene's; else ``""``.

    >>> [type_by_name(name) for name in ("chr1:9772-10660", "2-500-1200", "CD3_TotalSeqB", "HLA-A", "RP11-206L10.2")]
    ['Peaks', 'Peaks', 'Antibody Capture', '', '']
    """
    if is_id(name):  # as most names are, told quickly
        return ""
    if (peak := PEAK.fullmatch(name)) and position(peak["start"]) < position(peak["end"]):
        return "Peaks"
    if SUMMARY.fullmatch(name):
        return "reads of no gene"
    if ANTIBODY.fullmatch(name):
        return "Antibody Capture"
    if GUIDE.fullmatch(name):
        return "CRISPR Guide Capture"
    return "description of cells" if MEASURED.fullmatch(name) else ""


def is_id(name: str) -> bool:
    """Whether a name begins as Ensembl's ids do."""
    return name.startswith("ENS")


def position(text: str) -> int:
    """A place in a chromosome, which may be written with commas."""
    return int(text.replace(",", ""))


def empty_cell_table(path: Path, n_obs: int, columns: Sequence[str] | None) -> pd.DataFrame:
    """Cell table of a format that has none: rows without columns.

    Raises
    ------
    InputError
        ``missing_column`` if a column is asked for.
    """
    if columns:
        raise InputError(path, "missing_column", f"the format has no cell table, so no column {columns[0]!r}")
    return pd.DataFrame(index=pd.RangeIndex(n_obs))
