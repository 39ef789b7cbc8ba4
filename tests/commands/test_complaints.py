"""Each way a command line can be wrong becomes one line that names the setting."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from scvae_data.commands.complaints import one_line
from scvae_data.config import conf_dir

KEYS = ("chunk_size", "qc.min_genes", "paths.processed_dir")


def complaint(*overrides: str) -> str:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("process", list(overrides))
    return one_line(caught.value, KEYS)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("chunk_size=25k", "chunk_size=25k: Value '25k' of type 'str' could not be converted to Integer"),
        ("overwrite=maybe", "overwrite=maybe: Value 'maybe' is not a valid bool (type str)"),
        ("chunk_sise=3", "chunk_sise is not a setting; did you mean chunk_size?"),
        ("qc.min_gene=3", "qc.min_gene is not a setting; did you mean qc.min_genes?"),
        ("input.paths=a.h5ad", "input.paths belongs to input=dataset or files; add one of them"),
        ("input.manifest=a.csv", "input.manifest belongs to input=manifest; add input=manifest"),
        ("zzz=3", "zzz is not a setting; --cfg job prints them all"),
        ("qc=lax", "qc=lax: no such option; available: default, mad, none, strict"),
        (
            "hydra/launcher=absent",
            "hydra/launcher=absent: no such option here; for launchers and search pip install 'scvae-",
        ),
        ("seed", "'seed' is not of the form key=value; values with brackets, commas, braces or '=' need quotes inside"),
        ("input.paths=data/[1].h5ad", "'input.paths=data/[1].h5ad' is not of the form key=value;"),
    ],
)
def test_one_line(override: str, expected: str) -> None:
    line = complaint(override)
    assert line.startswith(expected)
    assert "\n" not in line


def test_an_error_without_text_keeps_its_name() -> None:
    assert one_line(HydraException("")) == "HydraException"
