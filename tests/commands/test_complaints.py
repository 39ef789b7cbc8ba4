"""Each way a command line can be wrong becomes one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from yaml import YAMLError

from scvae_data.calling import Program
from scvae_data.commands.complaints import one_line
from scvae_data.config import conf_dir


def complaint(program: Program, *overrides: str) -> str:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose(program, list(overrides))
    return one_line(caught.value, program)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("chunk_size=25k", "chunk_size=25k: Value '25k' of type 'str' could not be converted to Integer"),
        ("overwrite=maybe", "overwrite=maybe: Value 'maybe' is not a valid bool (type str)"),
        ("chunk_sise=3", "chunk_sise is not a setting; did you mean chunk_size?"),
        ("qc.min_gene=3", "qc.min_gene is not a setting; did you mean qc.min_genes?"),
        ("input.paths=a.h5ad", "input.paths belongs to input=dataset or files; add one of them"),
        ("input.manifest=a.csv", "input.manifest belongs to input=manifest; add input=manifest"),
        ("zzz=3", "zzz is not a setting; scvae-data process --help has them all"),
        ("data.n_files=3", "data.n_files is not a setting; did you mean input.n_files?"),
        (
            "min_pct_counts_species=3",
            "min_pct_counts_species is not a setting; did you mean qc.min_pct_counts_species?",
        ),
        ("model=vae_nb", "model is of scvae-data train, not of scvae-data process; leave it out here"),
        ("model.n_latent=3", "model.n_latent is of scvae-data train, not of scvae-data process; leave it out here"),
        ("experiment=quick", "experiment=quick is of scvae-data train, not of scvae-data process; leave it out here"),
        ("qc=lax", "qc=lax: no such option; available: default, mad, none, strict"),
        (
            "hydra/launcher=absent",
            "hydra/launcher=absent: no such option here; for launchers and search pip install 'scvae-",
        ),
        ("seed", "'seed' is not of the form key=value; values with brackets, commas, braces, quotes or '='"),
        ("input.paths=data/[1].h5ad", "'input.paths=data/[1].h5ad' is not of the form key=value;"),
    ],
)
def test_one_line(override: str, expected: str) -> None:
    line = complaint("process", override)
    assert line.startswith(expected)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("qc=strict", "qc is of scvae-data process, not of scvae-data train; leave it out here"),
        ("qc.min_genes=3", "qc.min_genes is of scvae-data process, not of scvae-data train; leave it out here"),
        ("data.n_latent=3", "data.n_latent is not a setting; did you mean model.n_latent?"),
        ("trainer.num_nodes=2", "trainer.num_nodes belongs to trainer=ddp; add trainer=ddp"),
        ("experiment=quik", "experiment=quik: no such option; available: baseline_nb, cache_sweep, gaussian_hvg"),
    ],
)
def test_one_line_of_training(override: str, expected: str) -> None:
    assert complaint("train", override).startswith(expected)


def test_an_error_without_text_keeps_its_name() -> None:
    assert one_line(HydraException(""), "train") == "HydraException"


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [default\nmin_genes: 3\n")
    with pytest.raises(YAMLError) as caught:
        OmegaConf.load(path)
    assert one_line(caught.value, "process") == (
        f"{path}, line 2: no YAML: expected ',' or ']', but got ':'; correct the file"
    )
