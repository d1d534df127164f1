"""ECR's lifecycle previews and pull-through rules, which moto lacks: the rules are evaluated as ECR documents it."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.aws_door import Door

_PAGE = 2


@dataclass(frozen=True)
class Image:
    """An image of a repository; ``days`` is its age."""

    digest: str
    tags: frozenset[str]
    days: float


def expiring(policy: Mapping[str, Any], images: Iterable[Image]) -> dict[str, int]:
    """Return what a policy deletes, with the rule. An image that the tags of one rule match is left alone by the rules after it."""
    left, found = list(images), {}  # type: list[Image], dict[str, int]
    for rule in sorted(policy["rules"], key=lambda rule: int(rule["rulePriority"])):
        selection = rule["selection"]
        assert selection["countType"] == "sinceImagePushed"
        matched = [image for image in left if _matches(selection, image.tags)]
        found |= {image.digest: int(rule["rulePriority"]) for image in matched if image.days > selection["countNumber"]}
        left = [image for image in left if image not in matched]
    return found


def _matches(selection: Mapping[str, Any], tags: frozenset[str]) -> bool:
    if selection["tagStatus"] == "untagged":
        return not tags
    return all(any(fnmatch.fnmatchcase(tag, pattern) for tag in tags) for pattern in selection["tagPatternList"])


@dataclass
class Lifecycle:
    """Answers in moto's place, behind a door. ``images`` tells what a repository holds when a policy is evaluated.

    ``busy`` is how often somebody else's evaluation is still on; ``unknown`` how often ours is not known yet, ``ends`` the status in which
    it ends.
    """

    images: Callable[[str], Iterable[Image]] = lambda _name: ()
    busy: int = 0
    unknown: int = 0
    ends: str = "COMPLETE"
    looks: int = 0
    started: dict[str, str] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)

    def stand(self, door: Door) -> None:
        """Answer at a door."""
        door.computed |= {
            "ecr StartLifecyclePolicyPreview": self._start,
            "ecr GetLifecyclePolicyPreview": self._get,
            "ecr DescribePullThroughCacheRules": lambda _asked: (200, {"pullThroughCacheRules": list(self.rules.values())}),
            "ecr CreatePullThroughCacheRule": self._rule,
        }

    def _start(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.busy:
            self.busy -= 1
            return 400, {"__type": "LifecyclePolicyPreviewInProgressException", "message": "one is in progress"}
        self.started[asked["repositoryName"]], self.looks = asked["lifecyclePolicyText"], 0
        return 200, {**asked, "status": "IN_PROGRESS"}

    def _get(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.unknown:
            self.unknown -= 1
            return 400, {"__type": "LifecyclePolicyPreviewNotFoundException", "message": "there is no preview"}
        name, self.looks = asked["repositoryName"], self.looks + 1
        text = self.started[name]
        answer = {"repositoryName": name, "lifecyclePolicyText": text, "status": "IN_PROGRESS" if self.looks == 1 else self.ends}
        if answer["status"] != "COMPLETE":
            return 200, answer
        start = int(asked.get("nextToken", "0"))
        found = sorted(expiring(json.loads(text), self.images(name)).items())
        results = [{"imageDigest": digest, "action": {"type": "EXPIRE"}, "appliedRulePriority": rule} for digest, rule in found]
        more = {"nextToken": str(start + _PAGE)} if start + _PAGE < len(results) else {}
        return 200, {**answer, **more, "previewResults": results[start : start + _PAGE]}

    def _rule(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.rules[asked["ecrRepositoryPrefix"]] = asked
        return 200, asked
