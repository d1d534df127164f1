"""Seals: a document that holds the digest of all the rest of itself, so that an edit is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FIELD = "seal"


def canonical(document: Any) -> bytes:  # noqa: ANN401 - any JSON document
    """Return the one spelling of a JSON document: sorted keys, no blanks, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass")  # half a character, which JSON can spell, is no reason to end


def digest(document: Any) -> str:  # noqa: ANN401 - any JSON document
    """Return ``sha256:…`` of a document's one spelling: equal for equal documents, however they are laid out."""
    return f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its seal."""
    told = _without(document)
    return {**told, FIELD: digest(told)}


def holds(document: Mapping[str, Any]) -> bool:
    """Tell whether a document is as it was sealed."""
    try:
        return document.get(FIELD) == digest(_without(document))
    except RecursionError:  # nested as no document of ours is
        return False


def _without(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != FIELD}
