"""All that a release imports, imported: for a process that is forked often."""

from __future__ import annotations

import boto3
import botocore.session

from trainshed import session
from trainshed.reports import records, writing
from trainshed.stages import release
from trainshed.stages.releasing import making, planning
from trainshed.tools import aws, ecs, kubeflow, registry

__all__ = ["aws", "boto3", "botocore", "ecs", "kubeflow", "making", "planning", "records", "registry", "release", "session", "writing"]
