"""Facts and metrics of a run in, a page in Markdown out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvae_data.training.scores import SCORES

__all__ = ["next_lines", "report"]

SCORES_EXPLAINED = (
    "Separation of cell types and mixing of batches in the latents: average silhouette widths as scIB scales them, "
    "0 to 1, higher is better.\n"
)


def report(
    config: Mapping[str, Any], facts: Mapping[str, Any], metrics: Mapping[str, Any], made: Mapping[str, Path]
) -> str:
    """A short page: what was trained on what, how well and how fast, which files there are, how to go on."""
    title = f"{config['model'].get('likelihood', 'model')}, {facts['n_obs']:,} cells × {facts['n_vars']:,} genes"
    parts = [
        f"# {title}",
        "Simulated demo data.\n" if facts.get("simulated") else "",
        _table("dataset", facts),
        _table("result", metrics),
        *([SCORES_EXPLAINED] if any(name in metrics for name in SCORES) else []),
        "## Files\n",
        *(f"- {name}: `{path.name}`" for name, path in made.items()),
        "- configuration: `config.yaml`",
        "- checkpoints: `checkpoints/`",
        "",
    ]
    if "latents" in made:
        parts += ["## Go on in scanpy\n", "```python", *next_lines(made["latents"]), "```", ""]
    if "latent picture" in made:
        parts += [f"![latents]({made['latent picture'].name})", ""]
    return "\n".join(part for part in parts if part or part == "")


def next_lines(latents: Path) -> list[str]:
    """Python that continues from the latents."""
    return [
        f'import scanpy as sc; adata = sc.read_h5ad("{latents}")',
        'sc.pp.neighbors(adata, use_rep="X_scvae")',
        'sc.tl.leiden(adata, flavor="igraph", n_iterations=2); sc.tl.umap(adata)',
    ]


def _table(title: str, values: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {_shown(value)} |" for name, value in values.items() if not isinstance(value, (dict, list))]
    return "\n".join([f"## {title.capitalize()}\n", "| | |", "|---|---|", *rows, ""])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
