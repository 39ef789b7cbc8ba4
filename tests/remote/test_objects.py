"""What is asked of a store is had as it is, or refused in one line; a fault that passes is no fault."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.config import conf
from fsspec.implementations.memory import MemoryFileSystem
from tests.support.gcs import google_store
from tests.support.s3 import Proxy, lead_to, s3_server

from scvae_data.errors import ConfigError, RemoteError
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.remote.objects import Changed, ObjectFacts

STORE = RemotePath("memory://store")
CONTENT = bytes(range(256)) * 4


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(objects, "BACK_OFF_SECONDS", 0.0)
    monkeypatch.setattr(objects, "_answering", set())
    memory = fsspec.filesystem("memory")
    for name in ("a/x.bin", "a/deep/y.bin", "z.bin"):
        memory.pipe_file(f"/store/{name}", CONTENT)
    yield
    memory.rm("/store", recursive=True)


class Failing:
    """The first requests for bytes fail, or give other ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | bytes) -> None:
        self.outcomes = list(outcomes)
        self.n_asked = 0
        whole = MemoryFileSystem.cat_file
        monkeypatch.setattr(
            MemoryFileSystem, "cat_file", lambda fs, name, **kwargs: self.answer(lambda: whole(fs, name, **kwargs))
        )

    def answer(self, otherwise):
        self.n_asked += 1
        outcome = self.outcomes.pop(0) if self.outcomes else otherwise()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_ranges_and_wholes() -> None:
    path = STORE / "z.bin"
    facts = objects.facts_of(path)
    assert facts.size == len(CONTENT)
    assert objects.read(path, 3, 7) == CONTENT[3:10]
    assert objects.read_whole(path, 1 << 20) == CONTENT
    assert objects.read_whole(path, 9) == CONTENT[:10]


def test_a_download_is_made_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BLOCK_BYTES", 100)
    pieces = list(objects.pieces(STORE / "z.bin", objects.facts_of(STORE / "z.bin")))
    assert b"".join(pieces) == CONTENT and max(map(len, pieces)) == 100


def test_listings() -> None:
    assert [str(path) for path in objects.find(STORE)] == [
        f"{STORE}/{name}" for name in ("a/deep/y.bin", "a/x.bin", "z.bin")
    ]
    assert list(objects.find(STORE, deep=False)) == [STORE / "z.bin"]
    assert objects.find(STORE / "nothing") == {}
    assert objects.names_in(STORE) == {"a", "z.bin"}
    assert objects.names_in(STORE / "nothing") == objects.names_in(STORE / "z.bin") == set()
    assert objects.glob(STORE / "**/*.bin") == sorted(objects.find(STORE))


@pytest.mark.parametrize(
    "outcome", [TimeoutError("slow"), ConnectionResetError("reset"), CONTENT[:4], OSError(16, "x")]
)
def test_a_fault_that_passes_is_retried(monkeypatch: pytest.MonkeyPatch, outcome: Exception | bytes) -> None:
    failing = Failing(monkeypatch, outcome, outcome)
    assert objects.read(STORE / "z.bin", 0, 8) == CONTENT[:8]
    assert failing.n_asked == 3


def test_a_fault_that_lasts_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, *[ConnectionResetError("Connection\nreset")] * 99)
    with pytest.raises(
        RemoteError, match=r"^memory://store/z.bin: Connection reset \(6 attempts in 0 s\); see whether .*$"
    ):
        objects.read(STORE / "z.bin", 0, 8)
    assert failing.n_asked == objects.ATTEMPTS


def test_a_store_that_never_answered_is_not_waited_for_as_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(objects, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(objects, "QUIET_SECONDS", 0.01)

    def slow(*_: object, **__: object) -> bytes:
        time.sleep(0.1)
        raise TimeoutError("slow")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", slow)
    with pytest.raises(RemoteError, match=r"\(1 attempt in 0 s\)"):
        objects.read(STORE / "z.bin", 0, 8)
    assert caplog.messages == ["memory://store does not answer yet; it is asked for about 0 s"]
    with pytest.raises(FileNotFoundError):
        objects.facts_of(STORE / "nothing")  # an answer
    with pytest.raises(RemoteError, match=r"\(6 attempts in 1 s\)"):
        objects.read(STORE / "z.bin", 0, 8)
    assert len(caplog.messages) == 1


def test_what_may_not_be_done_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, PermissionError("Forbidden"))
    with pytest.raises(RemoteError, match="Forbidden; see whether the credentials are right"):
        objects.read(STORE / "z.bin", 0, 8)
    assert failing.n_asked == 1


