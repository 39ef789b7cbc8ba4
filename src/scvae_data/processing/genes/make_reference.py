"""Tables of genes as their makers give them in, the reference that the package ships out.

    python -m scvae_data.processing.genes.make_reference SOURCE_DIR [TARGET]

``SOURCE_DIR`` holds ``genes_SPECIES.csv.gz`` (id, symbol, version, length,
biotype; no header) and ``hgnc_*.tsv.gz``; docs/genes.md says where they are
from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from scvae_data.processing.genes.reference import BUILTIN, COLUMNS, JOINED_BY
from scvae_data.processing.settings.genes import common_name

__all__ = ["make_reference"]

# Ensembl's names of mitochondrial genes in species whose symbols have no prefix.
BARE_MITOCHONDRIAL = {"ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6", "COX1", "COX2", "COX3", "ATP6", "ATP8", "CYTB"}


def make_reference(source: Path) -> pd.DataFrame:
    """Return the reference, a row for each gene, in order of ids."""
    parts = [read_species(path) for path in sorted(source.glob("genes_*.csv.gz"))]
    table = pd.concat(parts).drop_duplicates("id").set_index("id")
    human = read_hgnc(next(source.glob("hgnc_*.tsv.gz")), table[table["species"] == "human"])
    table = table.join(human)
    for column in ("previous", "aliases", "entrez"):
        table[column] = table[column].fillna("")
    table["primary"] = table["primary"].eq(True)
    return table.reset_index().sort_values("id", ignore_index=True)[[*COLUMNS]]


def read_species(path: Path) -> pd.DataFrame:
    """Read one species; a symbol that only repeats the id is none."""
    names = ["id", "symbol", "version", "length", "biotype"]
    table = pd.read_csv(path, header=None, names=names, dtype=str, keep_default_na=False)
    name = path.name.removeprefix("genes_").removesuffix(".csv.gz")
    table["species"] = common_name(name)
    table["symbol"] = table["symbol"].str.removesuffix(" (spike-in control)").where(lambda s: s != table["id"], "")
    upper = table["symbol"].str.upper()
    bare = upper.isin(BARE_MITOCHONDRIAL) & (table["biotype"] == "protein_coding")
    table["mitochondrial"] = upper.str.startswith(("MT-", "MT:")) | bare
    return table[["id", "symbol", "species", "mitochondrial"]]


def read_hgnc(path: Path, genes: pd.DataFrame) -> pd.DataFrame:
    """Return older symbols, aliases, of which HGNC's own id is one, and Entrez ids of human genes by their current id.

    HGNC's own id of a gene stays when its symbol changes; the Ensembl id that
    it names joins the two. Where that id is retired, a symbol that names
    exactly one gene today does.
    """
    hgnc = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    unique = genes["symbol"][genes["symbol"] != ""].drop_duplicates(keep=False)
    by_symbol = pd.Series(unique.index, unique.to_numpy())
    known = hgnc["ensembl_gene_id"].isin(genes.index)
    hgnc["id"] = hgnc["ensembl_gene_id"].where(known, hgnc["symbol"].map(by_symbol))
    hgnc = hgnc.dropna(subset=["id"]).assign(known=known).sort_values("known", ascending=False, kind="stable")
    hgnc = hgnc.drop_duplicates("id").set_index("id")
    current = genes["symbol"].reindex(hgnc.index)
    older = hgnc["symbol"].where(hgnc["symbol"] != current, "")
    previous = older.str.cat(hgnc["prev_symbol"], sep=JOINED_BY).map(tidy)
    return pd.DataFrame(
        {
            "previous": previous,
            "aliases": hgnc["alias_symbol"].str.cat(hgnc["hgnc_id"], sep=JOINED_BY).map(tidy),
            "entrez": hgnc["entrez_id"],
            "primary": True,
        }
    )


def tidy(text: str) -> str:
    """Return a list joined by bars without blanks and repeats."""
    return JOINED_BY.join(dict.fromkeys(part.strip() for part in text.split(JOINED_BY) if part.strip()))


def main(source: str, target: str = str(BUILTIN)) -> None:
    """Write the reference."""
    table = make_reference(Path(source))
    table.to_parquet(target, compression="zstd", compression_level=19, index=False)
    print(f"{target}: {len(table):,} genes of {table['species'].nunique()} species")


if __name__ == "__main__":
    main(*sys.argv[1:])
