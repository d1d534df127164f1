"""Who runs this, as Jenkins' variables tell it."""

from __future__ import annotations

import pytest

from trainshed import settings
from trainshed.settings import Tier

BUILD = {"BUILD_URL": "https://jenkins.example.org/job/1/"}
CHANGE = {**BUILD, "CHANGE_ID": "7", "CHANGE_TARGET": "main", "BRANCH_NAME": "PR-7"}


@pytest.mark.parametrize(
    ("environment", "tier"),
    [
        ({}, Tier.LAPTOP),
        ({"BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"}, Tier.LAPTOP),
        ({**BUILD, "BRANCH_NAME": "develop", "BRANCH_IS_PRIMARY": "true"}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "main"}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "master"}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "topic"}, Tier.PULL_REQUEST),
        (BUILD, Tier.PULL_REQUEST),
        ({**BUILD, "BRANCH_NAME": "main", "TRAINSHED_MAIN_BRANCH": "develop"}, Tier.PULL_REQUEST),
        ({**BUILD, "BRANCH_NAME": "develop", "TRAINSHED_MAIN_BRANCH": "develop"}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "trunk", "TRAINSHED_MAIN_BRANCH": "main trunk"}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "master", "TRAINSHED_MAIN_BRANCH": " "}, Tier.MAIN),
        ({**BUILD, "BRANCH_NAME": "main", "TAG_NAME": "main"}, Tier.PULL_REQUEST),
        (CHANGE, Tier.PULL_REQUEST),
        ({**CHANGE, "BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"}, Tier.PULL_REQUEST),
        ({**CHANGE, "CHANGE_FORK": "somebody"}, Tier.LAPTOP),
    ],
)
def test_a_run_is_trusted_by_what_jenkins_builds(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], tier: Tier) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.tier() is tier


@pytest.mark.parametrize(
    ("environment", "revision"),
    [
        ({}, None),
        (BUILD, None),
        ({"TRAINSHED_POLICY_FROM": "origin/main"}, "origin/main"),
        (CHANGE, "refs/remotes/origin/main"),
        ({**CHANGE, "CHANGE_TARGET": "release/2"}, "refs/remotes/origin/release/2"),
        ({**CHANGE, "TRAINSHED_POLICY_FROM": "HEAD"}, "refs/remotes/origin/main"),
        ({"CHANGE_ID": "7"}, "refs/remotes/origin/"),
    ],
)
def test_the_policy_of_a_pull_request_is_its_targets(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], revision: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settings.policy_revision() == revision


@pytest.mark.parametrize(
    ("url", "number"),
    [("https://j.example.org/job/a/job/main/7/", 7), ("https://j.example.org/job/a/12", 12), ("https://j.example.org/", 0), ("", 0)],
)
def test_the_number_of_a_build_is_the_end_of_its_address(monkeypatch: pytest.MonkeyPatch, url: str, number: int) -> None:
    monkeypatch.setenv("BUILD_URL", url)
    assert settings.build_number() == number
