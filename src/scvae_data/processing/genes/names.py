"""Texts in; the names of genes in them, cleaned, and what these say of species and class, out.

The tables of a corpus share most of their names, so each distinct one is
read once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.readers.base import GeneTable
from scvae_data.readers.gene_names import OTHER_ID

__all__ = [
    "ENSEMBL",
    "LEAST_OF_A_GENOME",
    "CleanColumn",
    "CleanTable",
    "are_ensembl",
    "clean_table",
    "cleaned",
    "gene_class_flags",
    "genome_names",
    "is_ensembl",
    "number_beside",
    "species_of_genome",
    "split_pair",
    "unversioned",
    "without_genome",
]

ENSEMBL_ID = r"ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?"
ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?(_PAR_Y)?$")
ENSEMBL_FORM = r"^ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?$"
VERSION_BEHIND = r"^(.*)\.\d+(_PAR_Y)?$"
"""The same, and ids of it that have a version, as arrow reads them."""
BEHIND_LETTERS = "0123456789._PARY"
"""What stands in such an id behind its letters, the last of which is a G."""
SPECIES_OF_GENOME = (
    (re.compile(r"grch\d|hg\d|(hg|hsa?|h)(?![a-z0-9])|human|homo|hsap|t2t|chm13", re.IGNORECASE), "human"),
    (re.compile(r"grcm\d|mm\d|(mmu?|m)(?![a-z0-9])|mouse|mus|mmus", re.IGNORECASE), "mouse"),
    (re.compile(r"rnor|mratbn|rn\d|grcr\d|rat", re.IGNORECASE), "rat"),
    (re.compile(r"grcz\d|danrer|zebrafish", re.IGNORECASE), "zebrafish"),
    (re.compile(r"mmul|rhemac|macaque", re.IGNORECASE), "macaque"),
    (re.compile(r"sscrofa|susscr|pig", re.IGNORECASE), "pig"),
)
QUOTED = re.compile(r"b?(['\"`])(.*)\1", re.DOTALL)
TYPESET = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff")
)
"""What word processors make of dashes, and marks that nobody sees."""
SMALL_ID = re.compile(ENSEMBL_ID, re.IGNORECASE)
ANY_ID = re.compile(rf"(?<![A-Za-z0-9])(?:{ENSEMBL_ID}|(?:{OTHER_ID.pattern})(?![A-Za-z0-9]))")
PAIR = re.compile(rf"({ANY_ID.pattern})[_|:;,/()\[\] -]+(.+?)[)\]]?")
PAIR_REVERSED = re.compile(rf"(.+?)[_|:;,/()\[\] -]+({ANY_ID.pattern})[)\]]?")
OF_YEAST = re.compile(r"(Y[A-P][LR]\d{3}[WC])[._]([A-Z])")
"""An id of yeast in which R has made a dot of the dash."""
BEFORE_NUMBER = re.compile(r"(.+?)[|;:/ _(-]+(?:GeneID:)?(\d+)\)?")
VERSION = re.compile(r"\d{1,2}")
GENOME = re.compile(
    r"(?:(?:(?:grc[hm]|hg|mm)\d+|hsa?|mmu?|human|mouse)[.:]+"
    r"|(?:refdata-(?:gex|cellranger)-)?[a-z][a-z0-9.]*(?:-\d{4}-[a-z])?(?:_+|-+))(?:pre_?mrna_+)?(?!mir-|let-)(?=.*[a-z])",
    re.IGNORECASE,
)
"""R makes a dot of a dash; references have dates in their names, or are of nuclei; hsa-mir-21 is a gene."""
REFERENCE = re.compile(r"refdata-(gex|cellranger)-")
GENOME_BEHIND = re.compile(r"(?<=.)[_.-]((?:GRC[hmz]|hg|mm|danRer|Rnor_?|rn)\d+)$", re.IGNORECASE)
"""The name of an assembly behind that of a gene."""
TRANSCRIPT = re.compile(rf"ENS[A-Z]*T\d{{11}}[^|]*\|({ENSEMBL_ID})\|[^|]*\|[^|]*\|[^|]*\|([^|]+)\|.*", re.DOTALL)
"""A transcript as GENCODE names it: transcript, gene, two ids of Havana, the symbols of both, length and class."""
TARGET = re.compile(r"([^|]+)\|([^|]+)\|(?:reference_end|polya[_\d]*)", re.IGNORECASE)
"""A target of BD Rhapsody: symbol, transcript and where it is read."""
NUMBERED = re.compile(
    r"(?:(?P<hgnc>hgnc(?:[_ ]?id)?(?::hgnc)?)|gene_?id|entrez(?:_?gene)?(?:_?id)?|ncbi(?:_?gene)?(?:_?id)?)"
    r"[ :_|.-]+(?P<n>\d+)",
    re.IGNORECASE,
)
"""A number of NCBI's (Entrez) or HGNC's, with the name of the database before it."""
SPIKE_IN = re.compile(r"(?:.*[^A-Za-z])?ERCC[-_. ]?(\d{5})(?: \(spike-in control\))?", re.IGNORECASE)
LABEL = re.compile(
    r"(?:(?:gene|hgnc)(?:[_ ]?(?:symbol|name|id))?|symbol)[:|]+ *(?=.*[a-z])|gene-(?=[a-z][^|]+$)", re.IGNORECASE
)
"""What says that a gene's name follows, as in ``gene-TP53`` of NCBI's annotation."""
PLACE = (
    r"chr(?:\d{1,2}[LR]?|[XYMWZ]|MT|Un|[IV]+)(?:_[A-Za-z]\w*?(?:_random|_alt|_fix|v\d))?"
    r"(?::\d[\d,]*-\d[\d,]*)?(?::[+-])?"
)
BESIDE = re.compile(
    rf"^{PLACE}(?:[:;| ]+|_+|-)(?=[^:|]*[A-Za-z])|(?<=.)(?:[:;|_-]+{PLACE}|[ |]*\({PLACE}\))$"
    r"|(?<=.)\|(?:protein_coding|\w*(?<=[a-z_])RNA|(?:\w+_)?pseudogene|antisense|processed_transcript|ribozyme"
    r"|(?:IG|TR)_[CDJV]_gene)$"
)
"""A chromosome before or behind the name of a gene, or the class of the gene behind it."""
DRESSED = re.compile(r"[:| (]|chr|^(?:gene|hgnc|entrez|ncbi)|ercc", re.IGNORECASE)
LEAST_OF_A_GENOME = 0.05


def are_ensembl(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return which of some ids have the form of Ensembl's; bool, shape (n,)."""
    return np.asarray(pc.match_substring_regex(pa.array(ids, pa.string()), ENSEMBL_FORM))


