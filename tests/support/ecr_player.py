"""A player of recorded answers about ECR's scans, behind the door to AWS: real boto3 asks."""

from __future__ import annotations

from typing import Any

from tests.support.aws_door import Door
from tests.support.ecr_answers import ACCOUNT, DIGEST, REPOSITORY, Answer
from trainshed.tools.ecr_scans import EcrScans, Pace, Scan, Wanted

FINDINGS, START, CONFIGURATION = "ecr DescribeImageScanFindings", "ecr StartImageScan", "ecr GetRegistryScanningConfiguration"
QUICK = Pace(look=0.1, settle=0.05, unsure=0.2, missing=0.3, tell=0.1)
WANTED = Wanted(repository=REPOSITORY, digest=DIGEST, max_age=86_400.0, timeout=60.0)


def error(code: str, status: int = 400) -> tuple[int, Answer]:
    """Return a refusal by its code."""
    return status, {"__type": code, "message": f"the words of {code}"}


class Player:
    """Plays answers about scans, the last one for ever, and keeps what was asked."""

    def __init__(self, door: Door) -> None:
        self.door, self.asked = door, list[dict[str, Any]]()

    def play(self, *script: Answer | tuple[int, Answer]) -> None:
        """Answer with these, one after the other."""
        left = list(script)

        def say(asked: dict[str, Any]) -> tuple[int, Answer]:
            self.asked.append(asked)
            said = left.pop(0) if len(left) > 1 else left[0]
            return said if isinstance(said, tuple) else (200, said)

        self.door.computed[FINDINGS] = say

    def count(self, what: str) -> int:
        """Return how often an operation was asked for."""
        return sum(one.what == what for one in self.door.asked)

    def findings(self, wanted: Wanted = WANTED, *, pace: Pace = QUICK) -> Scan:
        """Wait for them."""
        return EcrScans(self.door.aws, account=ACCOUNT, pace=pace).await_findings(wanted, on_progress=lambda _: None)
