"""Readers of count files: a path in, cells × genes in row blocks out."""

from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Layout, Reader, Storage
from scvae_data.readers.gene_names import ENSEMBL_GENE, looks_ensembl
from scvae_data.readers.recognise import open_reader

__all__ = [
    "DEFAULT_MAX_ELEMENTS",
    "ENSEMBL_GENE",
    "CsrBlock",
    "GeneTable",
    "Layout",
    "Reader",
    "Storage",
    "looks_ensembl",
    "open_reader",
]
