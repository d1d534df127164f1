"""ECR: the side of AWS of a registry."""

from __future__ import annotations

from trainshed.tools.aws import Aws


class Ecr:
    """The repositories of one account in one region.

    Args:
        aws: the region, and as whom it is asked.
        account: whose registry it is; it may be another than that of whoever asks.
    """

    def __init__(self, aws: Aws, *, account: str) -> None:
        self.aws, self.account = aws, account
