"""Cells a second of this loader and of others, over the same cells, in one run with interleaved repeats.

    python benchmarks/loading.py                                    # 20,000 cells, ours only: a minute
    python -m venv PEERS && PEERS/bin/pip install annbatch zarrs scdataset torch psutil      # Python 3.12
    python benchmarks/loading.py --cells 100000 --repeats 5 --peer-python PEERS/bin/python --data DIR

The cells are simulated once and kept in DIR, with what each loader needs. Every
figure is the median over the repeats; before each repeat the order of the cases
moves on by one, and every case starts with empty caches of its own; ``next
epoch`` is the second epoch of the same loader, which has its threads and memory. The page
cache is warm but for the cases called ``cold``. Batches belong to the consumer, which drops each when it gets
the next; checksums are verified. Cells per CPU second, over all threads, are
comparable also on a machine that does other work meanwhile. Lines with workers
stand beside those of threads; ``copy of batches`` is the floor of one copy.
Results: DIR/loading.json and DIR/loading.png.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

N_HVG = 2_000
N_WORKERS = 2
TIME_LIMIT = 10.0  # seconds after which a slow loader's epoch is cut short


class Case(NamedTuple):
    """One line of the table."""

    name: str
    who: str
    """ours, ram, copy, or a peer's name."""
    x_format: str = "csr"
    compression: str = "gzip"
    normalized: bool = False
    hvg: bool = False
    cached: bool = False
    threads: int = 2
    cold: bool = False
    """Files leave the page cache before the epoch."""
    workers: int = 0
    """Processes that make batches."""


def cases(peers: list[str]) -> list[Case]:
    """All lines, in the order of the table."""
    lines = [
        Case(f"{codec} {kind}{' x1' if threads == 1 else ''}", "ours", kind, codec, threads=threads)
        for codec in ("gzip", "lz4")
        for kind in ("csr", "compact", "dense")
        for threads in (2, 1)
    ]
    lines += [Case(f"{codec} dense log1p", "ours", "dense", codec, normalized=True) for codec in ("gzip", "lz4")]
    lines += [Case(f"{codec} dense hvg", "ours", "dense", codec, hvg=True) for codec in ("gzip", "lz4")]
    lines += [Case(f"cached {kind}", "ours", kind, "gzip", cached=True) for kind in ("csr", "compact", "dense")]
    lines += [Case("cached dense hvg", "ours", "dense", "gzip", hvg=True, cached=True)]
    lines += [Case(f"{codec} csr cold", "ours", "csr", codec, cold=True) for codec in ("gzip", "lz4")]
    lines += [
        Case(f"{where} {kind} {N_WORKERS} workers", "ours", kind, codec, cached=where == "cached", workers=N_WORKERS)
        for where, codec in (("lz4", "lz4"), ("cached", "gzip"))
        for kind in ("csr", "compact", "dense")
    ]
    lines += [Case(f"in-RAM gather {kind} x1", "ram", kind, threads=1) for kind in ("csr", "compact", "dense")]
    lines += [Case(f"copy of batches {kind} x1", "copy", kind, threads=1) for kind in ("csr", "compact", "dense")]
    for peer in peers:
        lines += [Case(f"{peer} csr", peer, "csr")]
        lines += [Case(f"{peer} dense", peer, "dense")] if peer in ("annbatch", "scdataset") else []
        lines += [Case(f"{peer} csr cold", peer, "csr", cold=True)] if peer in ("annbatch", "scdataset") else []
    return lines


