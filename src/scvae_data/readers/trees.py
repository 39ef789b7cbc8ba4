"""A path in; the tables and matrices of the AnnData object that lies there, whatever holds it, out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scvae_data.errors import InputError
from scvae_data.readers.features import kind_of_type
from scvae_data.readers.frames import LoomFrame, StoredFrame
from scvae_data.readers.hdf5 import open_file, reading
from scvae_data.readers.matrices import Transposed
from scvae_data.readers.zarr_store import open_store
from scvae_data.system.hdf5_guard import Limits
from scvae_data.wording import counted

__all__ = ["COUNT_LAYERS", "Tree", "TreeFormat", "open_tree"]

TreeFormat = Literal["h5ad", "h5mu", "zarr", "loom"]

COUNT_LAYERS = ("counts", "raw_counts", "count")
"""Layers that hold counts by their name, in order of preference."""

CELL_NAMES = ("CellID", "obs_names", "cell_names", "cell_id", "cell", "barcode", "barcodes", "index")
GENE_NAMES = ("Gene", "var_names", "gene_names", "gene_name", "gene", "Accession", "gene_ids", "gene_id", "index")
"""Attributes of a loom file that name its cells and genes, as loompy, anndata, loomR and Optimus write them."""


@dataclass(frozen=True)
class Tree:
    """What an AnnData object consists of, in an open file."""

    obs: StoredFrame
    var: StoredFrame
    raw_var: StoredFrame | None
    """Of ``raw/X``; None where it has the columns of ``X``."""
    nodes: dict[str, Any]
    """What is stored in each place for a matrix, counts by their name first."""
    close: Callable[[], None]
    notes: tuple[str, ...] = ()
    """What of the file is left out."""


def open_tree(path: Path, format: TreeFormat, limits: Limits) -> Tree:
    """Open an H5AD, MuData or loom file, or a Zarr store.

    Raises
    ------
    InputError
        It cannot be read; a MuData object without one modality of RNA is refused with those it has.
    """
    root, close = open_store(path, limits) if format == "zarr" else _open_hdf5(path, limits)
    try:
        with reading(path):
            return _loom_tree(path, root, close) if format == "loom" else _anndata_tree(path, root, close)
    except BaseException:
        close()
        raise


def _open_hdf5(path: Path, limits: Limits) -> tuple[Any, Callable[[], None]]:
    file = open_file(path, limits)
    return file, file.close


def _anndata_tree(path: Path, root: Any, close: Callable[[], None]) -> Tree:
    notes: tuple[str, ...] = ()
    if "mod" in root:
        root, notes = _rna(path, root)
    if absent := {"obs", "var"} - set(root):
        held = ", ".join(sorted(root)[:8]) or "nothing"
        raise InputError(path, "not_single_cell", f"no AnnData object: no {min(absent)}, it holds {held}; leave it out")
    uns = root.get("uns")
    raw_var = root.get("raw/var", root.get("raw.var"))  # "raw.var": anndata before 0.7
    nodes = _in_order(root.get("layers", {}), {"raw/X": root.get("raw/X", root.get("raw.X")), "X": root.get("X")})
    return Tree(
        StoredFrame(path, root["obs"], uns),
        StoredFrame(path, root["var"], uns),
        None if raw_var is None else StoredFrame(path, raw_var, uns),
        nodes,
        close,
        notes,
    )


def _rna(path: Path, root: Any) -> tuple[Any, tuple[str, ...]]:
    """The modality of a MuData object that holds genes, and what else the object holds."""
    names = list(root["mod"])
    held = ", ".join(names) or "none"
    genes = [name for name in names if kind_of_type(name) == "gene"]
    if len(genes) != 1:
        many = f"{len(genes)} modalities of RNA" if genes else "no modality of RNA"
        raise InputError(
            path, "no_counts", f"a MuData object with {many} (modalities: {held}); write the one meant as H5AD"
        )
    notes = [f"modality {name} is left out" for name in names if name != genes[0]]
    own = [name for name in StoredFrame(path, root["obs"]).columns if name.partition(":")[0] not in names]
    if own:
        told = f"{', '.join(own[:5])}{', …' if len(own) > 5 else ''}"
        notes.append(f"{counted(len(own), 'obs column')} of all modalities together ({told}) left out")
    return root["mod"][genes[0]], tuple(notes)


def _loom_tree(path: Path, file: Any, close: Callable[[], None]) -> Tree:
    n_genes, n_cells = file["matrix"].shape
    obs = LoomFrame(path, file["col_attrs"], n_cells, CELL_NAMES)
    var = LoomFrame(path, file["row_attrs"], n_genes, GENE_NAMES)
    others = [*(f"col_attrs/{name}" for name in obs.others), *(f"row_attrs/{name}" for name in var.others)]
    notes = (f"not one value each, left out: {', '.join(others)}",) if others else ()
    nodes = _in_order(file.get("layers", {}), {"X": file["matrix"]})
    return Tree(obs, var, None, {slot: Transposed(node) for slot, node in nodes.items()}, close, notes)


def _in_order(layers: Any, matrices: dict[str, Any]) -> dict[str, Any]:
    """What there is: layers of counts, then the matrices, then all other layers."""
    nodes = {f"layers/{name}": layers[name] for name in COUNT_LAYERS if name in layers} | matrices
    nodes |= {f"layers/{name}": layers[name] for name in layers}
    return {slot: node for slot, node in nodes.items() if node is not None}