def test_an_error_of_a_program_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        objects.read(STORE / "z.bin", 0, 8)


def test_settings_that_a_package_refuses_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_raised_in", lambda error: "aiobotocore")
    failing = Failing(monkeypatch, ValueError("Invalid endpoint: localhost:9"))
    with pytest.raises(RemoteError, match="Invalid endpoint: localhost:9; correct the store's settings"):
        objects.read(STORE / "z.bin", 0, 8)
    assert failing.n_asked == 1


def test_an_object_that_changes_meanwhile_is_refused() -> None:
    facts = objects.facts_of(STORE / "z.bin")
    pieces = objects.pieces(STORE / "z.bin", facts)
    next(pieces)
    fsspec.filesystem("memory").pipe_file("/store/z.bin", CONTENT[::-1])
    with pytest.raises(RemoteError, match="was changed while it was read"):
        list(pieces)


def test_uploads_replace_and_deletions_forget(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"new")
    assert objects.upload(tmp_path / "x", STORE / "z.bin").size == 3
    assert objects.read_whole(STORE / "z.bin", 9) == b"new"
    objects.delete(STORE / "z.bin")
    objects.delete(STORE / "z.bin")
    with pytest.raises(FileNotFoundError):
        objects.facts_of(STORE / "z.bin")


def test_an_upload_that_arrives_in_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"new")
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem, "put_file", lambda fs, source, name, **k: put(fs, source, name) or fs.pipe_file(name, b"n")
    )
    with pytest.raises(RemoteError, match="what arrived is not what was sent"):
        objects.upload(tmp_path / "x", STORE / "z.bin")


def test_an_object_is_swapped_only_while_it_is_what_it_was(tmp_path: Path) -> None:
    swapped_by_turns(STORE, tmp_path)


@pytest.mark.services
def test_an_object_on_s3_is_swapped_in_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as port:
        lead_to(port, monkeypatch)
        place = RemotePath("s3://data/set")
        one = swapped_by_turns(place, tmp_path)
        with pytest.raises(RemoteError, match=r"s3://nowhere/x: .*bucket does not exist; make the bucket"):
            objects.swap(tmp_path / "a", RemotePath("s3://nowhere/x"), None)
        assert objects.names_in(RemotePath("s3://nowhere/x")) == objects.names_in(place / "nothing") == set()
        with pytest.raises(RemoteError, match="there is no bucket s3://nowhere"):
            objects.check_bucket(RemotePath("s3://nowhere/x"))
        # The answer to a put gets lost: what it has put is found.
        lost = ["timeout"]
        proxy = Proxy(port, lambda request: lost.pop() if lost and request.startswith(b"PUT ") else None)
        lead_to(proxy.port, monkeypatch)
        two = objects.swap(tmp_path / "b", place / "x", one)
        assert not lost and objects.read_whole(place / "x", 9) == b"b"
        # Some that speak S3 know no conditions.
        refusing = Proxy(port, lambda request: "501" if b"\r\nIf-" in request else None)
        lead_to(refusing.port, monkeypatch)
        objects.swap(tmp_path / "a", place / "x", two)
        with pytest.raises(Changed):
            objects.swap(tmp_path / "b", place / "x", two)
        assert refusing.injected == ["501", "501"] and objects.read_whole(place / "x", 9) == b"a"


@pytest.mark.services
def test_objects_of_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gcsfs import GCSFileSystem

    call, asked = GCSFileSystem._call, list[str]()

    async def watched(fs: GCSFileSystem, method: str, path: str, *rest: object, **how: object) -> object:
        asked.append(str(how.get("ifGenerationMatch")))
        return await call(fs, method, path, *rest, **how)

    monkeypatch.setattr(GCSFileSystem, "_call", watched)
    with google_store(monkeypatch) as bucket:
        facts = swapped_by_turns(bucket, tmp_path)
        assert asked.count("0") == 2  # where there was none, the store is to see to it
        assert facts == objects.facts_of(bucket / "x") == objects.find(bucket)[bucket / "x"]
        assert objects.holds(bucket / "x", tmp_path / "a") and not objects.holds(bucket / "x", tmp_path / "b")
        assert facts.version == hashlib.md5(b"a", usedforsecurity=False).hexdigest()
        objects.check_bucket(bucket / "x")
        nowhere = RemotePath("gs://nowhere/x")
        with pytest.raises(RemoteError, match="there is no bucket gs://nowhere"):
            objects.check_bucket(nowhere)
        with pytest.raises(RemoteError, match=r"gs://nowhere/x: .*make the bucket"):
            objects.upload(tmp_path / "a", nowhere)


