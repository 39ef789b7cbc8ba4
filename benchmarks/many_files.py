"""Many small files, and the steps that must not grow with their number: one run, its figures.

A run over many files of few cells, then what costs nothing once it is known:
a dry run, `resume=true`. What the dry run predicted stands beside what the
run took. ``--parts`` measures the merge of sorted runs and the comparison of
cells at growing sizes, on made-up rows, in a process each.

    python benchmarks/many_files.py                    # 2,000 files of 30 cells × 2,000 genes
    python benchmarks/many_files.py --files 200
    python benchmarks/many_files.py --parts            # merges of 1 to 16 million rows, 4 to 32 million hashes
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from tree import measure

ROOT = Path(__file__).resolve().parents[1]
MERGED_ROWS = (1_000_000, 4_000_000, 16_000_000)
COMPARED_HASHES = (4_000_000, 8_000_000, 16_000_000, 32_000_000)
N_RUNS = 8
STEP = 100_000
N_GENES = 50


def main() -> None:
    """Print the figures of a run over many files, or of its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--cells", type=int, default=30, help="cells per file")
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--tables", choices=("one", "many"), default="one", help="whether files share a gene table")
    parser.add_argument("--data", type=Path, default=Path("benchmark-data"), help="where files are made and left")
    parser.add_argument("--parts", action="store_true", help="measure merges and comparisons instead")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, size = arguments.part
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"merge": merge, "compare": compare}[name](Path(folder), int(size))))
    elif arguments.parts:
        parts()
    else:
        many_files(arguments)


