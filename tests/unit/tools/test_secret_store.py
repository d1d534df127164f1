from __future__ import annotations

import json
from typing import Any, cast

import pytest

from trainshed.errors import UsageError
from trainshed.tools.aws import Aws
from trainshed.tools.secret_store import Secret, SecretStore, parsed

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/token-AbCdEf"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter"
HIDDEN = "not-to-be-seen"


class Store:
    """Secrets and parameters as AWS answers for them."""

    def __init__(self, **known: str) -> None:
        self.known, self.regions = known, list[str]()

    def elsewhere(self, region: str) -> Store:
        self.regions.append(region)
        return self

    def find(self, service: str, operation: str, *_missing: str, **asked: Any) -> dict[str, Any] | None:
        assert (service, operation) in {("secretsmanager", "get_secret_value"), ("ssm", "get_parameter")}
        name = asked.get("SecretId") or asked["Name"]
        return {"ARN": ARN, "SecretString": self.known[name]} if name in self.known else None


def store(**known: str) -> tuple[SecretStore, Store]:
    aws = Store(**known)
    return SecretStore(cast("Aws", aws)), aws


@pytest.mark.parametrize(
    ("reference", "secret"),
    [
        ("token", Secret(store="secretsmanager", name="token")),
        ("team/token#key", Secret(store="secretsmanager", name="team/token", key="key")),
        (ARN, Secret(store="secretsmanager", name=ARN)),
        (f"{ARN}#key", Secret(store="secretsmanager", name=ARN, key="key")),
        (f"{ARN}:key::", Secret(store="secretsmanager", name=ARN, key="key")),
        (f"{ARN}::AWSPREVIOUS:", Secret(store="secretsmanager", name=ARN, stage="AWSPREVIOUS")),
        (f"{PARAMETER}/a/b", Secret(store="ssm", name=f"{PARAMETER}/a/b")),
    ],
)
def test_a_reference_is_read_in_each_of_its_forms(reference: str, secret: Secret) -> None:
    assert parsed(reference) == secret


def test_a_secret_is_asked_for_where_its_arn_says() -> None:
    reader, aws = store(**{ARN: json.dumps({"key": HIDDEN})})
    assert reader.read(f"{ARN}#key") == f"{ARN}:key::"
    assert aws.regions == ["eu-west-1"]


@pytest.mark.parametrize(("path", "name"), [("/a/b", "/a/b"), ("/plain", "plain")])
def test_a_parameter_without_a_path_has_no_slash(path: str, name: str) -> None:
    reader, _ = store(**{name: HIDDEN})
    assert reader.read(f"{PARAMETER}{path}") == f"{PARAMETER}{path}"


@pytest.mark.parametrize("text", [HIDDEN, json.dumps([HIDDEN]), json.dumps({"another": HIDDEN}), ""])
def test_what_a_secret_holds_is_never_told(text: str) -> None:
    reader, _ = store(token=text)
    with pytest.raises(UsageError, match="key 'key'") as told:
        reader.read("token#key")
    assert HIDDEN not in told.value.told
    assert "another" not in told.value.told


def test_a_parameter_has_no_keys() -> None:
    reader, _ = store()
    with pytest.raises(UsageError, match="a parameter has no JSON keys"):
        reader.read(f"{PARAMETER}/a#key")
