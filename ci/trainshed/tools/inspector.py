"""Amazon Inspector's word on an image: when it was last scanned. ECR tells the moment of the newest finding, so none of a clean image."""

from __future__ import annotations

from datetime import datetime

from trainshed import values
from trainshed.tools.aws import Aws

_SCANNED = frozenset({"SUCCESSFUL", "SCAN_FREQUENCY_SCAN_ON_PUSH"})
"""Reasons that Inspector gives for the state of an image which it has scanned: it goes on, or one scan was all that was asked for."""


def scanned_at(aws: Aws, *, account: str, repository: str, digest: str) -> datetime | None:
    """Return when an image was last scanned with success; None when it was not yet, or is none that Inspector looks after.

    Args:
        aws: the region of the registry.
        account: whose registry it is; of another account than the caller's nothing is told.
        repository: its path.
        digest: the image's.

    Raises:
        Refused: the caller may not ask.
        RemoteError: as `Aws.call`.
    """
    arn = f"arn:{values.partition(aws.region)}:ecr:{aws.region}:{account}:repository/{repository}/{digest}"
    criteria = {"resourceId": [{"comparison": "EQUALS", "value": arn}]}
    for page in aws.pages("inspector2", "list_coverage", filterCriteria=criteria):
        for covered in page.get("coveredResources", ()):
            scanned: datetime | None = covered.get("lastScannedAt")
            if scanned is not None and (covered.get("scanStatus") or {}).get("reason") in _SCANNED:
                return scanned
    return None
