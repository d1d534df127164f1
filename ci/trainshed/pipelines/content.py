"""What a compiled pipeline says, as one digest: the same for YAML and for the JSON that a Kubeflow server gives back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from trainshed.pipelines import documents as yaml_documents


def content_digest(text: str, *, place: str = "the pipeline") -> str:
    """Return ``sha256:<64 hex>`` over a compiled pipeline's documents.

    The header, the order of keys and the layout do not count: kfp makes the header of the document, and a server keeps neither.

    Raises:
        UsageError: the text is no compiled pipeline.
    """
    return digest_of(yaml_documents.load(text, place=place))


def digest_of(documents: list[dict[str, Any]]) -> str:
    """Return the digest of documents that are already read; an empty platform document counts as none."""
    told = [normalised(document) for document in documents if document]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def normalised(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value in which ``7.0`` and ``7`` are one: servers write whole numbers without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(key): normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalised(item) for item in value]
    return value
