from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.datasets import make_dataset

from scvae_data.errors import ConfigError
from scvae_data.remote.location import RemotePath
from scvae_data.store import open_index
from scvae_data.tracking import FINISH_SECONDS, log_dataset, one_line_errors, run_settings, wandb_mode


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


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """Address of a server that answers everything with a refusal."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_without_its_server_wandb_is_offline(
    tmp_path: Path, refusing_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    assert run_settings(str(tmp_path))["mode"] == "online"
    assert not caplog.records
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    with caplog.at_level(logging.WARNING):
        assert run_settings(str(tmp_path))["mode"] == "offline"
    assert "W&B does not answer at http://127.0.0.1:9: the run goes on offline" in caplog.text


def test_the_end_of_a_run_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run_settings(str(tmp_path))["settings"].finish_timeout == FINISH_SECONDS
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "7")
    assert run_settings(str(tmp_path))["settings"].finish_timeout != FINISH_SECONDS


def test_what_wandb_refuses_is_one_line() -> None:
    from wandb.errors import CommError

    words = "W&B does not start a run: no luck on two lines; WANDB_MODE=offline does"
    with pytest.raises(ConfigError, match=words), one_line_errors():
        raise CommError("no luck\non two lines")


class Recorded:
    """A run that keeps what is logged."""

    disabled = False

    def _log_artifact(self, artifact: Any, **_: object) -> None:
        self.artifact = artifact


def test_a_directory_of_a_store_is_recorded_without_asking_the_store(tmp_path: Path) -> None:
    run = Recorded()
    index = open_index(make_dataset(tmp_path / "data", n_obs=20)[0])
    log_dataset(run, replace(index, path=RemotePath("s3://bucket/set")), "input")
    assert (run.artifact.name, run.artifact.metadata["directory"]) == ("set", "s3://bucket/set")
    assert list(run.artifact.manifest.entries) == ["address.txt"]
