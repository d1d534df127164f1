"""Secrets Manager and the parameters of Systems Manager: whether a secret is there and may be read. Its value is never kept."""

from __future__ import annotations

import json
from dataclasses import dataclass

from trainshed.errors import UsageError
from trainshed.tools.aws import Aws

_STORE, _PARAMETERS = "secretsmanager", "ssm"
_REGION, _SERVICE, _SECRET_PARTS = 3, 2, 7


@dataclass(frozen=True, kw_only=True)
class Secret:
    """What ``service.yaml`` refers to. ``store`` is AWS's name of the service; ``rest`` is ``:key:stage:version`` of a secret.

    A reference is a secret's name or ARN with ``#key`` of its JSON, its ARN as ECS has it (the key behind a colon), or a parameter's ARN.
    """

    store: str
    name: str
    key: str = ""
    stage: str = ""
    version: str = ""

    @property
    def rest(self) -> str:
        """Return what stands behind the ARN in a task definition."""
        return f":{self.key}:{self.stage}:{self.version}" if self.key or self.stage or self.version else ""


def parsed(reference: str) -> Secret:
    """Read a reference."""
    name, _, key = reference.partition("#")
    parts = name.split(":")
    if parts[0] != "arn" or len(parts) < _SECRET_PARTS - 1:
        return Secret(store=_STORE, name=name, key=key)
    if parts[_SERVICE] == _PARAMETERS:
        return Secret(store=_PARAMETERS, name=name, key=key)
    native = [*parts[_SECRET_PARTS:], "", "", ""]
    return Secret(store=_STORE, name=":".join(parts[:_SECRET_PARTS]), key=key or native[0], stage=native[1], version=native[2])


class SecretStore:
    """The secrets of one region, or of that which an ARN names."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws

    def read(self, reference: str) -> str:
        """Read a secret as a task would, forget its value, and return what a task definition's ``valueFrom`` takes.

        Raises:
            Refused: it may not be read.
            UsageError: there is no such secret, or no such key in its JSON.
        """
        secret = parsed(reference)
        return self._parameter(secret, reference) if secret.store == _PARAMETERS else self._secret(secret, reference)

    def look_up(self, reference: str) -> str:
        """Return what `read` returns, without reading the secret: that its key is there is not shown."""
        secret = parsed(reference)
        if secret.store == _PARAMETERS or secret.name.startswith("arn:"):
            return f"{secret.name}{secret.rest}"
        answer = self.aws.find(_STORE, "describe_secret", "ResourceNotFoundException", SecretId=secret.name)
        if answer is None:
            raise _missing(secret.name)
        return f"{answer['ARN']}{secret.rest}"

    def _parameter(self, secret: Secret, reference: str) -> str:
        if secret.key:
            raise UsageError(f"parameter '{reference}': a parameter has no JSON keys", next_step="Take the # away.")
        name = secret.name.partition(":parameter")[2]
        answer = self._near(secret.name).find(_PARAMETERS, "get_parameter", "ParameterNotFound", Name=name, WithDecryption=True)
        if answer is None and "/" not in name[1:]:  # the ARN of a name without a path has a slash that the name lacks
            answer = self._near(secret.name).find(_PARAMETERS, "get_parameter", "ParameterNotFound", Name=name[1:], WithDecryption=True)
        if answer is None:
            raise UsageError(f"there is no parameter '{secret.name}'", next_step="Create it, or mend the reference.")
        return secret.name

    def _secret(self, secret: Secret, reference: str) -> str:
        asked = {"SecretId": secret.name, "VersionStage": secret.stage, "VersionId": secret.version}
        given = {name: value for name, value in asked.items() if value}
        answer = self._near(secret.name).find(_STORE, "get_secret_value", "ResourceNotFoundException", **given)
        if answer is None:
            raise _missing(reference)
        if secret.key:
            _require_key(secret, answer.get("SecretString"))
        return f"{answer['ARN']}{secret.rest}"

    def _near(self, name: str) -> Aws:
        return self.aws.elsewhere(name.split(":")[_REGION]) if name.startswith("arn:") else self.aws


def _require_key(secret: Secret, text: str | None) -> None:
    try:
        document = json.loads(text or "")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UsageError(
            f"secret '{secret.name}' is no JSON object: it has no key '{secret.key}'", next_step="Make it one, or drop the key."
        )
    if secret.key not in document:  # the keys that there are may be part of what is secret
        raise UsageError(f"secret '{secret.name}' has no JSON key '{secret.key}'", next_step="Add the key, or mend service.yaml.")


def _missing(name: str) -> UsageError:
    return UsageError(f"there is no secret '{name}'", next_step="Create it, or mend the reference.")
