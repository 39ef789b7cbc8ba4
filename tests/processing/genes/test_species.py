"""Of which species tables and their rows are: by ids, genomes and symbols; a few strange genes are no species."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.compute as pc
import pytest

from scvae_data.processing.genes.names import CleanTable, clean_table
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.genes.species import OTHER, UNTOLD, WANTED, judge, row_codes, told_species
from scvae_data.processing.settings.genes import common_name
from scvae_data.readers.base import GeneTable

HUMAN = ["TP53", "ACTB", "GAPDH", "MT-ND1", "CD3D"]
MOUSE = ["Trp53", "Actb", "Gapdh", "mt-Nd1", "Cd3d"]
HUMAN_IDS = [f"ENSG00000{n}" for n in (141510, 111640, 111641, 198888, 167286)]
MOUSE_IDS = [f"ENSMUSG000000{n}" for n in (59552, 29580, 57666, 64341, 32094)]
FLY, WORM = ["FBgn0000042", "FBgn0000043"], ["WBGene00000063", "WBGene00000064"]


def table(symbols: Sequence[str], ids: Sequence[str] | None = None) -> CleanTable:
    names = np.array(symbols, object)
    return clean_table(GeneTable(names, None if ids is None else np.array(ids, object), names))


def prefixed(prefix: str, names: Sequence[str]) -> list[str]:
    return [prefix + name for name in names]


IDS = np.array([*HUMAN_IDS, *MOUSE_IDS], object)
BARNYARDS = {
    "prefixes": table([*prefixed("GRCh38_", HUMAN), *prefixed("mm10___", MOUSE)]),
    "years": table([*prefixed("hg19_", HUMAN), *prefixed("GRCm39-", MOUSE)]),
    "dots": table([*prefixed("hg19.", HUMAN), *prefixed("mm10.", MOUSE)]),
    "colons": table([*prefixed("GRCh38:", HUMAN), *prefixed("mm10:", MOUSE)]),
    "species alone": table([*prefixed("hg_", HUMAN), *prefixed("mm_", MOUSE)]),
    "nuclei": table([*prefixed("GRCh38_premrna_", HUMAN), *prefixed("mm10_premrna_", MOUSE)]),
    "letters": table([*prefixed("H_", HUMAN), *prefixed("M_", MOUSE)]),
    "two letters": table([*prefixed("hs_", HUMAN), *prefixed("mm_", MOUSE)]),
    "three letters": table([*prefixed("hsa-", HUMAN), *prefixed("mmu-", MOUSE)]),
    "Latin names": table([*prefixed("Homo_sapiens_", HUMAN), *prefixed("Mus_musculus_", MOUSE)]),
    "names and dots": table([*prefixed("Hs.", HUMAN), *prefixed("Mm.", MOUSE)]),
    "releases": table([*prefixed("refdata-gex-GRCh38-2020-A_", HUMAN), *prefixed("refdata-gex-mm10-2020-A_", MOUSE)]),
    "one prefix": table([*HUMAN, *prefixed("mm10_", MOUSE)]),
    "few of the other": table([*HUMAN * 3, *prefixed("mm10_", MOUSE)]),
    "ids": table([*HUMAN, *MOUSE], [*HUMAN_IDS, *MOUSE_IDS]),
    "prefixed ids": table([*HUMAN, *MOUSE], [*prefixed("GRCh38_", HUMAN_IDS), *prefixed("mm10_", MOUSE_IDS)]),
    "ids alone": clean_table(GeneTable(IDS, IDS, None)),
    "symbols": table([*HUMAN, *MOUSE]),
    "mouse first": table([*MOUSE, *HUMAN]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BARNYARDS))
def test_barnyards_are_of_both(name: str) -> None:
    genes, reference = BARNYARDS[name], load_reference("builtin")
    species = told_species(genes, reference)
    assert species == ("human", "mouse")
    is_mouse = np.array([text.endswith((*MOUSE, *MOUSE_IDS)) for text in genes.names.names])
    assert row_codes(genes, species, "human", reference).tolist() == np.where(is_mouse, OTHER, WANTED).tolist()
    assert row_codes(genes, species, "mouse", reference).tolist() == np.where(is_mouse, WANTED, OTHER).tolist()


@pytest.mark.parametrize(
    ("genes", "species"),
    [
        (table(HUMAN * 40, HUMAN_IDS * 40), ("human",)),
        (table([*HUMAN * 40, "ERCC-00002", "ERCC-00003"], [*HUMAN_IDS * 40, "ERCC-00002", "ERCC-00003"]), ("human",)),
        (table(["S", "N", *HUMAN], ["ENSSASG00005000004", "ENSSASG00005000005", *HUMAN_IDS]), ("human",)),
        (table([*HUMAN * 40, "Trp53", "Cre"], [*HUMAN_IDS * 40, MOUSE_IDS[0], "Cre"]), ("human",)),
        (table([*HUMAN, "GFP", "mCherry"]), ("human",)),
        (table([*HUMAN, *HUMAN[:2], "MT-CO1", "MT-CO2", "MT-ND2", "MT-CO3", "MT-CYB", "mt-Keima"]), ("human",)),
        (table(["Act5C", "nan"], FLY), ("drosophila_melanogaster",)),
        (table(["act-1", "act-2"], WORM), ("caenorhabditis_elegans",)),
        (table(["tp53", "actb1", "gapdhs", "mt-nd1", "hbaa1", "mpx", "krt4", "cd4-1"]), ("zebrafish",)),
        (table(["tp53", "actb1", "gapdhs", "MT-ND1", "hbaa1", "mpx", "krt4", "cd4-1"]), ("zebrafish",)),
        (table([*map(str.lower, HUMAN)]), ("human",)),
        (table([*map(str.lower, MOUSE)]), ("mouse",)),
        (table([f"{name}_hg38" for name in HUMAN]), ("human",)),
        (table([*HUMAN, "hsa-mir-21", "hsa-mir-1", "hsa-let-7a-1"]), ("human",)),
        (table(["g1", "g2"]), ()),
        (table(["RN7SK", "HG-1", "RAT-2", "MM-3", "TP53", "ACTB", "CD4"]), ()),
    ],
)
def test_a_few_strange_genes_are_no_species(genes: CleanTable, species: tuple[str, ...]) -> None:
    assert told_species(genes, load_reference("builtin")) == species


def test_strange_genes_of_a_barnyard_are_of_no_species() -> None:
    genes = table([*prefixed("GRCh38_", HUMAN), *prefixed("mm10_", MOUSE), "GFP", "ERCC-00002"])
    codes = row_codes(genes, ("human", "mouse"), "human", load_reference("builtin"))
    assert codes.tolist() == [WANTED] * 5 + [OTHER] * 5 + [UNTOLD] * 2


def test_a_table_that_tells_nothing_is_of_the_only_species_or_of_the_one_that_knows_it() -> None:
    tables = {"ids": table(MOUSE, MOUSE_IDS), "symbols": table(["g1", "g2"]), "known": table(["TP53", "ACTB"])}
    reference = load_reference("builtin")
    assert judge(["ids", "symbols"], tables.__getitem__, reference)["symbols"] == ("mouse",)
    assert judge(["symbols", "known"], tables.__getitem__, reference) == {"symbols": (), "known": ("human",)}


def test_genomes_behind_names_tell_species_and_rows() -> None:
    genes, reference = (
        table([f"{name}_GRCh38" for name in HUMAN] + [f"{name}-mm10" for name in MOUSE]),
        load_reference("builtin"),
    )
    assert told_species(genes, reference) == ("human", "mouse")
    assert row_codes(genes, ("human", "mouse"), "human", reference).tolist() == [WANTED] * 5 + [OTHER] * 5


@pytest.mark.parametrize("text", ["human", "Homo sapiens", "homo_sapiens", " HOMO  SAPIENS "])
def test_a_species_has_one_name(text: str) -> None:
    assert common_name(text) == "human"


def genes_of(species: str) -> list[str]:
    """Every eighth symbol of a species today."""
    rows = load_reference("builtin").table.filter(pc.equal(load_reference("builtin").table["species"], species))
    return sorted({*rows["symbol"].to_pylist()} - {""})[::8]


NEAR = ("pan_troglodytes", "gorilla_gorilla", "macaque", "marmoset", "oryctolagus_cuniculus", "pig", "rat")


@pytest.mark.parametrize("species", [*NEAR, "human", "mouse", "zebrafish", "drosophila_melanogaster"])
@pytest.mark.parametrize("beside", [(), ("human",), ("mouse",)])
def test_symbols_of_its_own_tell_a_species_from_one_that_has_nearly_all(species: str, beside: Sequence[str]) -> None:
    ids = {"human": table(HUMAN, HUMAN_IDS), "mouse": table(MOUSE, MOUSE_IDS)}
    tables = {"symbols": table(genes_of(species)), **{name: ids[name] for name in beside}}
    assert judge(list(tables), tables.__getitem__, load_reference("builtin"))["symbols"] == (species,)


@pytest.mark.parametrize("species", ["human", "mouse"])
@pytest.mark.parametrize("write", [str.upper, str.lower, str.title, str.capitalize])
def test_case_tells_no_species(species: str, write: Callable[[str], str]) -> None:
    proteins = [name for name in genes_of(species) if name.isalnum() and not name.startswith(("Gm", "LINC"))]
    tables = {"symbols": table([*map(write, proteins)]), "mouse": table(MOUSE, MOUSE_IDS)}
    assert judge(list(tables), tables.__getitem__, load_reference("builtin"))["symbols"] == (species,)


def test_symbols_that_two_species_have_are_taken_for_human() -> None:
    both = sorted({*genes_of("macaque")} & {*genes_of("human")})
    assert len(both) > 100
    assert judge(["a"], {"a": table(both)}.__getitem__, load_reference("builtin"))["a"] == ("human",)
