"""The dataset format: the only thing that processing and loading share. ``docs/format.md`` is its specification."""

from scvae_data.store.cell_index import CellIndex
from scvae_data.store.cell_tables import CellTables, Generation
from scvae_data.store.cell_tables_writer import CellTablesWriter, table_names
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.chunk_writer import ChunkContent, ChunkEntry, write_chunk
from scvae_data.store.chunking import Chunking
from scvae_data.store.codec import Codec, CodecError, as_values, codec_of, padded
from scvae_data.store.csr import STREAM_MAX_COUNT, CompactCsr, CsrStream, count_dtype, index_dtype
from scvae_data.store.dataset_index import DatasetIndex
from scvae_data.store.files import (
    FileFacts,
    read_json,
    sha256_file,
    sweep_temporaries,
    write_atomic,
    write_json,
)
from scvae_data.store.gene_list import GENE_LIST_FILE, GeneList, GeneSets, read_gene_list, write_gene_list
from scvae_data.store.index_json import open_index, write_index
from scvae_data.store.joined_index import JoinedIndex, open_dataset
from scvae_data.store.names import CHUNK_VERSION, FORMAT_VERSION, INDEX_FILE, SRX_COLUMN, chunk_file_name
from scvae_data.store.obs_reader import ObsReader
from scvae_data.store.obs_writer import OBS_FILE, ObsColumn, ObsWriter, obs_columns

__all__ = [
    "CHUNK_VERSION",
    "FORMAT_VERSION",
    "GENE_LIST_FILE",
    "INDEX_FILE",
    "OBS_FILE",
    "SRX_COLUMN",
    "STREAM_MAX_COUNT",
    "CellIndex",
    "CellTables",
    "CellTablesWriter",
    "ChunkContent",
    "ChunkEntry",
    "ChunkReader",
    "Chunking",
    "Codec",
    "CodecError",
    "CompactCsr",
    "CsrStream",
    "DatasetIndex",
    "FileFacts",
    "GeneList",
    "GeneSets",
    "Generation",
    "JoinedIndex",
    "ObsColumn",
    "ObsReader",
    "ObsWriter",
    "as_values",
    "chunk_file_name",
    "codec_of",
    "count_dtype",
    "index_dtype",
    "obs_columns",
    "open_dataset",
    "open_index",
    "padded",
    "read_gene_list",
    "read_json",
    "sha256_file",
    "sweep_temporaries",
    "table_names",
    "write_atomic",
    "write_chunk",
    "write_gene_list",
    "write_index",
    "write_json",
]
