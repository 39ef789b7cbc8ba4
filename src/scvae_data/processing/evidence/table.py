"""What all stages know of the experiments in; ``experiments.parquet``, a row for each, and a short account out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.processing.decide.duplicates import DUPLICATE_RULE
from scvae_data.processing.decide.stage import LATE_RULE, WritePlan
from scvae_data.processing.engine.task import Task
from scvae_data.processing.evidence.alike import LEAST_SHARE, Alike, alike_by_barcodes, alike_by_counts
from scvae_data.processing.evidence.flags import REMEDIES, add_outliers, flags_of, remedy_of
from scvae_data.processing.evidence.kept import KeptFacts, kept_facts
from scvae_data.processing.facts import FileScan
from scvae_data.processing.run.context import Context
from scvae_data.processing.scan.chemistry import TENX
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.features import dropped_features
from scvae_data.store.files import write_atomic

__all__ = ["EXPERIMENTS_FILE", "experiment_tasks", "write_experiments"]

EXPERIMENTS_FILE = "experiments.parquet"
MOST_NAMED = 3
MULTIOME = "10x Multiome (16 nt)"
TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
FIRST = {
    "source_file": TEXT, "srx_accession": TEXT, "gene_table": TEXT, "format": TEXT, "slot": TEXT,
    "species": TEXT, "chemistry": TEXT, "n_obs": WHOLE, "n_kept": WHOLE,
}  # fmt: skip
LATER = {
    "median_counts": NUMBER, "median_genes": NUMBER, "median_pct_counts_mt": NUMBER, "share_in_columns": NUMBER,
    "share_known": NUMBER, "n_features": WHOLE, "n_not_genes": WHOLE, "other_features": TEXT,
    "knee": WHOLE, "inflection": WHOLE, "n_above_knee": WHOLE, "n_above_inflection": WHOLE, "share_far_below": NUMBER,
    "share_one_umi": NUMBER, "raw_droplets": pa.bool_(), "ambient_share": NUMBER,
    "doublet_rate": NUMBER, "doublet_threshold": NUMBER, "near_duplicate_of": TEXT, "near_duplicate_share": NUMBER,
    "z_counts": NUMBER, "z_genes": NUMBER, "z_mt": NUMBER, "z_in_columns": NUMBER, "flags": pa.list_(TEXT),
}  # fmt: skip

JUDGED_BY = ("counts_spread",)
"""What flags look at beside the columns."""


def scans_of_experiments(plan: WritePlan) -> list[FileScan]:
    """Return the scans of files that tell of experiments: chunks know nothing of theirs."""
    return [scan for scan in plan.compared.scans if scan.experiments]


def experiment_tasks(work: WorkFolder, plan: WritePlan) -> list[Task]:
    """Return the look at the kept cells of each file as a task."""
    return [Task(kept_facts, (work, scan)) for scan in scans_of_experiments(plan)]


def write_experiments(context: Context, plan: WritePlan, kept: Sequence[Sequence[KeptFacts]]) -> dict[str, Any]:
    """Write ``experiments.parquet``, not synced; return its name, size, checksum, and how many experiments are flagged.

    Parameters
    ----------
    kept
        What the tasks of `experiment_tasks` found.
    """
    scans = scans_of_experiments(plan)
    others = {scan.number: dropped_features(plan.surveyed.files[scan.number].notes) for scan in scans}
    rows = [row for scan, of_file in zip(scans, kept, strict=True) for row in rows_of(plan, scan, of_file, others)]
    add_duplicates(rows, [facts for of_file in kept for facts in of_file], plan.compared.account["pairs"])
    rules = [rule for scan in plan.compared.scans for rule in scan.lost]
    lost = {f"lost_{rule}": WHOLE for rule in dict.fromkeys([*rules, DUPLICATE_RULE, LATE_RULE])}
    schema = pa.schema(list((FIRST | lost | LATER).items()))
    measured = [name for name in schema.names if name != "flags"]
    table = add_outliers(pd.DataFrame(rows, columns=[*measured, *JUDGED_BY]))
    flags = flags_of(table)
    sink = pa.BufferOutputStream()
    whole = table.assign(flags=pd.Series(flags, table.index, dtype=object))
    pq.write_table(pa.Table.from_pandas(whole, schema, preserve_index=False), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomic(context.directory / EXPERIMENTS_FILE, content, synced=False)
    facts = {"file": EXPERIMENTS_FILE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return facts | account_of(table, flags, context.settings.qc.min_counts)


def rows_of(
    plan: WritePlan, scan: FileScan, kept: Sequence[KeptFacts], others: Mapping[int, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Return the row of each experiment of a file, without what other experiments say of it."""
    file, dropped = plan.surveyed.files[scan.number], others[scan.number]
    match, matched = plan.surveyed.universe.matches[scan.table], plan.decided.account.files
    unknown = matched["umi_unmatched"][matched["source_file"].index(scan.source_file)]
    of_file = {
        "source_file": scan.source_file,
        "gene_table": scan.table,
        "format": file.format,
        "slot": scan.slot,
        "species": ", ".join(next(slot.species for slot in file.slots if slot.name == scan.slot)) or None,
        "share_known": None if unknown is None else 1 - unknown,
        "n_features": match.n_features + sum(dropped.values()),
        "n_not_genes": match.left_out + sum(dropped.values()),
        "other_features": ", ".join(f"{kind} ({n})" for kind, n in sorted(dropped.items())) or None,
    }
    found = [
        of_file | of_experiment(scanned, facts.facts) for scanned, facts in zip(scan.experiments, kept, strict=True)
    ]
    for row in found:
        if row["chemistry"] == TENX and "Peaks" in dropped:
            row["chemistry"] = MULTIOME
    return found


