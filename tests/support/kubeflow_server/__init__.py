"""A Kubeflow Pipelines for tests: over real HTTP, with the real server's rules, limits, answers and errors, and faults on request."""

from __future__ import annotations

from tests.support.kubeflow_server.faults import KINDS, Fault, Faults
from tests.support.kubeflow_server.records import Clock, Refused
from tests.support.kubeflow_server.runs import Script
from tests.support.kubeflow_server.server import Asked, StrictServer

__all__ = ["KINDS", "Asked", "Clock", "Fault", "Faults", "Refused", "Script", "StrictServer"]
