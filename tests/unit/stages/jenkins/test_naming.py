from __future__ import annotations

import pytest

from trainshed.errors import UsageError
from trainshed.stages.jenkins import naming

URL = "https://ci.example.org/jenkins"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (None, None)),
        ("12", (None, 12)),
        ("#12", (None, 12)),
        (f"{URL}/job/team/job/repo/job/main/7/", ("main", 7)),
        (f"{URL}/job/team/job/repo/job/main/7", ("main", 7)),
        (f"{URL}/job/team/job/repo/job/feature%252Fx/31/console", ("feature/x", 31)),
        (f"{URL}/job/team/job/repo/job/PR-7/2/testReport/?page=1#x", ("PR-7", 2)),
        ("http://CI.example.org/jenkins/job/team/job/repo/job/main/7/", ("main", 7)),
    ],
)
def test_a_build_is_named_by_number_or_by_the_address_of_its_page(text: str | None, expected: tuple[str | None, int | None]) -> None:
    assert naming.parse_build(text, url=URL, job="team/repo") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("twelve", "'twelve' is no build"),
        ("0", "is no build"),
        ("-1", "is no build"),
        ("https://other.example.org/jenkins/job/team/job/repo/job/main/7/", "not a build of"),
        ("https://ci.example.org/job/team/job/repo/job/main/7/", "not a build of"),
        ("https://ci.example.org/jenkins2/job/team/job/repo/job/main/7/", "not a build of"),
        (f"{URL}/job/team/job/repo/job/main/", "not the address of a build"),
        (f"{URL}/job/team/job/other/job/main/7/", "a build of job 'team/other', not of 'team/repo'"),
        (f"{URL}/job/repo/job/main/7/", "a build of job 'repo', not of 'team/repo'"),
        (f"{URL}/job/main/7/", "a build of job '', not of"),
    ],
)
def test_what_is_no_build_of_the_job_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        naming.parse_build(text, url=URL, job="team/repo")


def test_a_folder_s_name_tells_job_branch_and_number() -> None:
    assert naming.folder("team/repo", "feature/x y", 12) == "repo-feature-x-y-12"
    assert naming.folder("/repo/", "../..", 3) == "repo-3"


@pytest.mark.parametrize(
    ("branch", "told"),
    [("PR-7", "pull request PR-7"), ("PR-7-head", "pull request PR-7-head"), ("main", "build of main"), ("topic", "build of branch topic")],
)
def test_whose_build_it_is_is_said(branch: str, told: str) -> None:
    assert told in naming.kind(branch)