class Peers:
    """The worker process that runs the other loaders."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).parent / "loading_peers" / "worker.py"
        self._process = subprocess.Popen(
            [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])  # type: ignore[no-any-return]
        raise RuntimeError("the peers' process ended")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def make_data(data: Path, n_cells: int, n_genes: int, chunk_size: int) -> dict[str, Path]:
    """Simulate, process with both codecs, and write the same cells as one uncompressed H5AD; once."""
    from scvae_data import ChunkedDataset
    from scvae_data.simulate import simulate_files

    root = data / f"{n_cells}x{n_genes}x{chunk_size}"
    paths = {"root": root, "gzip": root / "gzip", "lz4": root / "lz4", "h5ad": root / "cells.h5ad"}
    if paths["h5ad"].exists():
        return paths
    print("making the data", file=sys.stderr)
    n_files = 20
    files = simulate_files(
        root / "raw", n_files=n_files, cells_per_file=n_cells // n_files, n_genes=n_genes, seed=1, shared_genes=1.0,
        median_counts=5_850.0, compression=None,  # 2,070 non-zeros a cell, on average
    )  # fmt: skip
    for compression in ("gzip", "lz4"):
        settings = [
            "input=files", f'input.paths="{root / "raw"}/*.h5ad"', "qc=none",
            f"paths.processed_dir={paths[compression]}",
            f"chunk_size={chunk_size}", f"chunking.compression={compression}", "overwrite=true",
            f"hydra.run.dir={root / 'run'}",
        ]  # fmt: skip
        script = Path(__file__).parent.parent / "process.py"
        subprocess.run([sys.executable, str(script), *settings], check=True, stdout=subprocess.DEVNULL)
    adata = ChunkedDataset(paths["gzip"]).to_anndata()
    adata.obs = adata.obs[["SRX_accession"]]
    # In the order of the inputs, as the files that the other loaders meet.
    adata[np.argsort(adata.obs["SRX_accession"].cat.codes.to_numpy(), kind="stable")].copy().write_h5ad(paths["h5ad"])
    for file in files:
        file.unlink()
    return paths


def our_batches(case: Case, paths: dict[str, Path], batch_size: int) -> tuple[Callable[[], Iterator[Any]], Any]:
    """A function that starts an epoch, and the data module behind it."""
    from scvae_data import ChunkedDataModule

    source = paths["gzip" if case.cached else case.compression]
    module = ChunkedDataModule(
        source, batch_size=batch_size, split=None, normalized=case.normalized, x_format=case.x_format,
        num_threads=case.threads, chunk_cache_size=10_000 if case.cached else 1,
        genes=range(0, N_HVG * 9, 9) if case.hvg else None, num_workers=case.workers,
    )  # fmt: skip
    module.setup()
    loader = module.train_dataloader()
    # Workers take windows in turn: each has all chunks once it has met them in some epochs.
    for _ in range((4 * case.workers or 1) if case.cached else 0):
        for _ in loader:
            pass
    return lambda: iter(loader), module


def gather_limit(case: Case, paths: dict[str, Path], batch_size: int) -> tuple[float, float]:
    """Cells a second, and a CPU second, of one thread that gathers rows of RAM into the same buffers over and over."""
    from scvae_data.loading.batch.fill import count_elements, fill_csr, fill_dense
    from scvae_data.loading.batch.kernels import NO_GENES
    from scvae_data.store import open_index

    index = open_index(paths["gzip"])
    part = index.reader(0).read_rows(0, index.chunks[0].n_obs)
    order = np.random.default_rng(0).permutation(part.n_obs)
    kinds = (np.uint16, np.uint16) if case.x_format == "compact" else (np.int32, np.float32)
    columns, values = (np.zeros(batch_size * index.n_vars, kind) for kind in kinds)
    x, library_size = np.zeros((batch_size, index.n_vars), np.float32), np.zeros(batch_size, np.float32)

    def once(slots: np.ndarray) -> None:
        pieces = [([(0, part)], slots)]
        if case.x_format == "dense":
            fill_dense(pieces, NO_GENES, None, x, library_size)
        else:
            starts = count_elements(pieces, NO_GENES, index.n_vars)
            fill_csr(pieces, NO_GENES, index.n_vars, None, starts, columns, values, library_size)

    once(order[:batch_size])
    started, worked = time.perf_counter(), time.process_time()
    batches = [order[first : first + batch_size] for first in range(0, order.size - batch_size + 1, batch_size)]
    for slots in batches:
        once(slots)
    n_cells = len(batches) * batch_size
    return n_cells / (time.perf_counter() - started), n_cells / (time.process_time() - worked)


def copy_limit(case: Case, paths: dict[str, Path], batch_size: int) -> tuple[float, float]:
    """Cells a second, and a CPU second, of one thread that copies a batch over and over: what each copy would cost."""
    from scvae_data.store import open_index

    index = open_index(paths["gzip"])
    itemsize = {"compact": 4, "csr": 8, "dense": 4 * index.n_vars * index.n_obs / index.nnz}[case.x_format]
    source = np.ones(round(batch_size * index.nnz / index.n_obs * itemsize), np.uint8)
    targets = [np.ones_like(source) for _ in range(5)]  # as many as are on their way
    n_rounds = 50
    started, worked = time.perf_counter(), time.process_time()
    for number in range(n_rounds):
        targets[number % len(targets)][:] = source
    n_cells = n_rounds * batch_size
    return n_cells / (time.perf_counter() - started), n_cells / (time.process_time() - worked)


def cpu_seconds() -> float:
    """CPU time of this process and its workers so far."""
    import psutil

    process = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def measure_ours(case: Case, paths: dict[str, Path], batch_size: int) -> dict[str, float]:
    """An epoch and the next: the same figures as the peers' worker gives."""
    import psutil

    if case.who in ("ram", "copy"):
        limit = gather_limit if case.who == "ram" else copy_limit
        rate, per_cpu = limit(case, paths, batch_size)
        return {"cells_per_second": rate, "cells_per_cpu_second": per_cpu}
    start, module = our_batches(case, paths, batch_size)
    process = psutil.Process()
    started, worked = time.perf_counter(), cpu_seconds()
    first, n_cells, peak, bits = 0.0, 0, 0, []
    for number, batch in enumerate(start()):
        first = first or time.perf_counter() - started
        n_cells += len(batch["index"])
        if number % 16 == 0:
            peak = max(peak, process.memory_info().rss)
            share = np.bincount(batch["obs"]["SRX_accession"].numpy()) / len(batch["index"])
            bits.append(-(share[share > 0] * np.log2(share[share > 0])).sum())
    elapsed, worked = time.perf_counter() - started, cpu_seconds() - worked
    again = time.perf_counter()
    n_again = sum(len(batch["index"]) for batch in start())
    again = time.perf_counter() - again
    module.teardown()
    return {
        "cells_per_second": n_cells / elapsed,
        "next_cells_per_second": n_again / again,
        "cells_per_cpu_second": n_cells / worked,
        "first_batch_seconds": first,
        "rss_bytes": peak,
        "entropy_bits": float(np.mean(bits)),
    }