@cache
def is_ensembl(name: str) -> bool:
    """Whether a name has the form of Ensembl's ids of genes."""
    return name.startswith("ENS") and ENSEMBL.match(name) is not None


@cache
def unversioned(gene_id: str) -> str:
    """Strip the version of an Ensembl id, keeping the Y copy of a pseudo-autosomal gene apart.

    Examples
    --------
    >>> unversioned("ENSG00000210082.2"), unversioned("ENSG00000182378.14_PAR_Y"), unversioned("TP53")
    ('ENSG00000210082', 'ENSG00000182378_PAR_Y', 'TP53')
    """
    match = ENSEMBL.match(gene_id)
    return match.group(1) + (match.group(2) or "") if match else gene_id


@cache
def cleaned(name: str) -> str:
    """Return a name without blanks or quotes around it, and without the mark of a text that was bytes; ids in capitals.

    A genome that stands behind a name comes before it; what says that a name
    is one, and where its gene lies, goes, and so does the version of an id.

    >>> cleaned(" MT-ND1"), cleaned("b'MT-ND1'"), cleaned("ensg00000198888.2"), cleaned("TP53-hg38")
    ('MT-ND1', 'MT-ND1', 'ENSG00000198888', 'hg38_TP53')
    >>> cleaned("TP53__chr17"), cleaned("entrez:7157"), cleaned("ERCC_00002")
    ('TP53', 'GeneID:7157', 'ERCC-00002')
    """
    if name.startswith("ENS") and (match := ENSEMBL.fullmatch(name)):  # most are such ids, or letters and digits
        return match.group(1) + (match.group(2) or "")
    text = name
    if not name.isalnum():
        text = (name if name.isascii() else name.translate(TYPESET)).strip()
        if match := QUOTED.fullmatch(text):
            text = match.group(2).strip()
        if match := TRANSCRIPT.fullmatch(text):
            text = "|".join(match.groups())
        if match := TARGET.fullmatch(text):
            text = "|".join(match.groups()) if SMALL_ID.fullmatch(match.group(2)) else match.group(1)
        if match := GENOME_BEHIND.search(text):
            text = f"{match.group(1)}_{text[: match.start()].rstrip('_.-')}"
        if DRESSED.search(text):
            text = undressed(text)
        if match := OF_YEAST.fullmatch(text):
            text = "-".join(match.groups())
    elif name[:4].upper() == "ERCC":
        text = undressed(name)
    if text[:3].upper() == "ENS":
        return unversioned(SMALL_ID.sub(lambda match: match.group().upper(), text))
    return text


