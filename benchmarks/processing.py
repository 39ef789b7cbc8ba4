"""Processing raw files into a training-ready directory: ours, scanpy in memory, and annbatch, in one run.

All start from the same simulated H5AD files. scanpy does the same job in
memory: read, concatenate, QC, filter, normalise, shuffle, write gzip H5AD.
annbatch only shuffles and writes its store. Rounds are interleaved; the
figures are medians of whole processes, imports included, and the peak memory
of the whole process tree.

    python benchmarks/processing.py --annbatch-python PATH        # 4 × 25,000 cells × 20,000 genes
    python benchmarks/processing.py --cells 2000 --rounds 1       # a quick look

annbatch needs Python 3.12: make a virtual environment with
``pip install "annbatch[zarrs]" zarrs`` and give its interpreter.
"""

from __future__ import annotations

import argparse
import compileall
import json
import shutil
import statistics
import sys
from pathlib import Path

from tree import Measured, measure

ROOT = Path(__file__).resolve().parents[1]

SCANPY = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import anndata as ad, numpy as np, scanpy as sc
files = [sc.read_h5ad(path) for path in sorted(Path(sys.argv[1]).glob("*.h5ad"))]
adata = ad.concat(files, join="outer", index_unique="-")
del files
symbols = adata.var_names
adata.var["mt"] = symbols.str.startswith("MT-")
sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], percent_top=(50,), inplace=True)
obs = adata.obs
adata = adata[(obs.n_genes_by_counts >= 200) & (obs.total_counts >= 500) & ~(obs.pct_counts_mt > 20)].copy()
sc.pp.filter_genes(adata, min_cells=3)
adata.layers["counts"] = adata.X.copy()
sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
adata = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
adata.write_h5ad(Path(sys.argv[2], "out.h5ad"), compression="gzip")
"""

ANNBATCH = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import annbatch, zarr
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
paths = sorted(Path(sys.argv[1]).glob("*.h5ad"))
annbatch.DatasetCollection(str(Path(sys.argv[2], "store"))).add_adatas([str(path) for path in paths])
"""


def commands(raw: Path, out: Path, annbatch_python: str | None) -> dict[str, list[str]]:
    """Return the competing commands by name."""
    base = [sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}/*.h5ad"', "chunk_size=25000",
            f"paths.processed_dir={out}", f"hydra.run.dir={out}/log"]  # fmt: skip
    runs = {
        "ours, gzip": [*base, "engine=local"],
        "ours, lz4": [*base, "engine=local", "chunking=fast"],
        "ours, gzip, one process": base,
        "scanpy": [sys.executable, "-c", SCANPY, str(raw), str(out)],
    }
    if annbatch_python:
        runs["annbatch"] = [annbatch_python, "-c", ANNBATCH, str(raw), str(out)]
    return runs


def directory_bytes(folder: Path) -> int:
    """Return the size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Simulate, run the rounds, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=25_000, help="cells per file")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input-compression", choices=("gzip", "none"), default="none")
    parser.add_argument("--data", type=Path, default=Path("benchmark-data"), help="where files are made and left")
    parser.add_argument("--annbatch-python", help="interpreter of an environment with annbatch and zarrs")
    parser.add_argument("--only", nargs="*", help="names of the commands to run")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    from scvae_data.simulate import simulate_files

    compileall.compile_dir(ROOT / "src", quiet=1)  # as pip does where it installs the peers
    raw = arguments.data / f"{arguments.files}x{arguments.cells}x{arguments.genes}-{arguments.input_compression}"
    if not raw.exists():
        compression = "gzip" if arguments.input_compression == "gzip" else None
        simulate_files(
            raw, n_files=arguments.files, cells_per_file=arguments.cells, n_genes=arguments.genes, seed=1,
            compression=compression, shared_genes=1.0,
        )  # fmt: skip
    found: dict[str, list[Measured]] = {}
    sizes: dict[str, int] = {}
    out = arguments.data / "out"
    for _ in range(arguments.rounds):
        for name, command in commands(raw, out, arguments.annbatch_python).items():
            if arguments.only and name not in arguments.only:
                continue
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            found.setdefault(name, []).append(measure(command))
            sizes[name] = directory_bytes(out)
            print(f"  {name}: {found[name][-1].seconds:.1f} s", file=sys.stderr)
    shutil.rmtree(out, ignore_errors=True)
    medians = {name: statistics.median(run.seconds for run in runs) for name, runs in found.items()}
    n_cells = arguments.files * arguments.cells
    print(
        f"{n_cells:,} cells × {arguments.genes:,} genes, {arguments.input_compression} input, {arguments.rounds} rounds"
    )
    print(f"{'':26}{'s':>8}{'cells/s':>10}{'× scanpy':>10}{'× annbatch':>12}{'peak GB':>9}{'GB out':>8}")
    rows = {}
    for name, seconds in medians.items():
        peak = max(run.peak_rss for run in found[name])
        ratios = [medians[peer] / seconds if peer in medians else float("nan") for peer in ("scanpy", "annbatch")]
        rows[name] = {"seconds": [run.seconds for run in found[name]], "peak_rss": peak, "bytes": sizes[name]}
        print(
            f"{name:26}{seconds:8.1f}{n_cells / seconds:10,.0f}{ratios[0]:10.1f}{ratios[1]:12.1f}"
            f"{peak / 1e9:9.2f}{sizes[name] / 1e9:8.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"arguments": vars(arguments), "runs": rows}, default=str, indent=1))


if __name__ == "__main__":
    main()
