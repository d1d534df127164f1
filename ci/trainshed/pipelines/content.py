"""What a compiled pipeline says, as one digest: the same for YAML and for the JSON that a Kubeflow server gives back."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from trainshed.errors import UsageError
from trainshed.pipelines import documents as yaml_documents

_EXACT = 2**53
_FREE = frozenset({"deploymentSpec", "defaultValue", "constant", "literals", "metadata", "config"})
"""Fields whose values are the author's own, so that an empty one says something; a server keeps them as they are."""


def content_digest(text: str, *, place: str = "the pipeline") -> str:
    """Return ``sha256:<64 hex>`` over a compiled pipeline's documents.

    The header, the order of keys, the layout and fields at their defaults (``args: []``, ``enableCache: false``) do not count: kfp makes
    the header of the document, and a server keeps none of them.

    Raises:
        UsageError: the text is no compiled pipeline.
    """
    return digest_of(yaml_documents.load(text, place=place), place=place)


def digest_of(documents: list[dict[str, Any]], *, place: str = "the pipeline") -> str:
    """Return the digest of documents that are already read; an empty platform document counts as none.

    Raises:
        UsageError: a value is none that JSON knows, as YAML's dates are, so that no server keeps it.
    """
    told = [normalised(_set(document)) for document in documents if document]
    try:
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {error}", next_step="Put dates into quotes; there is no NaN and no infinity.") from error
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def normalised(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value in which ``7.0`` and ``7`` are one, as for servers: all numbers are doubles there, whole ones are written as such."""
    if isinstance(value, int) and abs(value) > _EXACT:
        value = float(value) if abs(value) <= sys.float_info.max else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(key): normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalised(item) for item in value]
    return value


def _set(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a message's value without the fields at their defaults: a server reads it into a message and writes that."""
    if isinstance(value, list):
        return [_set(item) for item in value]
    if not isinstance(value, dict):
        return value
    told = {key: item if key in _FREE else _set(item) for key, item in value.items()}
    return {key: item for key, item in told.items() if key in _FREE or item not in ("", None, 0, [], {})}