def stages(paths: dict[str, Path], n_blocks: int = 40) -> dict[str, dict[str, float]]:
    """Microseconds of one core per cell in each stage, by codec: the best of five passes over some blocks."""
    from scvae_data.store import open_index

    report: dict[str, dict[str, float]] = {}
    for name in ("gzip", "lz4"):
        index = open_index(paths[name])
        with index.reader(0) as reader:
            spent = block_stages(reader, n_blocks)
        per_block = index.block_elements / (index.nnz / index.n_obs)
        report[name] = {stage: seconds / per_block * 1e6 for stage, seconds in spent.items()}
    kinds = ("csr", "compact", "dense")
    limits = {kind: [gather_limit(Case("", "ram", kind), paths, 256)[1] for _ in range(5)] for kind in kinds}
    report["gather"] = {kind: 1e6 / max(rates) for kind, rates in limits.items()}
    return report


def block_stages(reader: Any, n_blocks: int) -> dict[str, float]:
    """CPU seconds per block of columns and block of counts together, by stage."""
    import deflate

    from scvae_data.store.native_decode import unpack

    tables, source = reader._load()[0], reader._file.source()
    fd = source.fileno()
    spent = {"read": 0.0, "crc32": 0.0}
    for array, decode in (("indices", "columns"), ("data", "counts")):
        blocks = tables[array]
        out, buffer = np.empty(blocks.length, np.uint16), memoryview(bytearray(int(blocks.size.max())))
        numbers = range(min(n_blocks, blocks.offset.size - 1))
        rounds = []
        for _ in range(5):
            now = dict.fromkeys(("read", "crc32", "all"), 0.0)
            for block in numbers:
                size, place = int(blocks.size[block]), np.array([[block, block + 1]]) * blocks.length
                times = [time.process_time()]
                os.preadv(fd, [buffer[:size]], int(blocks.offset[block]))
                times.append(time.process_time())
                deflate.crc32(buffer[:size])
                times.append(time.process_time())
                assert unpack(fd, reader.codec.native, blocks, place, out) is not None
                times.append(time.process_time())
                for stage, seconds in zip(now, np.diff(times), strict=True):
                    now[stage] += seconds / len(numbers)
            rounds.append(now)
        best = {stage: min(now[stage] for now in rounds) for stage in rounds[0]}
        spent["read"] += best["read"]
        spent["crc32"] += best["crc32"]
        spent[decode] = best["all"] - best["read"] - best["crc32"]
    return spent


