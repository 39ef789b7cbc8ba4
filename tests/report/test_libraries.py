"""What pages carry to draw with: kept on disk, whole, and made anew where what is kept is not."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pytest

from scvae_data.report import libraries


def test_a_bundle_is_kept_and_one_that_was_cut_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "KEPT", tmp_path)
    made = libraries.vega.__wrapped__()
    assert "vegaEmbed" in zlib.decompress(base64.b64decode(made)).decode()
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_ino
    assert libraries.vega.__wrapped__() == made
    assert kept.stat().st_ino == before
    kept.write_text(made[:1000])
    assert libraries.vega.__wrapped__() == made == kept.read_text()
    kept.write_text("é")
    assert libraries.vega.__wrapped__() == made == kept.read_text()