def undressed(text: str) -> str:
    """Return a name without what says of which kind it is and where its gene lies; numbers and spike-ins in one way."""
    if match := SPIKE_IN.fullmatch(text):
        return f"ERCC-{match.group(1)}"
    if match := NUMBERED.fullmatch(text):
        return f"{'HGNC' if match['hgnc'] else 'GeneID'}:{match['n']}"
    return BESIDE.sub("", LABEL.sub("", text, count=1) if LABEL.match(text) else text)


@cache
def number_beside(name: str) -> tuple[str, str]:
    """Return a symbol and the number behind it, which may be its Entrez id; empty if there is none.

    >>> number_beside("TP53|7157"), number_beside("NKX2-1"), number_beside("TP53")
    (('TP53', '7157'), ('NKX2', '1'), ('', ''))
    """
    match = BEFORE_NUMBER.fullmatch(name) if name[-1:].isdigit() or name[-1:] == ")" else None
    return (match.group(1), match.group(2)) if match else ("", "")


@cache
def split_pair(name: str) -> tuple[str, str]:
    """Return the id and the symbol of a name that may be both, an id or a symbol; empty what it is not.

    >>> split_pair("ENSG00000198888_MT-ND1"), split_pair("ENSG00000198888.2"), split_pair("TP53")
    (('ENSG00000198888', 'MT-ND1'), ('ENSG00000198888', ''), ('', 'TP53'))
    >>> split_pair("ENSG00000198888_2"), split_pair("WBGene00000063|act-1")
    (('ENSG00000198888', ''), ('WBGene00000063', 'act-1'))
    """
    if name.isalnum() or not ANY_ID.search(name):
        return (name, "") if ENSEMBL.match(name) else ("", name)
    if ANY_ID.fullmatch(name):
        return unversioned(name), ""
    if pair := PAIR.fullmatch(name):
        # A row of two genes is neither of them.
        if ENSEMBL.match(pair.group(2)):
            return "", name
        symbol = "" if VERSION.fullmatch(pair.group(2)) else pair.group(2)
        return unversioned(pair.group(1)), symbol
    if pair := PAIR_REVERSED.fullmatch(name):
        return unversioned(pair.group(2)), pair.group(1)
    return "", name


@dataclass(frozen=True, eq=False)
class CleanColumn:
    """The names of a column, cleaned, and what is told by all of them.

    Parameters
    ----------
    values
        The names, as an arrow array.
    letters
        Where all are ids of Ensembl, how many begin with which letters; else empty.
    genomes
        See `genome_names`; no genome stands before ids.
    """

    values: Any
    letters: Mapping[str, int]
    genomes: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """The names."""
        names: list[str] = self.values.to_pylist()
        return names


def clean_column(column: Sequence[str] | NDArray[np.object_]) -> CleanColumn:
    """Clean the names of a column as a file has them."""
    values = pa.array(column, pa.string())
    letters = letters_of(values)
    if letters and pc.any(pc.match_substring(values, ".")).as_py():
        values = pc.replace_substring_regex(values, VERSION_BEHIND, r"\1\2")
    if letters:  # as of most columns of ids: all are clean but for their versions
        return CleanColumn(values, letters)
    names = [*map(cleaned, column)]
    values = pa.array(names, pa.string())
    letters = letters_of(values)
    return CleanColumn(values, letters, () if letters else genome_names(names))


