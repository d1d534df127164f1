"""A tiny vulnerability database as Trivy reads it: a bbolt file written page by page, and its metadata.

Only what Trivy needs: https://github.com/etcd-io/bbolt/blob/main/internal/common/page.go describes the pages. Nested buckets are
stored inline, so the whole content is one leaf page.
"""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Mapping
from pathlib import Path

Bucket = Mapping[str, "bytes | Bucket"]

_PAGE = 4096
_MAGIC, _VERSION = 0xED0CDAED, 2
_META, _LEAF, _FREELIST = 0x04, 0x02, 0x10
_HEADER, _ELEMENT = 16, 16


def write_database(
    folder: Path,
    advisories: Mapping[tuple[str, str], Mapping[str, str]],
    *,
    updated: dt.datetime | None = None,
    distribution: str = "debian 12",
) -> None:
    """Write ``trivy.db`` and ``metadata.json``.

    Args:
        advisories: (source package, CVE) → ``{"severity": "CRITICAL", "fixed": "9.9", "title": "…"}``.
        updated: when the database was made; now by default.
    """
    packages: dict[str, dict[str, bytes | Bucket]] = {}
    known: dict[str, bytes | Bucket] = {}
    for (package, identity), facts in advisories.items():
        packages.setdefault(package, {})[identity] = _json({"FixedVersion": facts.get("fixed", "")})
        known[identity] = _json({"Title": facts.get("title", identity), "Severity": facts["severity"]})
    source = {"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://example.invalid/"}
    folder.mkdir(parents=True, exist_ok=True)
    content: Bucket = {"data-source": {distribution: _json(source)}, distribution: packages, "vulnerability": known}
    (folder / "trivy.db").write_bytes(_bolt(content))
    made = updated or dt.datetime.now(dt.UTC)
    later = made + dt.timedelta(days=3650)
    stamps = {"Version": 2, "NextUpdate": _stamp(later), "UpdatedAt": _stamp(made), "DownloadedAt": _stamp(made)}
    (folder / "metadata.json").write_bytes(_json(stamps))


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode()


def _stamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bolt(root: Bucket) -> bytes:
    leaf = _leaf(root, number=3)
    pages = -(-len(leaf) // _PAGE)
    freelist = _page_header(2, _FREELIST, 0).ljust(_PAGE, b"\0")
    overflowing = leaf[:12] + struct.pack("<I", pages - 1) + leaf[16:]
    high_water = 3 + pages
    return _meta(0, high_water) + _meta(1, high_water) + freelist + overflowing.ljust(pages * _PAGE, b"\0")


def _meta(transaction: int, high_water: int) -> bytes:
    fields = struct.pack("<IIIIQQQQQ", _MAGIC, _VERSION, _PAGE, 0, 3, 0, 2, high_water, transaction)
    return (_page_header(transaction, _META, 0) + fields + struct.pack("<Q", _fnv(fields))).ljust(_PAGE, b"\0")


def _page_header(number: int, flags: int, count: int) -> bytes:
    return struct.pack("<QHHI", number, flags, count, 0)


def _leaf(bucket: Bucket, *, number: int) -> bytes:
    entries = sorted((name.encode(), value) for name, value in bucket.items())
    elements, data = b"", b""
    for index, (key, value) in enumerate(entries):
        nested = isinstance(value, Mapping)
        content = struct.pack("<QQ", 0, 0) + _leaf(value, number=0) if isinstance(value, Mapping) else value
        position = (len(entries) - index) * _ELEMENT + len(data)
        elements += struct.pack("<IIII", int(nested), position, len(key), len(content))
        data += key + content
    return _page_header(number, _LEAF, len(entries)) + elements + data


def _fnv(content: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