def files_of(path: Path) -> list[Path]:
    """A file, or all files in a folder."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def evict(path: Path) -> None:
    """Ask the system to forget what it holds of files in memory (Linux)."""
    os.sync()
    for file in files_of(path):
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every case; returns what is written as JSON."""
    paths = make_data(arguments.data, arguments.cells, arguments.genes, arguments.chunk_size)
    store = paths["root"] / "annbatch.zarr"
    peers, names = None, []
    if arguments.peer_python is None or not arguments.peer_python.exists():
        print(f"!! peers are skipped: --peer-python={arguments.peer_python} is no interpreter", file=sys.stderr)
    else:
        peers, names = Peers(arguments.peer_python), ["annbatch", "scdataset", "annloader", "h5py"]
        if not store.exists():
            print("making annbatch's store", file=sys.stderr)
            answer = peers.ask(do="prepare", h5ad=str(paths["h5ad"]), store=str(store))
            if "error" in answer:
                sys.exit(answer["error"])
    lines = [case for case in cases(names) if arguments.only is None or re.search(arguments.only, case.name)]
    results: dict[str, list[dict[str, float]]] = {case.name: [] for case in lines}

    def once(case: Case) -> dict[str, float]:
        if case.cold:
            evict(paths[case.compression] if case.who == "ours" else store if case.who == "annbatch" else paths["h5ad"])
        if case.who in ("ours", "ram", "copy"):
            return measure_ours(case, paths, arguments.batch_size)
        assert peers is not None
        return peers.ask(
            do="measure", loader=case.who, h5ad=str(paths["h5ad"]), store=str(store), dense=case.x_format == "dense",
            batch_size=arguments.batch_size, seconds=TIME_LIMIT,
        )  # fmt: skip

    for repeat in range(arguments.repeats + 1):
        shift = repeat % len(lines)
        for case in lines[shift:] + lines[:shift]:
            if repeat > 1 and case.who in ("scdataset", "annloader", "h5py"):
                continue  # once to warm up, once to measure: their distance is larger than any noise
            answer = once(case)
            if "error" in answer:
                print(f"!! {case.name}: {answer['error']}", file=sys.stderr)
            elif repeat > 0:  # the first round compiles and warms the page cache
                results[case.name].append(answer)
        print(f"repeat {repeat} of {arguments.repeats} done", file=sys.stderr)
    if peers is not None:
        peers.close()
    bytes_on_disk = {
        "ours gzip": size_of(paths["gzip"]),
        "ours lz4": size_of(paths["lz4"]),
        "h5ad": size_of(paths["h5ad"]),
    }
    if names:
        bytes_on_disk["annbatch"] = size_of(store)
    settings = {key: str(value) for key, value in vars(arguments).items() if key not in ("data", "peer_python")}
    return {
        "settings": settings, "bytes": bytes_on_disk, "results": results, "stages": stages(paths),
        "root": str(paths["root"]),
    }  # fmt: skip


