from __future__ import annotations

from urllib.parse import quote_plus

import pytest

from tests.support.kubeflow import specification, step
from trainshed.stages import versions

DIGEST = "sha256:" + "abcdef12" * 8


@pytest.mark.parametrize(
    ("tags", "release"),
    [
        (["v1.2.3"], "v1.2.3"),
        (["1.2.3"], "1.2.3"),
        (["v1.9.0", "v1.10.0", "nightly"], "v1.10.0"),
        (["v2.0.0-rc.1", "v1.9.9", "v2.0.0"], "v2.0.0"),
        (["1.2", "v1", "version-1.2.3", "vv1.2.3", ""], None),
        ([], None),
    ],
)
def test_the_highest_semantic_version_is_the_release(tags: list[str], release: str | None) -> None:
    assert versions.semantic(tags) == release


@pytest.mark.parametrize(
    ("release", "branch", "commit", "name"),
    [
        ("v1.2.3", "main", "c" * 40, "v1.2.3"),
        (None, "main", "c" * 40, "main-cccccccc-abcdef12"),
        (None, "feature/a b", "c" * 40, "feature-a-b-cccccccc-abcdef12"),
        (None, "bug/größe-1.2", "c" * 40, "bug-gr-e-1.2-cccccccc-abcdef12"),
        (None, "日本", "c" * 40, "cccccccc-abcdef12"),
        (None, None, "c" * 40, "detached-cccccccc-abcdef12"),
        (None, None, None, "uncommitted-abcdef12"),
        (None, "x" * 200, "c" * 40, "x" * 109 + "-cccccccc-abcdef12"),
    ],
)
def test_a_version_is_named_by_its_release_or_its_commit(release: str | None, branch: str | None, commit: str | None, name: str) -> None:
    assert versions.name(release=release, branch=branch, commit=commit, digest=DIGEST) == name
    assert len(name) <= 127


def test_a_description_tells_commit_build_and_images_and_stays_short_enough_for_an_address() -> None:
    def told(count: int) -> str:
        images = {f"component-{number:03}": f"registry/x@sha256:{number:064x}" for number in range(count)}
        return versions.description(commit="abc", lock_digest="sha256:1", digest=DIGEST, build_url="https://ci/7/", images=images)

    assert told(1).splitlines() == [
        "commit: abc",
        "images: sha256:1",
        f"content: {DIGEST}",
        "build: https://ci/7/",
        f"image component-000: sha256:{0:064x}",
    ]
    assert versions.told_digest(told(1)) == DIGEST
    assert versions.told_release(told(1)) == ""
    by_release = versions.description(commit="abc", lock_digest="sha256:1", digest=DIGEST, build_url=None, images={}, release="abc-1")
    assert (versions.told_release(by_release), versions.told_digest(by_release)) == ("abc-1", DIGEST)
    many = told(200).splitlines()
    assert len(quote_plus(told(200))) <= versions.DESCRIPTION_LIMIT
    assert many[-1] == f"… {200 - (len(many) - 5)} more images"


def test_tags_are_cut_to_what_kubeflow_takes() -> None:
    told = versions.tags(project="p", commit="c" * 40, branch="b" * 100, build_url="https://ci/job/x/17/", digest=DIGEST)
    assert told == {"project": "p", "commit": "c" * 40, "branch": "b" * 63, "build": "17", "content": "abcdef12"}
    assert versions.tags(project="p", commit=None, branch=None, build_url=None, digest=DIGEST) == {"project": "p", "content": "abcdef12"}


def test_a_difference_names_moved_images_first_and_is_bounded() -> None:
    before = specification("p", {f"task-{number:02}": step("a", image=f"x@sha256:{number}") for number in range(60)})
    after = specification("p", {f"task-{number:02}": step("b", image=f"x@sha256:{number or 99}") for number in range(60)})
    lines = versions.difference([before], [after], name="v1").splitlines()
    assert lines[:3] == ["image of exec-task-00: x@sha256:0 → x@sha256:99", "--- v1", "+++ this upload"]
    assert (len(lines), lines[-1].endswith("more lines")) == (42, True)
