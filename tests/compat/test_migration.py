"""What docs/migration.md shows runs as it stands, in order, in one checkout."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.compat.conftest import ROOT

TEXT = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"^```(bash|python|diff)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [text for language, text in BLOCKS if language == "bash" and not text.startswith("uv ")]
SCRIPT = next(text for language, text in BLOCKS if text.startswith("# train_baseVAE.py"))
SNIPPETS = [text for language, text in BLOCKS if language == "python" and text != SCRIPT]
REMOVED, ADDED = (line[1:] for line in next(text for language, text in BLOCKS if language == "diff").splitlines())

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*is an older name.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after the commands of the guide, with few genes."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf", "config", "process.py", "test_chunked_system.py"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SCVAE_DATA_DEMO_GENES": "1000"}
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        (folder / f"{command.split()[1].replace('/', '_')}.out").write_text(done.stdout)
    return folder


@pytest.fixture
def inside(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout as current directory, as if a script lay at its top."""
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(str(checkout))
    monkeypatch.setenv("SCVAE_DATA_DEMO_GENES", "1000")
    return checkout


def test_commands_say_what_the_guide_says(checkout: Path) -> None:
    table = (checkout / "test_chunked_system.py.out").read_text().splitlines()
    shown = re.search(r"^(PASS .*?)\n```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert shown
    assert [line[:20] for line in table] == [line[:20] for line in shown[1].splitlines()]
    printed = (checkout / "src_data_processor.py.out").read_text()
    stated = re.search(r"^(data_processor.py is an older name.*) …$", TEXT, flags=re.MULTILINE)
    assert stated
    assert printed.startswith(stated[1])


def test_python_of_the_guide_runs(inside: Path) -> None:
    names: dict[str, Any] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "docs/migration.md", "exec"), names)
    assert names["adata"].n_obs == 1000
    assert len(list((inside / "outputs" / "chunk_cache").glob("*/chunk_index.json"))) == 1


def test_the_older_training_script_moves_by_one_import(
    inside: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert SCRIPT.count(REMOVED) == 1
    printed = []
    for text in (SCRIPT, SCRIPT.replace(REMOVED, ADDED)):
        script = tmp_path / "train_baseVAE.py"
        script.write_text(text)
        runpy.run_path(str(script), run_name="__main__")
        printed.append(capsys.readouterr().out.splitlines()[-1])
    assert printed[0] == printed[1]
    assert re.fullmatch(r"validation loss \d+\.\d{6}", printed[0])