def median(runs: list[dict[str, float]], key: str) -> float:
    """Median over repeats; NaN where nothing was measured."""
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if values else float("nan")


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    results = report["results"]
    keys = "cells_per_second", "next_cells_per_second", "cells_per_cpu_second"
    reference, reference_next, per_cpu = (median(results.get("annbatch csr", []), key) for key in keys)
    rows = [
        "| loader | cells/s | quartiles | × annbatch CSR | next epoch | × annbatch CSR | cells/CPU s | × annbatch CSR "
        "| first batch s | RSS MB | entropy bits |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in results.items():
        if not runs:
            continue
        rates = sorted(run["cells_per_second"] for run in runs)
        low, high = np.percentile(rates, [25, 75])
        rate, following, worked = (median(runs, key) for key in keys)
        rows.append(
            f"| {name} | {rate:,.0f} | {low:,.0f}–{high:,.0f} | {rate / reference:.2f} "
            f"| {following:,.0f} | {following / reference_next:.2f} "
            f"| {worked:,.0f} | {worked / per_cpu:.2f} "
            f"| {median(runs, 'first_batch_seconds'):.2f} | {median(runs, 'rss_bytes') / 1e6:,.0f} "
            f"| {median(runs, 'entropy_bits'):.3f} |"
        )
    spent = [
        f"{codec}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in by_stage.items())
        for codec, by_stage in report["stages"].items()
    ]
    sizes = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in report["bytes"].items())
    lines = ["\n".join(rows).replace("nan", "–"), f"MB on disk: {sizes}", "µs of one core per cell, by stage"]
    return "\n\n".join([*lines, *spent])


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of the medians, with the range of the repeats."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    named = [(name, [run["cells_per_second"] for run in runs]) for name, runs in report["results"].items() if runs]
    rates = [statistics.median(values) for _, values in named]
    colours = ["#c44e52" if name.split()[0] in ("annbatch", "scdataset", "annloader", "h5py") else
               "#8c8c8c" if name.startswith(("in-RAM", "copy")) else "#4c72b0" for name, _ in named]  # fmt: skip
    spread = [[rate - min(v) for rate, (_, v) in zip(rates, named, strict=True)],
              [max(v) - rate for rate, (_, v) in zip(rates, named, strict=True)]]  # fmt: skip
    figure, axis = plt.subplots(figsize=(8, 0.28 * len(named) + 1.2), layout="constrained")
    axis.barh(range(len(named)), rates, xerr=spread, color=colours, error_kw={"lw": 0.8, "ecolor": "#333333"})
    axis.set_yticks(range(len(named)), [name for name, _ in named], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("cells per second (log scale); blue: this loader, red: others, grey: copying from RAM only")
    axis.grid(axis="x", which="both", alpha=0.25)
    for place, (rate, (_, values)) in enumerate(zip(rates, named, strict=True)):
        axis.annotate(
            f"{rate:,.0f}", (max(values), place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7
        )
    axis.margins(y=0.01)
    axis.set_xlim(right=3 * max(max(values) for _, values in named))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("outputs/benchmark"), help="folder that keeps the data")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--chunk-size", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--peer-python", type=Path, default=None, help="interpreter that has annbatch and zarrs")
    parser.add_argument("--only", default=None, help="cases whose name matches this regular expression")
    arguments = parser.parse_args()
    report = run(arguments)
    root = Path(report.pop("root"))
    (root / "loading.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, root / "loading.png")
    print(table(report))
    print(f"\nwritten: {root / 'loading.json'}, {root / 'loading.png'}")


if __name__ == "__main__":
    main()
