"""Records of several generations are joined without losing what one of them tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scvae_data.processing.finished import joined
from scvae_data.processing.finished.joined import joined_command, joined_summary, write_joined


def summary(files: list[str], genes: dict[str, int], **more: Any) -> dict[str, Any]:
    """A summary in which each file lost as many cells to a rule as its place, and genes have as many counts as said."""
    return {
        "attrition": {"source_file": files, "slot": ["X"] * len(files), "lost": {"zero": list(range(len(files)))}},
        "dropped_genes": {
            "gene": list(genes), "symbol": [gene.lower() for gene in genes],
            "n_cells": [1] * len(genes), "total_counts": list(genes.values()),
        },
        "gene_mapping": {"source_file": files, "n_features": [len(file) for file in files]},
        "genes_classed": {"by_symbol": len(genes)},
    } | more  # fmt: skip


def test_what_is_told_of_files_and_genes_is_joined() -> None:
    first = summary(
        ["d", "b"], {"G2": 5}, outlier_bounds={"source_file": ["b"], "upper": [3]}, gene_synonyms={"s": "1"}
    )
    later = summary(["c", "a"], {"G1": 7, "G2": 1}, gene_synonyms={"s": "2", "t": "3"}, n_obs=4)
    later["attrition"]["lost"] = {"other": [8, 9]}
    made = joined_summary([first, later])
    assert made["attrition"]["source_file"] == made["gene_mapping"]["source_file"] == ["a", "b", "c", "d"]
    assert made["attrition"]["lost"] == {"zero": [0, 1, 0, 0], "other": [9, 0, 8, 0]}
    assert made["outlier_bounds"] == {"source_file": ["b"], "upper": [3]}
    assert made["dropped_genes"] == {
        "gene": ["G1", "G2"], "symbol": ["g1", "g2"], "n_cells": [1, 2], "total_counts": [7, 6],
    }  # fmt: skip
    assert made["gene_synonyms"] == {"s": "1", "t": "3"}
    alone = [{"genes_classed": {"by_symbol": 1}}, {"n_obs": 4, "genes_classed": {"by_symbol": 2}}]
    assert made["generations"] == alone
    assert joined_summary([made, first])["generations"] == [*alone, alone[0]]
    assert joined_summary([summary([], {}), summary([], {})])["dropped_genes"]["gene"] == []


@pytest.mark.parametrize("size", [1, 2, 100])
def test_dropped_cells_are_those_of_one_table(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "ROW_GROUP", size)
    monkeypatch.setattr("scvae_data.processing.write.dropped.ROW_GROUP", size)
    parts = [pd.DataFrame({"source_file": list("aaccce"), "row": range(6)})]
    parts += [
        pd.DataFrame({"source_file": list("bddd"), "row": range(4)}),
        pd.DataFrame({"source_file": ["f"], "row": 0}),
    ]
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for part, path in zip(parts, paths, strict=True):
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), path, row_group_size=2)
    facts = write_joined([pq.ParquetFile(path) for path in paths], tmp_path / "dropped_cells.parquet", None)
    found = pd.read_parquet(tmp_path / "dropped_cells.parquet")
    wanted = pd.concat(parts).sort_values("source_file", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(found, wanted)
    assert facts["n_obs"] == 11 and facts["bytes"] == (tmp_path / "dropped_cells.parquet").stat().st_size


def record(directory: str, *overrides: str, **inputs: Any) -> dict[str, Any]:
    return {"command": {"overrides": [*overrides], "directory": directory}, "config": {"input": inputs}}


def test_the_paths_of_all_commands_are_joined() -> None:
    first = record(
        "/lab", "input=files", "input.paths=raw/*", "genes=hvg", "genes.n_top_genes=9", "qc=none", paths="raw/*"
    )
    same = record("/lab", "append=true", "input=files", "input.paths=[a,raw/*]", paths=["a", "raw/*"])
    away = record("/other", "append=true", "input=files", "input.paths=b", paths="b")
    found = joined_command([first, same, away])
    assert found == {"directory": "/lab", "overrides": ["input=files", "qc=none", "input.paths=[raw/*,a,/other/b]"]}
    manifest = record("/lab", "input=manifest", manifest="m.csv")
    assert (joined_command([first, manifest]) or {})["overrides"] == ["input=files", "qc=none", "input.paths=…"]
    assert joined_command([first, {"command": None, "config": {}}]) is None
