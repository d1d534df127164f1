"""What is promised of artifact buckets: encrypted, TLS only, closed to the public, and cold storage for what is sensitive."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainshed.stages.auditing import statements
from trainshed.stages.auditing.promise import Audited, Promise, asked, judged
from trainshed.tools.buckets import Buckets, MissingBucket

_SECURE = "aws:securetransport"
_SAYS_FALSE = frozenset({"bool", "boolifexists", "stringequals", "stringequalsignorecase", "stringlike"})
_GLACIER = frozenset({"GLACIER", "GLACIER_IR", "DEEP_ARCHIVE"})
_DAYS = 30
_KMS, _KMS_TWICE = "aws:kms", "aws:kms:dsse"

_ENCRYPT = "Set the bucket's default encryption to SSE-KMS."
_KEY = "Turn the bucket key on: each object asks KMS otherwise."
_TLS = "Deny s3:* to everybody, on the bucket and its objects, where aws:SecureTransport is false."
_BLOCK = "Turn all four blocks of public access on."
_COLD = f"Add a lifecycle rule that moves what it holds to Glacier after {_DAYS} days at most."


def audit(buckets: Buckets, name: str, *, prefix: str = "", sensitive: bool = False) -> Audited:
    """Judge one bucket; ``prefix`` is where in it the artifacts are, for the lifecycle."""
    try:
        return Audited(kind="bucket", name=name, promises=tuple(_promises(buckets, name, prefix=prefix, sensitive=sensitive)))
    except MissingBucket as error:
        return Audited(kind="bucket", name=name, promises=(judged("exists", error.message, error.next_step),))


def audit_account(buckets: Buckets, account: str) -> Audited:
    """Judge what an account says of all its buckets."""
    blocked = asked("public access blocked for the account", lambda: _off(buckets.account_unblocked(account)), _BLOCK)
    return Audited(kind="account", name=account, promises=(blocked,))


def _promises(buckets: Buckets, name: str, *, prefix: str, sensitive: bool) -> list[Promise]:
    rules = functools.cache(lambda: buckets.encryption(name))
    found = [
        asked("encrypted with KMS", lambda: encryption_wrong(rules()), _ENCRYPT),
        asked("with a bucket key", lambda: key_wrong(rules()), _KEY),
        asked("TLS only", lambda: transport_wrong(buckets.policy(name), name), _TLS),
        asked("public access blocked", lambda: _off(buckets.unblocked(name)), _BLOCK),
    ]
    if sensitive:
        found.append(asked(f"to Glacier after {_DAYS} days", lambda: lifecycle_wrong(buckets.lifecycle(name), prefix), _COLD))
    return found


def encryption_wrong(rules: Sequence[Mapping[str, Any]]) -> str:
    """Say what is wrong with a default encryption."""
    kinds = [_algorithm(rule) for rule in rules]
    return "" if {_KMS, _KMS_TWICE} & set(kinds) else f"default encryption: {', '.join(filter(None, kinds)) or 'none'}"


def key_wrong(rules: Sequence[Mapping[str, Any]]) -> str:
    """Say that the bucket key is off where there can be one: KMS in two layers has none."""
    good = any(rule.get("BucketKeyEnabled") is True or _algorithm(rule) == _KMS_TWICE for rule in rules)
    return "" if good else "the bucket key is off"


def transport_wrong(policy: Mapping[str, Any] | None, bucket: str) -> str:
    """Say what a request without TLS could still do: statements that deny it must reach the bucket and all of its objects."""
    if policy is None:
        return "there is no bucket policy: requests without TLS are served"
    patterns = [_plain(one) for statement in statements.of(policy, statements.DENY) if _denies(statement) for one in _resources(statement)]
    wanted = {f"arn:aws:s3:::{bucket}": "the bucket", f"arn:aws:s3:::{bucket}/*": "its objects"}
    open_ = [told for arn, told in wanted.items() if not any(statements.matches(pattern, arn) for pattern in patterns)]
    return f"requests without TLS are not denied for {' and '.join(open_)}" if open_ else ""


def lifecycle_wrong(rules: Sequence[Mapping[str, Any]], prefix: str = "") -> str:
    """Say whether some of what lies below a prefix stays warm."""
    if any(_moves(rule) and _reaches(rule, prefix) for rule in rules):
        return ""
    place = f"all below {prefix}" if prefix else "all of it"
    return f"no rule in force moves {place} to Glacier within {_DAYS} days ({len(rules)} rules)" if rules else "there is no lifecycle"


def _algorithm(rule: Mapping[str, Any]) -> str:
    return str(rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", ""))


def _denies(statement: Mapping[str, Any]) -> bool:
    """Tell whether a denial is of everything, to everybody, and of all requests without TLS: another condition would let some through."""
    conditions = [
        (str(operator).lower(), str(key).lower(), statements.texts(value))
        for operator, below in (statement.get("Condition") or {}).items()
        for key, value in below.items()
    ]
    only = [(operator, key) for operator, key, values in conditions if "false" in [value.lower() for value in values]]
    insecure = len(conditions) == 1 and only == [(conditions[0][0], _SECURE)] and conditions[0][0] in _SAYS_FALSE
    everybody = ("AWS", statements.EVERYBODY) in statements.principals(statement)
    return (insecure or not conditions) and everybody and statements.covers(statement, "s3:*")


def _resources(statement: Mapping[str, Any]) -> tuple[str, ...]:
    return statements.texts(statement.get("Resource"))


def _plain(arn: str) -> str:
    """Write an ARN as those of AWS's main partition, so that all of them compare."""
    return re.sub(r"^arn:aws[a-z-]*:", "arn:aws:", arn)


def _moves(rule: Mapping[str, Any]) -> bool:
    if rule.get("Status") != "Enabled":
        return False
    moves = rule.get("Transitions") or ()
    return any(move.get("StorageClass") in _GLACIER and isinstance(move.get("Days"), int) and move["Days"] <= _DAYS for move in moves)


def _reaches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether a rule is about all below a prefix: one that asks for tags or sizes is about some of it."""
    chosen = rule.get("Filter") or {}
    chosen = {**chosen, **chosen.get("And", {})}
    others = set(chosen) - {"And", "Prefix"}
    start = chosen.get("Prefix", rule.get("Prefix")) or ""
    return not others and prefix.startswith(start)


def _off(blocks: Sequence[str]) -> str:
    return f"off: {', '.join(blocks)}" if blocks else ""
