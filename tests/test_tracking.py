from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.tracking import wandb_mode


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        pytest.param({}, "offline", id="no key"),
        pytest.param({"WANDB_API_KEY": "k" * 40}, None, id="key"),
        pytest.param({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline", id="key but offline"),
        pytest.param({"WANDB_MODE": "disabled"}, "disabled", id="disabled"),
        pytest.param({"WANDB_MODE": "online"}, "online", id="online without a key"),
        pytest.param({"WANDB_MODE": "dryrun"}, "offline", id="old name"),
    ],
)
def test_wandb_mode(tmp_path: Path, environment: dict[str, str], mode: str | None) -> None:
    assert wandb_mode({"NETRC": str(tmp_path / "none"), **environment}) == mode


def test_wandb_mode_finds_a_key_in_netrc(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wandb.example.org login user password " + "k" * 40 + "\n")
    netrc.chmod(0o600)
    assert wandb_mode({"NETRC": str(netrc), "WANDB_BASE_URL": "https://wandb.example.org"}) is None
    assert wandb_mode({"NETRC": str(netrc)}) == "offline"


def test_unknown_wandb_mode_is_named() -> None:
    with pytest.raises(ConfigError, match="WANDB_MODE=onlin is not one of online, offline, disabled"):
        wandb_mode({"WANDB_MODE": "onlin"})
