"""What the embedded Prediction Service answers, by the header ``X-Amz-Target``; each action takes and gives the protocol's JSON."""

from __future__ import annotations

from typing import Any

from trainshed.local.prediction import autoscaling, cloudwatch, vault
from trainshed.local.prediction.clusters import Clusters
from trainshed.local.prediction.controller import Controller
from trainshed.local.prediction.definitions import Definitions
from trainshed.local.prediction.deployments import Deployments
from trainshed.local.prediction.protocol import Action, RefusedError
from trainshed.local.prediction.records import Store
from trainshed.local.prediction.service_actions import Services
from trainshed.local.prediction.tasks import Tasks

TARGET = "AmazonEC2ContainerServiceV20141113."
_LOOKING = ("Describe", "Get", "List")


class Api:
    """Answers by action, one at a time."""

    def __init__(self, store: Store, controller: Controller) -> None:
        self._store = store
        groups = (Clusters(store), Definitions(store), Services(store, controller), Deployments(store), Tasks(store))
        self._actions: dict[str, Action] = {TARGET + name: action for group in groups for name, action in group.actions.items()}
        self._actions |= {autoscaling.TARGET + name: action for name, action in autoscaling.Scaling(store).actions.items()}
        # These look after their own locks: to read a task's log the engine is asked, and nobody shall wait for that.
        self._free = {vault.TARGET + name: action for name, action in controller.vault.actions.items()}
        logs = cloudwatch.Logs(store, controller.runner.log)
        self._free |= {cloudwatch.TARGET + name: action for name, action in logs.actions.items()}

    def answer(self, target: str, request: object) -> dict[str, Any]:
        """Answer one request; ``target`` is the header ``X-Amz-Target``.

        Raises:
            RefusedError: as AWS would refuse it.
        """
        known, free = self._actions.get(target), self._free.get(target)
        if not isinstance(request, dict):
            raise RefusedError("ClientException", "expected a JSON object")
        if free is not None:
            return free(request)
        if known is None:
            raise RefusedError("UnsupportedFeatureException", f"the embedded Prediction Service does not know {target}")
        if looks(target):
            with self._store.reading():
                return known(request)
        with self._store.changing():
            answer = known(request)
        if self._store.unwritten:
            raise RefusedError("ServerException", f"the records cannot be written: {self._store.unwritten}", 500)
        return answer


def looks(target: str) -> bool:
    """Tell whether an action only looks."""
    return target.rpartition(".")[2].startswith(_LOOKING)
