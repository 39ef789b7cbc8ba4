"""Likelihoods as objects: per cell, over measured genes, found by name without running what a file names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tests.support.poisson import Poisson

from scvae_data import ConfigError
from scvae_data.models.likelihoods import (
    LIKELIHOODS,
    NB,
    ZINB,
    Gaussian,
    Likelihood,
    import_likelihood,
    likelihood_named,
)

POISSON = Poisson()


def parameters_of(likelihood: Likelihood, n: int, n_vars: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = {name: torch.randn(n, n_vars, generator=generator) for name in likelihood.heads}
    return heads | {name: torch.full((n_vars,), start) for name, start in likelihood.per_gene.items()}


@pytest.mark.parametrize("likelihood", [NB(), ZINB(), Gaussian(), POISSON], ids=lambda found: type(found).__name__)
def test_unmeasured_genes_neither_cost_nor_take_a_share(likelihood: Likelihood) -> None:
    parameters = parameters_of(likelihood, 3, 7)
    measured = torch.tensor([True, True, False, True, False, True, True]).expand(3, 7)
    x = torch.poisson(torch.full((3, 7), 2.0), generator=torch.Generator().manual_seed(1)) * measured
    some = {name: values[..., measured[0]] for name, values in parameters.items()}
    found = likelihood.log_prob(x, parameters, measured)
    assert found.shape == (3,)
    torch.testing.assert_close(found, likelihood.log_prob(x[:, measured[0]], some, None))
    if not likelihood.normalized:
        parameters["scale"][:, ~measured[0]] += 100.0
        torch.testing.assert_close(likelihood.log_prob(x, parameters, measured), found)


@pytest.mark.parametrize(
    ("name", "kind"), [*LIKELIHOODS.items(), (f"{NB.__module__}.NB", NB), (f"{__name__}.Poisson", Poisson)]
)
def test_a_name_stands_for_a_likelihood(name: str, kind: type[Likelihood]) -> None:
    assert type(likelihood_named(name)) is kind


def test_an_object_may_be_named_too() -> None:
    assert likelihood_named(f"{__name__}.POISSON") is POISSON


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("poisson", "is not one of nb, zinb, gaussian, nor the import path of"),
        ("os.abort", r"likelihood=os\.abort is not one of"),
        (f"{__name__}.Poissn", "is not one of"),
        ("antigravity.fly", "is not imported; import antigravity first, or name it on the command line: model.like"),
    ],
)
def test_other_names_are_refused_and_nothing_is_run(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        likelihood_named(name)
    assert "antigravity" not in sys.modules


def test_what_the_user_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_by_user.py").write_text("from tests.support.poisson import Poisson\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_likelihood("named_by_user.Poisson")
    assert type(likelihood_named("named_by_user.Poisson")) is Poisson
    for other in ("nb", None, {"_target_": "a.b"}):
        import_likelihood(other)
    with pytest.raises(ConfigError, match=r"model\.likelihood='named_by_none\.P' cannot be imported \(No module named"):
        import_likelihood("named_by_none.P")