def letters_of(values: Any) -> dict[str, int]:
    """Return how many ids of Ensembl begin with which letters; empty unless all of some names are ids."""
    if not len(values) or not pc.all(pc.match_substring_regex(values, ENSEMBL_FORM)).as_py():
        return {}
    letters = pc.ascii_rtrim(values, characters=BEHIND_LETTERS)
    return {one["values"]: one["counts"] for one in pc.value_counts(letters).to_pylist()}


@dataclass(frozen=True)
class CleanTable:
    """The columns of a gene table, cleaned; None where the table has none."""

    names: CleanColumn
    ids: CleanColumn | None
    symbols: CleanColumn | None

    @property
    def called(self) -> CleanColumn:
        """The symbols, or else the names."""
        return self.symbols or self.names

    @property
    def n_vars(self) -> int:
        """Number of rows."""
        return len(self.names.values)


def clean_table(table: GeneTable) -> CleanTable:
    """Clean the columns of a gene table; those that are equal to its names are one with them."""
    names = clean_column(table.names)

    def clean(column: NDArray[np.object_] | None) -> CleanColumn | None:
        if column is None:
            return None
        return names if np.array_equal(column, table.names) else clean_column(column)

    return CleanTable(names, clean(table.ids), clean(table.symbols))


def genome_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the genomes that references of several species put before names, with the mark between.

    A word before ``_`` or ``-`` is that of a genome if it names a species, and
    also if such words stand before most names and hold a digit.

    >>> genome_names(["GRCm39_Xkr4", "GRCm39_mt-Nd1", "GRCh38_TP53"]), genome_names(["HLA-A", "HLA-B", "MT-ND1"])
    (('GRCh38_', 'GRCm39_'), ())
    """
    words = Counter(first_word(name) for name in names if not name.isalnum())
    found = {
        word: n for word, n in words.items() if word and n >= LEAST_OF_A_GENOME * len(names) and is_genome(word, n)
    }
    if 2 * sum(found.values()) <= len(names):
        found = {word: n for word, n in found.items() if n > 1 and species_of_genome(word)}
    return tuple(sorted(found))


@cache
def first_word(name: str) -> str:
    """Return the word before the first ``_`` or ``-`` of a name, with that mark; empty if there is none.

    >>> first_word("mm10___Xist"), first_word("GRCh38-TP53"), first_word("TP53")
    ('mm10___', 'GRCh38-', '')
    """
    match = GENOME.match(name)
    return match.group() if match else ""


def is_genome(word: str, n: int) -> bool:
    """Whether a word before ``n`` names may be that of a genome: it names a species, or has a digit and recurs."""
    if re.match(ENSEMBL_ID, word):
        return False
    return bool(species_of_genome(word)) or (n > 1 and any(map(str.isdigit, word)))


def species_of_genome(word: str) -> str:
    """Return the species of a genome's name, empty if it is unknown."""
    name = REFERENCE.sub("", word)
    return next((species for pattern, species in SPECIES_OF_GENOME if pattern.match(name)), "")


def without_genome(name: str, genomes: Iterable[str]) -> str:
    """Return a name without the genome before it."""
    return next((name.removeprefix(word) for word in genomes if name.startswith(word)), name)


def gene_class_flags(
    symbols: Sequence[str] | NDArray[np.object_], ids: Sequence[str] | NDArray[np.object_]
) -> NDArray[np.uint32]:
    """Return a bit per entry of `GENE_CLASSES` for each gene, uint32, shape (n_genes,).

    Parameters
    ----------
    symbols
        Symbols; R writes a dot for a dash.
    ids
        Gene ids without version, for genes that have no symbol.
    """
    spelled = pc.replace_substring(pa.array(symbols, pa.string()), ".", "-")
    flags = np.zeros(len(spelled), np.uint32)
    for bit, gene_class in enumerate(GENE_CLASSES):
        flags |= gene_class.has(spelled, pa.array(ids, pa.string())).astype(np.uint32) << np.uint32(bit)
    return flags
