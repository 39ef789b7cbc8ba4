"""Checkpoints and saved configurations are data: what would run code is refused in one line."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tests.training.conftest import Compose

from scvae_data import VAE, ConfigError
from scvae_data.training.resume import continued, last_checkpoint
from scvae_data.training.trusted import check_targets, load_vae


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file; give a checkpoint"),
        (b"", r"is not a whole checkpoint|is damaged"),
        (b"PK\x03\x04 rest is missing", r"is not a whole checkpoint"),
        (Evil(), r"could run any code; it is not opened"),
        ({"evil": Evil()}, r"could run any code; it is not opened"),
        ({"state_dict": {}}, r"is not a checkpoint of a scvae_data\.VAE; give one that train\.py wrote"),
        ([1, 2], r"is not a checkpoint of a scvae_data\.VAE"),
        ({"scvae_data_vae": {"format_version": 2}}, r"is a checkpoint of format 2, this version .* reads format 1"),
        ({"scvae_data_vae": {"format_version": 1}}, r"its weights and settings do not fit \('hyper_parameters'\)"),
        (
            {"scvae_data_vae": {"format_version": 1}, "hyper_parameters": {"n_lattent": 3}, "state_dict": {}},
            r"do not fit \(.*unexpected keyword argument 'n_lattent'",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, content: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as caught:
        load_vae(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"ckpt={path}")
    assert not (tmp_path / "was_run").exists()


def checkpoint() -> dict[str, Any]:
    """What train.py writes, as far as it is read."""
    facts = {"n_vars": 3, "var_names": ["a", "b", "c"], "categories": ["x"], "gene_list_hash": "0", "content_hash": "0"}
    model = VAE(n_latent=2, n_hidden=4, batch_key="k", facts=facts)
    model.configure_model()
    return {
        "scvae_data_vae": {"format_version": 1},
        "hyper_parameters": {"n_latent": 2, "n_hidden": 4, "n_layers": 1, "batch_key": "k", "facts": facts},
        "state_dict": dict(model.state_dict()),
        "scvae_data": {"facts": {}},
    }


def set_setting(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["hyper_parameters"].update({name: value})


def set_gene_sets(packed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["scvae_data_vae"].update(gene_sets=packed)


def expand_weights(content: dict[str, Any]) -> None:
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.zeros(1).expand(2**33)


def other_shape(content: dict[str, Any]) -> None:
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_setting("n_layers", 2**31), "2147483648 layers and"),
        (set_setting("n_hidden", 2**40), "has shape"),
        (set_setting("n_latent", "many"), "do not fit"),
        (set_setting("batch_key", {}), "is no list of names"),
        (set_setting("likelihood", "antigravity.fly"), "antigravity.fly is not imported; import antigravity first"),
        (set_setting("likelihood", "os.abort"), "os.abort is not one of nb, zinb, gaussian, nor"),
        (set_setting("facts", {"n_vars": 3, "var_names": [[], "b", "c"], "categories": ["x"]}), "is no list of names"),
        (set_setting("facts", 3), "do not fit"),
        (expand_weights, "larger than the file"),
        (other_shape, r"has shape \(1,\) instead of"),
        (
            set_gene_sets(torch.zeros(1, 1, dtype=torch.uint8).expand(2**33, 1)),
            "the gene sets are larger than the file",
        ),
        (set_gene_sets(torch.zeros(2, 2, dtype=torch.uint8)), "its gene sets are no masks of 3 genes"),
        (set_gene_sets([1]), "do not fit"),
        (lambda content: content.update(scvae_data_vae="x"), "is not a checkpoint of"),
        (lambda content: content.update(state_dict=[]), "do not fit"),
    ],
)
def test_no_memory_is_taken_for_what_a_checkpoint_claims(
    change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path
) -> None:
    path, content = tmp_path / "some.ckpt", checkpoint()
    torch.save(content, path)
    assert load_vae(path)[1] == {}
    change(content)
    torch.save(content, path)
    with pytest.raises(ConfigError, match=words) as caught:
        load_vae(path)
    assert "\n" not in str(caught.value)


def test_a_compressed_archive_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as plain, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", 8) as bomb:
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
        bomb.writestr("plain/data/99", bytes(1 << 24))
    with pytest.raises(ConfigError, match=r"bomb\.ckpt is not a whole checkpoint \(it would unpack to 16,"):
        load_vae(tmp_path / "bomb.ckpt")


def test_a_resumed_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(ConfigError, match=r"^resume_from=.*could run any code; it is not opened"):
        last_checkpoint(tmp_path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "builtins.eval",
        "lightning_evil.Trainer",
        "lightning.pytorch.trainer.trainer.os.system",
        "lightning.fabric.utilities.cloud_io._load",
        "scvae_data.training.run.secrets.token_hex",
        "scvae_data.store.files.os.remove",
        "torch.optim.adam.torch.load",
        3,
        None,
    ],
)
def test_targets_that_are_refused(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.yaml: callbacks\.mine\._target_=.* is not run"):
        check_targets({"callbacks": {"mine": {"_target_": target}}}, "config.yaml")


@pytest.mark.parametrize(
    "target",
    [
        "scvae_data.VAE",
        "scvae_data.ChunkedDataModule",
        "scvae_data.training.loggers.wandb_logger",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "torch.optim.AdamW",
    ],
)
def test_targets_that_are_allowed(target: str) -> None:
    check_targets({"a": [{"_target_": target}]}, "config.yaml")


def test_what_the_command_line_names_is_the_users() -> None:
    config = {"callbacks": {"mine": {"_target_": "my.Callback", "inner": {"_target_": "my.Other"}}}}
    check_targets(config, "config.yaml", skip=["callbacks.mine"])
    check_targets(config, "config.yaml", skip=["callbacks"])
    with pytest.raises(ConfigError, match=r"callbacks\.mine\.inner"):
        check_targets(config, "config.yaml", skip=["callbacks.mine._target_"])
    with pytest.raises(ConfigError, match=r"callbacks\.mine\._target_"):
        check_targets(config, "config.yaml", skip=["callbacks.mine.inner", "callbacks.min"])


def test_a_saved_likelihood_is_trusted_as_a_target_is() -> None:
    for allowed in ("nb", "scvae_data.models.likelihoods.NB"):
        check_targets({"model": {"likelihood": allowed}}, "config.yaml")
    config = {"model": {"likelihood": "my.Poisson"}}
    check_targets(config, "config.yaml", skip=["model.likelihood"])
    with pytest.raises(ConfigError, match=r"name it on the command line: model\.likelihood=my\.Poisson$"):
        check_targets(config, "config.yaml")


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"data": {"_target_": "scvae_data.ChunkedDataModule", "sampler": "my.Sampler"}}, r"data\.sampler=my\.Sampler"),
        ({"a": [{"_target_": "scvae_data.store.Chunking", "compression": "my.Zip"}]}, r"a\.0\.compression=my\.Zip"),
    ],
    ids=["sampler", "codec"],
)
def test_what_our_own_objects_would_import_is_refused(node: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config\.yaml: {key} is not run"):
        check_targets(node, "config.yaml")
    check_targets({"data": {"sampler": None}, "chunking": {"compression": "gzip"}}, "config.yaml")
    check_targets(node, "config.yaml", skip=["data.sampler", "a"])


@pytest.mark.parametrize("how", ["plain", "nested", "decoded"])
def test_a_run_directory_cannot_smuggle_a_target(tmp_path: Path, train_config: Compose, how: str) -> None:
    saved = OmegaConf.to_container(train_config(tmp_path), resolve=True)
    assert isinstance(saved, dict)
    evil = {"_target_": "os.mkdir", "path": "was_run"}
    match how:
        case "plain":
            saved["callbacks"]["evil"] = evil
        case "nested":
            saved["trainer"]["plugins"] = [evil]
        case "decoded":
            saved["callbacks"]["evil"] = '${oc.decode:"{_target_: os.mkdir, path: was_run}"}'
    OmegaConf.save(saved, tmp_path / "config.yaml")
    cfg = train_config(tmp_path / "unused")
    cfg.resume_from = str(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.yaml: .*_target_=os\.mkdir is not run"):
        continued(cfg, [])


def test_every_target_of_the_configurations_can_be_resumed(train_config: Compose, tmp_path: Path) -> None:
    for logger in ("wandb", "csv", "none"):
        config = OmegaConf.to_container(train_config(tmp_path, f"logger={logger}"), resolve=True)
        check_targets(config, "config.yaml")


@pytest.mark.parametrize(
    ("name", "what"), [("nope", "does not exist"), ("note.txt", "is a file"), (".", "has no config.yaml")]
)
def test_what_is_no_run_is_told_as_what_it_is(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(ConfigError, match=f"^resume_from=.* {what}; give the directory of a training run$"):
        continued(OmegaConf.create({"resume_from": str(tmp_path / name)}), [])