def many_files(arguments: argparse.Namespace) -> None:
    """Run the dry run, the run, and both again; print the seconds of each."""
    raw = arguments.data / f"{arguments.files}x{arguments.cells}x{arguments.genes}-{arguments.tables}"
    if not raw.exists():
        make_files(raw, arguments)
    out = arguments.data / "many-out"
    shutil.rmtree(out, ignore_errors=True)
    base = [sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}/*.h5ad"', "engine=local",
            f"paths.processed_dir={out}", f"hydra.run.dir={out}-log"]  # fmt: skip
    time.sleep(2)  # files that changed just now are surveyed again
    dry = measure([*base, "dry_run=true"])
    runs = {
        "dry run": dry,
        "dry run, nothing changed": measure([*base, "dry_run=true"]),
        "run": measure(base),
        "resume, nothing changed": measure([*base, "resume=true"]),
    }
    predicted = seconds_of(re.findall(r"^  time +(.+) with", dry.output, re.MULTILINE)[0])
    print(f"{arguments.files:,} files of {arguments.cells} cells × {arguments.genes:,} genes, {arguments.tables} table")
    print(f"{'':26}{'s':>8}{'peak MB':>9}")
    for name, run in runs.items():
        print(f"{name:26}{run.seconds:8.1f}{run.peak_rss / 1e6:9.0f}")
    print(f"{'predicted for the run':26}{predicted:8.1f}{predicted / runs['run'].seconds:8.2f} × the run")


def make_files(raw: Path, arguments: argparse.Namespace) -> None:
    """Simulate files; of one table where they shall share it: then a few are made, and each copied under many names."""
    from scvae_data.simulate import simulate_files

    size: dict[str, Any] = {"cells_per_file": arguments.cells, "n_genes": arguments.genes}
    if arguments.tables == "many":
        simulate_files(raw, n_files=arguments.files, seed=1, **size)
        return
    (made,) = simulate_files(raw, n_files=1, seed=1, **size)
    for number in range(1, arguments.files):
        shutil.copy(made, raw / f"SRX{8_000_000 + number}.h5ad")


def seconds_of(text: str) -> float:
    """Return the seconds of a time with its unit."""
    value, unit = text.split()
    return float(value) * {"s": 1, "min": 60, "h": 3600}[unit]


def parts() -> None:
    """Print memory and time of merges and comparisons at growing sizes."""
    print(f"{'':10}{'rows':>14}{'CPU s':>8}{'s per million':>15}{'peak MB':>9}")
    for name, sizes in (("merge", MERGED_ROWS), ("compare", COMPARED_HASHES)):
        for size in sizes:
            command = [sys.executable, __file__, "--part", name, str(size)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{name:10}{size:14,}{found['seconds']:8.1f}{found['seconds'] / size * 1e6:15.3f}"
                f"{found['peak'] / 1e6:9.0f}"
            )


def merge(folder: Path, n_rows: int) -> dict[str, float]:
    """Merge sorted runs of made-up rows, two counts each."""
    import pyarrow as pa

    from scvae_data.processing.decide import merge as module
    from scvae_data.processing.engine.workers import limit_heap
    from scvae_data.processing.sort.packed import pack_rows
    from scvae_data.processing.sort.sorted_run import SortedRunWriter
    from scvae_data.processing.work import WorkFolder

    limit_heap()  # as in a worker
    schema = pa.schema([("name", pa.string()), ("file_number", pa.int32())])
    rng = np.random.default_rng(0)
    width = 2**64 // (n_rows // N_RUNS // STEP + 1)
    columns, ones = np.tile(np.array([1, 7], np.uint16), STEP), np.ones(2 * STEP, np.uint32)
    packed = pack_rows(np.arange(STEP + 1, dtype=np.int64) * 2, columns, ones)
    for number in range(N_RUNS):
        writer = SortedRunWriter(folder / f"run{number}", schema, N_GENES)
        for start in range(0, n_rows // N_RUNS, STEP):
            keys = np.sort(rng.integers(0, width - 1, STEP, np.uint64)) + np.uint64(start // STEP * width)
            names = [f"SRX{number}_{row:020d}" for row in range(start, start + STEP)]
            obs = pa.table({"name": names, "file_number": pa.array(np.full(STEP, number, np.int32))})
            writer.append(np.column_stack([keys, keys]), *packed, obs, totals=(np.full(STEP, 2), np.full(STEP, 2)))
        writer.close()
    genes = np.arange(N_GENES, dtype=np.int32)
    schema_of = SimpleNamespace(slice=lambda table: table)
    decision = SimpleNamespace(gene_map=genes, schema=schema_of, n_universe=N_GENES, max_count=3)
    names = [f"run{number}" for number in range(N_RUNS)]
    with patch.object(module, "load_decision", lambda *_: decision), patch.object(module, "PIECE_BYTES", 8 * STEP):
        return measured(lambda: module.merge_runs(WorkFolder(folder), "", names, "merged/run"))


def compare(folder: Path, n_cells: int) -> dict[str, float]:
    """Compare made-up hashes, 50 of which are in every file."""
    from scvae_data.processing.decide import duplicates
    from scvae_data.processing.work import WorkFolder

    work = WorkFolder(folder)
    rng = np.random.default_rng(0)
    scans: list[Any] = [SimpleNamespace(number=number, n_kept=STEP) for number in range(n_cells // STEP)]
    for scan in scans:
        work.scan(scan.number).path.mkdir(parents=True)
        hashes = rng.integers(0, 2**64 - 1, (STEP, 3), np.uint64)
        hashes[:, 2] = np.arange(STEP)
        hashes[:50, :2] = np.arange(50)[:, None] << 50
        np.save(work.scan(scan.number).hashes, hashes)

    def steps() -> None:
        groups, n_parts = duplicates.groups_of(scans), duplicates.n_parts(n_cells)
        for number, group in enumerate(groups):
            duplicates.deal_hashes(work, number, [scan.number for scan in group])
        for part in range(n_parts):
            duplicates.find_copies(work, len(groups), part, n_parts, "first")
        for group in groups:
            duplicates.cells_to_drop(work, group[0].number, group[-1].number, n_parts)

    return measured(steps)


def measured(call: Any) -> dict[str, float]:
    """Return the CPU seconds of a call, and how much its peak memory is above that before it (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started = memory("VmRSS"), time.process_time()
    call()
    return {"seconds": time.process_time() - started, "peak": memory("VmHWM") - before}


def memory(key: str) -> int:
    """Return a figure of ``/proc/self/status`` in bytes."""
    lines: Sequence[str] = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
