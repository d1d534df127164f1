"""The cache of content hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from trainshed.errors import UsageError
from trainshed.images import hashes
from trainshed.images.hashes import HashCache

MARK = "sha256:" + "0" * 64


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count every file as changed long ago."""
    monkeypatch.setattr(hashes, "_YOUNG", -3600.0)


def remembered(file: Path, cache: Path) -> bool:
    """Tell whether a new process would take a file's digest from the cache: one that was altered there comes back."""
    document = json.loads(cache.read_text())
    document["files"] = {name: [*entry[:-1], MARK] for name, entry in document["files"].items()}
    cache.write_text(json.dumps(document))
    return HashCache(cache).digest(file) == MARK


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert HashCache(tmp_path / "cache").digest(tmp_path / "a") == digest(b"content")


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_not_read_again_by_the_next_process(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    cache = HashCache(tmp_path / "state/cache")
    cache.digest(tmp_path / "a")
    cache.save()
    assert remembered(tmp_path / "a", tmp_path / "state/cache")


@pytest.mark.usefixtures("settled")
def test_same_size_and_same_mtime_do_not_hide_other_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    status = file.stat()
    cache = HashCache(tmp_path / "cache")
    cache.digest(file)
    while file.stat().st_ctime_ns == status.st_ctime_ns:  # the kernel's clock ticks every few milliseconds; young files are its remedy
        file.write_bytes(b"new")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert cache.digest(file) == digest(b"new")


@pytest.mark.usefixtures("settled")
def test_a_file_put_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").write_bytes(b"new")
    cache = HashCache(tmp_path / "cache")
    cache.digest(tmp_path / "a")
    (tmp_path / "b").replace(tmp_path / "a")
    assert cache.digest(tmp_path / "a", (tmp_path / "a").stat()) == digest(b"new")


def test_a_file_that_changed_just_now_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    os.utime(tmp_path / "a", (0, 4_000_000_000))  # so that no slow machine lets it grow old
    cache = HashCache(tmp_path / "cache")
    cache.digest(tmp_path / "a")
    cache.save()
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("settled")
def test_a_file_that_turned_young_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    cache = HashCache(tmp_path / "cache")
    cache.digest(tmp_path / "a")
    monkeypatch.setattr(hashes, "_YOUNG", 1e12)
    (tmp_path / "a").write_bytes(b"other")
    assert cache.digest(tmp_path / "a") == digest(b"other")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b'{"schema": "other"}',
        b'{"schema": "trainshed/hashes/v1"}',
        b'{"schema": "trainshed/hashes/v1", "files": []}',
    ]
    + [b'{"schema": "trainshed/hashes/v1", "files": {"a": %s}}' % entry for entry in (b"1", b"[1]", b"[1, 2, 3, 4, 5]")],
)
def test_a_broken_cache_starts_afresh(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").write_bytes(content)
    (tmp_path / "a").write_bytes(b"content")
    assert HashCache(tmp_path / "cache").digest(tmp_path / "a") == digest(b"content")


@pytest.mark.usefixtures("settled")
def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    cache = HashCache(tmp_path / "cache")
    cache.digest(tmp_path / "a")
    cache.save()
    (tmp_path / "cache").unlink()
    cache.digest(tmp_path / "a")
    cache.save()
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("settled")
def test_a_cache_that_grew_too_large_keeps_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
        cache = HashCache(tmp_path / "cache")
        cache.digest(tmp_path / name)
        cache.save()
    monkeypatch.setattr(hashes, "_LIMIT", 1)
    (tmp_path / "c").write_bytes(b"c")
    cache = HashCache(tmp_path / "cache")
    cache.digest(tmp_path / "c")
    cache.save()
    assert list(json.loads((tmp_path / "cache").read_text())["files"]) == [str(tmp_path / "c")]


def test_a_file_that_vanished_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path}/gone: cannot be read: No such file"):
        HashCache(tmp_path / "cache").digest(tmp_path / "gone")
