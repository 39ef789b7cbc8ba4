from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store import files
from scvae_data.store.files import (
    atomic_file,
    check_plain_name,
    encode_json,
    read_json,
    read_note,
    sha256_file,
    sweep_temporaries,
    syncing,
    write_atomic,
    write_json,
    write_note,
)

CONTENT = {"b": 1, "a": {"list": [1, 2.5, None, "ü\n"], "empty": {}, "none": []}, "flag": True}


def test_json_round_trip_keeps_the_order_of_keys(tmp_path):
    facts = write_json(tmp_path / "x.json", CONTENT)
    assert read_json(tmp_path / "x.json") == CONTENT
    assert list(read_json(tmp_path / "x.json")) == ["b", "a", "flag"]
    content = (tmp_path / "x.json").read_bytes()
    assert (facts.bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sha256_file(tmp_path / "x.json") == facts.sha256


def test_a_flipped_bit_in_any_byte_is_found(tmp_path):
    content = encode_json(CONTENT)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "x.json").write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="resume=true"):
            read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b'{"a": 1}', b'{"a": NaN}', b'{"a": 1, "a": 1}', b"[" * 100_000, b"\xff", encode_json(CONTENT)[:-1]],
    ids=["empty", "list", "no checksum", "nan", "twice", "deep", "not utf-8", "cut"],
)
def test_what_is_not_our_json(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"x\.json") as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_note_that_is_not_whole_says_nothing(tmp_path: Path) -> None:
    note = tmp_path / "x.json"
    assert read_note(note) == {}
    write_note(note, CONTENT)
    assert read_note(note) == CONTENT
    note.write_bytes(b"")
    assert read_note(note) == {}


@pytest.mark.parametrize("content", [b"", b"x", b"0123456789" * 1000])
def test_a_note_of_files_that_are_not_whole_says_nothing(content: bytes, tmp_path: Path) -> None:
    note, file = tmp_path / "x.json", tmp_path / "run"
    file.write_bytes(content)
    write_note(note, CONTENT, [file])
    assert read_note(note) == CONTENT
    middle = len(content) // 2
    hole = content[: middle - 2] + bytes(len(content[middle - 2 : middle + 2])) + content[middle + 2 :]
    for left in {b"", content[:-1], content[:middle], bytes(len(content)), hole} - {content}:
        file.write_bytes(left)
        assert read_note(note) == {}
    file.write_bytes(content)
    assert read_note(note) == CONTENT
    file.unlink()
    assert read_note(note) == {}
    file.mkdir()  # as a disk that fails, it is there, and cannot be read
    assert read_note(note) == {}


def test_absent_and_oversized_json(tmp_path):
    with pytest.raises(DamagedFileError, match="No such file"):
        read_json(tmp_path / "x.json")
    write_json(tmp_path / "x.json", CONTENT)
    with pytest.raises(DamagedFileError, match="larger than 10 bytes"):
        read_json(tmp_path / "x.json", max_bytes=10)


def test_values_that_json_cannot_hold(tmp_path):
    for content in ({"a": float("nan")}, {}, {"checksum": "mine"}):
        with pytest.raises(ValueError, match=r"JSON|key"):
            write_json(tmp_path / "x.json", content)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_atomic(tmp_path / "x", b"old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "x") as file:
        file.write(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_permissions_are_those_of_the_umask(tmp_path):
    umask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "x", b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_sweep_deletes_what_killed_writers_left_and_nothing_else(tmp_path):
    for name in (
        ".chunk_0000.h5.12-0123abcd.tmp",
        ".obs.parquet.1-ffffffff.tmp",
        "mine.tmp",
        ".x.tmp",
        "chunk_0000.h5",
    ):
        (tmp_path / name).touch()
    swept = [path.name for path in sweep_temporaries(tmp_path)]
    assert swept == [".chunk_0000.h5.12-0123abcd.tmp", ".obs.parquet.1-ffffffff.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tmp", "chunk_0000.h5", "mine.tmp"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".x", "", "a\0", "a\n", "a" * 300, 3, None])
def test_names_that_could_lead_elsewhere(name):
    with pytest.raises(StoreError, match="not a plain file name"):
        check_plain_name(name)
    assert check_plain_name("chunk_0000.h5") == "chunk_0000.h5"


def test_files_are_synced_while_the_program_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in "ab"]
    seen: list[Path] = []
    for path in paths:
        path.touch()
    monkeypatch.setattr(files, "sync_file", seen.append)
    with syncing() as sync:
        for path in paths:
            sync(path)
    assert seen == paths


def test_a_file_that_cannot_be_synced_is_told_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), syncing() as sync:
        sync(tmp_path / "absent")
