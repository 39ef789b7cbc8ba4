"""Bytes read for a part of the cells, by the order in which they were stored.

Counts bytes, so it may run beside anything. Three ways to choose a share of
the cells: by the hash that splits use, one experiment after the other, and at
random without regard to any order.

    python benchmarks/selection.py                        # 40,000 simulated cells in 4 chunks, made once
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from scvae_data import open_index
from scvae_data.loading.fetch.fetch import RowGroupSource, run_now
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.simulate import simulate_files
from scvae_data.store import DatasetIndex

ORDERS = {"hash": (), "group": ("chunking.order=group", "chunking.group_column=SRX_accession")}
SHARES = (0.001, 0.01, 0.05, 0.1)
CHOICES = ("split", "experiments", "random")


def make_data(root: Path, n_cells: int, n_genes: int, chunk_size: int) -> dict[str, Path]:
    """The same simulated cells in each order; once."""
    paths = {order: root / order for order in ORDERS}
    if all((path / "chunk_index.json").exists() for path in paths.values()):
        return paths
    files = simulate_files(
        root / "raw", n_files=40, cells_per_file=n_cells // 40, n_genes=n_genes, seed=1, shared_genes=1.0,
        median_counts=5_850.0, compression=None,
    )  # fmt: skip
    script = Path(__file__).parent.parent / "process.py"
    for order, settings in ORDERS.items():
        command = [
            sys.executable, str(script), "input=files", f'input.paths="{root / "raw"}/*.h5ad"', "qc=none",
            f"paths.processed_dir={paths[order]}", f"chunk_size={chunk_size}", "overwrite=true",
            f"hydra.run.dir={root / 'run'}", *settings,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for file in files:
        file.unlink()
    return paths


def chosen(index: DatasetIndex, choice: str, share: float) -> np.ndarray:
    """Mask of about ``share`` of the cells."""
    if choice == "split":
        return index.obs(["split_hash"])["split_hash"].to_numpy() < share * 2**32
    if choice == "random":
        rank = np.random.default_rng(0).permutation(index.n_obs)
    else:
        rank = np.empty(index.n_obs, np.int64)
        rank[np.lexsort((np.arange(index.n_obs), index.codes("SRX_accession")))] = np.arange(index.n_obs)
    return rank < round(share * index.n_obs)


def bytes_read(index: DatasetIndex, mask: np.ndarray | None) -> int:
    """Bytes of the chunk files that are read for the cells of a mask, None for all; tables and row starts included."""
    source = RowGroupSource(to_row_groups(mask, index.first_rows), index.reader)
    for block in range(len(source.row_groups)):
        source.start(block, run_now, 1).result()
    return source.bytes_read


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("outputs/benchmark/selection"), help="folder that keeps the data"
    )
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--chunk-size", type=int, default=10_000)
    arguments = parser.parse_args()
    paths = make_data(arguments.data, arguments.cells, arguments.genes, arguments.chunk_size)
    print("| order | cells chosen by | " + " | ".join(f"{100 * share:g} %" for share in SHARES) + " |")
    print("|---|---|" + "--:|" * len(SHARES))
    for order, path in paths.items():
        index = open_index(path)
        everything = bytes_read(index, None)
        for choice in CHOICES:
            read = [bytes_read(index, chosen(index, choice, share)) for share in SHARES]
            cells = " | ".join(f"{n / 1e6:.1f} MB ({100 * n / everything:.1f} %)" for n in read)
            print(f"| {order} | {choice} | {cells} |", flush=True)
        print(f"| {order} | all | " + " | ".join(["", "", "", f"{everything / 1e6:.1f} MB"]) + " |", flush=True)


if __name__ == "__main__":
    main()
