from __future__ import annotations

import pytest

from trainshed.errors import UsageError
from trainshed.stages.jenkins.trigger import checked
from trainshed.tools.jenkins_records import Definition

DEFINED = [
    Definition(name="ENVIRONMENT", kind="string", default="local"),
    Definition(name="LAUNCH", kind="boolean", default="false"),
    Definition(name="RELEASE_BUMP", kind="choice", choices=("auto", "patch", "none")),
    Definition(name="GATES", kind="text"),
    Definition(name="FILE", kind="other"),
]


def test_values_are_handed_on_as_jenkins_reads_them() -> None:
    given = {"ENVIRONMENT": "dev", "LAUNCH": "True", "RELEASE_BUMP": "patch", "GATES": "auc > 1\nf1 > 2", "FILE": "x"}
    assert checked(DEFINED, given, branch="main") == {**given, "LAUNCH": "true"}


def test_all_problems_are_told_at_once_with_what_is_known() -> None:
    with pytest.raises(UsageError) as caught:
        checked(DEFINED, {"LAUNC": "true", "LAUNCH": "yes", "RELEASE_BUMP": "pach"}, branch="feature/x")
    assert caught.value.message.splitlines() == [
        "the job of branch feature/x has no parameter 'LAUNC'; perhaps you meant 'LAUNCH'",
        "parameter 'LAUNCH': expected true or false, not 'yes'",
        "parameter 'RELEASE_BUMP': expected one of auto, patch, none, not 'pach'; perhaps you meant 'patch'",
    ]
    assert "ENVIRONMENT (string), LAUNCH (boolean), RELEASE_BUMP (choice)" in caught.value.next_step
