"""Each recipe of docs/extending.md, as it stands there and through the seam that it names alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from scvae_data import open_index
from scvae_data.commands.process import settings_of
from scvae_data.commands.verify import verify
from scvae_data.config import conf_dir, instantiate
from scvae_data.processing import pipeline
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.sort.obs_schema import OUR_COLUMNS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
DIRECTORY = Path(__file__).resolve().parents[1] / "data" / "version1" / "gzip"
# Cells x genes: 4 cells of which the last has few ribosomal counts; HSPA1A is of the class that the page adds.
GENES = ["RPS18", "HSPA1A", "ACTB"]
COUNTS = np.array([[10, 0, 10], [10, 10, 20], [10, 30, 0], [1, 0, 99]])

Lab = Callable[[str], None]


def recipe(title: str) -> str:
    """The Python of a section."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Return a function that makes a section's Python the module ``my_lab``, where workers find it too."""
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def save(title: str) -> None:
        (folder / "my_lab.py").write_text(recipe(title))

    yield save
    sys.modules.pop("my_lab", None)


@pytest.fixture
def tables() -> Iterator[None]:
    """Leave the tables as they were."""
    before = [(table, list(table)) for table in (GENE_CLASSES, OUR_COLUMNS)]
    yield
    for table, entries in before:
        table[:] = entries


def composed(program: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(program, [*overrides])


def process(folder: Path, *overrides: str) -> Path:
    """Process what lies in a folder, as ``process.py`` does with these overrides; return the directory."""
    common = ["input=files", "qc=none", "genes.min_cells=1", "chunk_size=3", *overrides]
    cfg = composed("process", f'input.paths="{folder}/*"', *common)
    pipeline.run(settings_of(cfg), instantiate(cfg.engine), folder.parent / "out")
    return folder.parent / "out"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with one H5AD file."""
    folder = tmp_path / "raw"
    folder.mkdir()
    obs = pd.DataFrame(index=[f"cell{n}" for n in range(len(COUNTS))])
    adata = ad.AnnData(sp.csr_matrix(COUNTS.astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES))
    adata.write_h5ad(folder / "SRX1.h5ad")
    return folder


def obs_of(directory: Path) -> Any:
    return open_index(directory).obs().sort_values("source_row")


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_an_input_format(lab: Lab, tmp_path: Path, engine: str) -> None:
    lab("An input format")
    raw = tmp_path / "raw"
    raw.mkdir()
    cells = np.array([f"cell{n}" for n in range(len(COUNTS))])
    np.savez(raw / "SRX1.npz", counts=COUNTS, cells=cells, genes=np.array(GENES))
    out = process(raw, f"engine={engine}", "input.readers=[my_lab.NpzReader]")
    obs = obs_of(out)
    assert obs["total_counts"].tolist() == COUNTS.sum(axis=1).tolist()
    assert obs.index.tolist() == [f"SRX1:cell{n}" for n in range(len(COUNTS))]
    assert not any(verify(out, against=[raw], readers=["my_lab.NpzReader"]).values())


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_a_qc_rule(lab: Lab, raw: Path, engine: str) -> None:
    lab("A QC rule")
    out = process(raw, f"engine={engine}", "qc._target_=my_lab.LiverRules", "+qc.min_pct_counts_ribo=8")
    assert obs_of(out)["source_row"].tolist() == [0, 1, 2]
    dropped = pd.read_parquet(out / "dropped_cells.parquet")
    assert dropped[["source_row", "rule", "value", "threshold"]].values.tolist() == [
        [3, "min_pct_counts_ribo", 1.0, 8.0]
    ]


def test_a_class_of_genes(tables: None, raw: Path) -> None:
    exec(recipe("A class of genes"), {})
    out = process(raw, "engine=serial")
    assert obs_of(out)["pct_counts_hsp"].tolist() == [0.0, 25.0, 75.0, 0.0]
    assert ad.read_h5ad(out / "chunk_0000.h5").var["hsp"].to_dict() == {"ACTB": False, "HSPA1A": True, "RPS18": False}


def test_an_obs_column(tables: None, raw: Path) -> None:
    exec(recipe("An obs column"), {})
    obs = obs_of(process(raw, "engine=serial"))
    assert obs["counts_per_gene"].tolist() == [10.0, pytest.approx(40 / 3), 20.0, 50.0]
    np.testing.assert_array_equal(obs["log_size_factor"], np.log(obs["size_factor"]))


def test_an_engine(lab: Lab, raw: Path) -> None:
    serial = open_index(process(raw, "engine=serial")).content_hash
    lab("An engine")
    (raw.parent / "out").rename(raw.parent / "serial")
    out = process(raw, "engine=local", "engine._target_=my_lab.ThreadEngine", "engine.n_workers=3")
    assert open_index(out).content_hash == serial


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_a_likelihood(lab: Lab, tmp_path: Path) -> None:
    from scvae_data.training.run import train

    lab("A likelihood")
    cfg = composed(
        "train", f"paths.processed_dir={DIRECTORY}", f"paths.output_dir={tmp_path}/run", "logger=none", "outputs=none",
        "data.batch_size=16", "model.likelihood=my_lab.Poisson", "model.n_hidden=8", "model.n_latent=2",
        "trainer.max_epochs=1", "trainer.accelerator=cpu",
    )  # fmt: skip
    assert np.isfinite(train(cfg)["val/loss"])