def of_experiment(scanned: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Bring together what the scan and the kept cells say of an experiment."""
    lost = dict(scanned["lost"]) | {DUPLICATE_RULE: kept["n_copies"], LATE_RULE: kept["n_late"]}
    share, umis, left_out = kept["share_in_columns"], scanned["umis"], scanned["umis_left_out"]
    n_scored = scanned.get("n_scored")
    return {
        **scanned,
        **kept,
        **{f"lost_{rule}": n for rule, n in lost.items()},
        "srx_accession": scanned["accession"],
        # Rows that are no gene of any directory are known from the scan alone.
        "share_in_columns": None if share is None else share * (umis / (umis + left_out) if umis else 1.0),
        "doublet_rate": scanned["n_predicted"] / n_scored if n_scored else None,
    }


def add_duplicates(rows: list[dict[str, Any]], kept: Sequence[KeptFacts], pairs: Mapping[str, Sequence[Any]]) -> None:
    """Name in each row the experiment that it is nearly the same as, the one with the most cells in common."""
    found = [
        *equal_files(rows, pairs),
        *alike_by_counts([facts.by_counts for facts in kept]),
        *alike_by_barcodes([facts.by_barcodes for facts in kept]),
    ]
    for one in sorted(found, key=lambda one: (one.share, -one.first)):  # the last one said stays
        first = rows[one.first]
        rows[one.other]["near_duplicate_of"] = f"{first['srx_accession']} ({first['source_file']})"
        rows[one.other]["near_duplicate_share"] = one.share


def equal_files(rows: Sequence[Mapping[str, Any]], pairs: Mapping[str, Sequence[Any]]) -> list[Alike]:
    """Return files of one experiment most of whose cells equal those of another, which may have many more."""
    times = Counter(row["source_file"] for row in rows)
    numbers = {row["source_file"]: number for number, row in enumerate(rows) if times[row["source_file"]] == 1}
    found = []
    for first, other, n in zip(pairs["first_file"], pairs["file"], pairs["n_copies"], strict=True):
        if first == other or first not in numbers or other not in numbers:
            continue
        ends = [numbers[first], numbers[other]]
        shares = [n / max(rows[end]["n_kept"] + rows[end]["n_copies"], 1) for end in ends]
        if shares[1] >= LEAST_SHARE:
            found.append(Alike(ends[1], ends[0], min(shares[1], 1.0)))
        elif shares[0] >= LEAST_SHARE:
            found.append(Alike(ends[0], ends[1], min(shares[0], 1.0)))
    return found


def account_of(table: pd.DataFrame, flags: Sequence[Sequence[str]], min_counts: float | None) -> dict[str, Any]:
    """Return how many experiments have each flag, in whichever of their files, and the worst rows.

    Worst are those with the most, and the worst, flags.
    """
    accessions = table["srx_accession"]
    distinct = {(accession, name) for accession, names in zip(accessions, flags, strict=True) for name in names}
    times = Counter(name for _, name in distinct)
    order = list(REMEDIES)
    flagged = [number for number, names in enumerate(flags) if names]
    flagged.sort(key=lambda number: (-len(flags[number]), [order.index(name) for name in flags[number]]))
    worst = table.iloc[flagged[:MOST_NAMED]]
    return {
        "n": int(accessions.nunique()),
        "n_flagged": int(accessions.iloc[flagged].nunique()),
        "flags": {name: times[name] for name in order if times[name]},
        "worst": [
            {
                "srx_accession": row["srx_accession"],
                "source_file": row["source_file"],
                "flags": {name: remedy_of(name, float(row["inflection"]), min_counts) for name in flags[number]},
            }
            for number, row in zip(flagged, worst.to_dict("records"), strict=False)
        ],
    }