def swapped_by_turns(place: RemotePath, folder: Path) -> ObjectFacts:
    """What is there at last, with content ``a``."""
    for name in "ab":
        (folder / name).write_text(name)
    one = objects.swap(folder / "a", place / "x", None)
    assert objects.swap(folder / "a", place / "x", None) == one  # as after an answer that got lost
    with pytest.raises(Changed, match=f"^{place}/x was changed by another machine meanwhile; run the command again$"):
        objects.swap(folder / "b", place / "x", None)
    two = objects.swap(folder / "b", place / "x", one)
    with pytest.raises(Changed):
        objects.swap(folder / "a", place / "x", one)
    assert objects.read_whole(place / "x", 9) == b"b"
    objects.delete(place / "x")
    with pytest.raises(Changed):
        objects.swap(folder / "a", place / "x", two)
    return objects.swap(folder / "a", place / "x", None)


def test_entity_tags_tell_content(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(CONTENT)

    def md5(content: bytes) -> bytes:
        return hashlib.md5(content, usedforsecurity=False).digest()

    whole, parts = md5(CONTENT).hex(), f"{md5(md5(CONTENT[:600]) + md5(CONTENT[600:])).hex()}-2"
    assert objects.is_content(file, ObjectFacts(1024, whole)) is True
    assert objects.is_content(file, ObjectFacts(1024, md5(b"").hex())) is False
    assert objects.is_content(file, ObjectFacts(1024, parts), (600,)) is True
    assert objects.is_content(file, ObjectFacts(1024, parts.replace("-2", "-3")), (600,)) is None
    assert objects.is_content(file, ObjectFacts(1024, "2026-11-28 12:00:00")) is None


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_an_address_of_google_is_asked_of_google(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gcsfs import GCSFileSystem

    asked: list[tuple[str, int, int]] = []

    async def cat_file(fs: GCSFileSystem, name: str, start: int, end: int) -> bytes:
        asked.append((name, start, end))
        return CONTENT[start:end]

    monkeypatch.setitem(conf, scheme, {"token": "anon"})  # credentials would be looked for on the network
    monkeypatch.setattr(GCSFileSystem, "_cat_file", cat_file)
    objects.store_of.cache_clear()
    assert objects.read(RemotePath(f"{scheme}://bucket/folder/x.bin"), 3, 5) == CONTENT[3:8]
    assert asked == [("bucket/folder/x.bin", 3, 8)]
    objects.store_of.cache_clear()


def test_a_request_to_google_is_repeated_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcsfs import GCSFileSystem
    from gcsfs.retry import HttpError

    asked: list[str] = []

    async def unreachable(fs: GCSFileSystem) -> None:
        asked.append("")
        raise HttpError({"code": 503, "message": "away"})

    monkeypatch.setitem(conf, "gs", {"token": "anon"})
    monkeypatch.setattr(GCSFileSystem, "_set_session", unreachable)
    monkeypatch.setattr(objects, "FIRST_SECONDS", 0.0)
    objects.store_of.cache_clear()
    with pytest.raises(RemoteError, match=r"^gs://bucket/x: away, 503 \(1 attempt in 0 s\); see whether the store"):
        objects.read(RemotePath("gs://bucket/x"), 0, 8)
    assert len(asked) == 1
    objects.store_of.cache_clear()


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nowhere://x.*known are s3:// and gs://"):
        objects.facts_of(RemotePath("nowhere://x/y"))


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs")])
def test_who_lacks_the_package_is_told(monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install a package")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    objects.store_of.cache_clear()
    with pytest.raises(ConfigError, match=rf"pip install 'scvae-data\[{extra}\]'"):
        objects.facts_of(RemotePath(f"{scheme}://bucket/x"))
