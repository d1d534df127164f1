"""Secrets Manager's actions over one file that only its owner may read; what a task's ``valueFrom`` stands for comes from here."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainshed.files import write_bytes
from trainshed.local.prediction.protocol import Action, Document, RefusedError
from trainshed.local.prediction.records import ACCOUNT, REGION

TARGET = "secretsmanager."
_SUFFIX = 6
_ARN_PARTS = 7
_MISSING = "Secrets Manager can't find the specified secret."
_FETCH = "unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm"


class Vault:
    """The secrets of one state, in a file with mode 0600."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = json.loads(file.read_bytes()) if file.exists() else {}
        self.actions: dict[str, Action] = {
            "CreateSecret": self._create,
            "PutSecretValue": self._put,
            "GetSecretValue": self._get,
            "DescribeSecret": self._describe,
        }

    def value(self, reference: str) -> str:
        """Return what ``valueFrom`` stands for: a name or an ARN, with ``:json-key:version-stage:version-id`` after the ARN.

        Raises:
            RefusedError: with the words that ECS has for it.
        """
        name, key = _split(reference)
        with self._lock:
            found = self._found(name)
        if found is None or found["value"] is None:
            said = f"{_FETCH}: service call has been retried 1 time(s): failed to fetch secret {name} from secrets manager"
            raise RefusedError("ResourceInitializationError", f"{said}: ResourceNotFoundException: {_MISSING}")
        text = found["value"]
        if not key:
            return str(text)
        try:
            value = json.loads(text)[key]
        except (ValueError, TypeError, KeyError):  # the value itself stands in no error
            said = f"{_FETCH}: retrieved secret from Secrets Manager did not contain json key {key}"
            raise RefusedError("ResourceInitializationError", said) from None
        return value if isinstance(value, str) else json.dumps(value)

    def _create(self, request: Document) -> dict[str, Any]:
        name = str(request.get("Name") or "")
        if not name:
            raise RefusedError("InvalidParameterException", "You must provide a name.")
        with self._lock:
            if name in self._known:
                raise RefusedError("ResourceExistsException", f"The operation failed because the secret {name} already exists.")
            arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{uuid.uuid4().hex[:_SUFFIX]}"
            empty = {"arn": arn, "created": time.time(), "changed": time.time(), "value": None, "version": ""}
            return _named(name, self._stored(name, empty, request))

    def _put(self, request: Document) -> dict[str, Any]:
        with self._lock:
            name, found = self._wanted(request)
            return _named(name, self._stored(name, found, request)) | {"VersionStages": ["AWSCURRENT"]}

    def _get(self, request: Document) -> dict[str, Any]:
        with self._lock:
            name, found = self._wanted(request)
            if found["value"] is None:
                message = "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT"
                raise RefusedError("ResourceNotFoundException", message)
            value = {"SecretString": found["value"], "VersionStages": ["AWSCURRENT"], "CreatedDate": found["changed"]}
            return _named(name, found) | value

    def _describe(self, request: Document) -> dict[str, Any]:
        with self._lock:
            name, found = self._wanted(request)
            shown: dict[str, Any] = {
                "ARN": found["arn"],
                "Name": name,
                "CreatedDate": found["created"],
                "LastChangedDate": found["changed"],
            }
            return shown | ({"VersionIdsToStages": {found["version"]: ["AWSCURRENT"]}} if found["version"] else {})

    def _stored(self, name: str, found: Mapping[str, Any], request: Document) -> dict[str, Any]:
        """Return a secret with its new value, once it is on the disk."""
        fresh = dict(found)
        value = request.get("SecretString")
        if value is not None:
            fresh |= {"value": str(value), "version": str(request.get("ClientRequestToken") or uuid.uuid4()), "changed": time.time()}
        known = {**self._known, name: fresh}
        write_bytes(self._file, json.dumps(known).encode(), mode=0o600)
        self._known = known
        return fresh

    def _wanted(self, request: Document) -> tuple[str, dict[str, Any]]:
        found = self._found(str(request.get("SecretId", "")))
        if found is None:
            raise RefusedError("ResourceNotFoundException", _MISSING)
        return next(name for name, one in self._known.items() if one is found), found

    def _found(self, wanted: str) -> dict[str, Any] | None:
        """Find a secret by its name, its ARN, or its ARN without the random end."""
        for name, one in self._known.items():
            if wanted in {name, one["arn"], one["arn"].rpartition("-")[0]}:
                return one
        return None


def _split(reference: str) -> tuple[str, str]:
    """Return the secret of a ``valueFrom``, and the JSON key where one is asked for."""
    if not reference.startswith("arn:"):
        return reference, ""
    parts = reference.split(":")
    return ":".join(parts[:_ARN_PARTS]), parts[_ARN_PARTS] if len(parts) > _ARN_PARTS else ""


def _named(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"ARN": found["arn"], "Name": name, **({"VersionId": found["version"]} if found["version"] else {})}
