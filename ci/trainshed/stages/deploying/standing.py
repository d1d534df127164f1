"""How a service stands: what runs, what the ledger, the lock and service.yaml say of it, and where these differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainshed.pipelines.lock import LockedImage
from trainshed.services import difference, rendering
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.services.unit import unit_of
from trainshed.stages.deploying.records import Known
from trainshed.tools.ecs import ServiceState, Task, short

_ARN_PARTS = 7  # of a secret's ARN, before the key of its JSON


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What was found out about one service.

    ``believed`` is the newest revision that the ledger knows to be good; ``image`` is the lock's, None without a lock of this tree.
    """

    service: Service
    state: ServiceState | None
    definition: Mapping[str, Any]
    tasks: Sequence[Task]
    believed: Known | None
    image: LockedImage | None
    region: str

    @property
    def container(self) -> Mapping[str, Any]:
        """Return the service's own container of the revision that is asked for."""
        named = [one for one in self.definition.get("containerDefinitions", []) if one.get("name") == self.service.name]
        return named[0] if named else {}

    @property
    def digests(self) -> tuple[str, ...]:
        """Return the digests that really run, those of a rollout side by side."""
        found = {one.digest for task in self.tasks for one in task.containers if one.name == self.service.name and one.digest}
        return tuple(sorted(found))

    @property
    def model(self) -> Model | None:
        """Return the model of the revision that is asked for."""
        found = unit_of(self.definition).model
        if found is None:
            return None
        volumes = [one for one in self.definition.get("volumes", []) if one.get("name") == rendering.VOLUME]
        path = "".join(one.get("host", {}).get("sourcePath", "") for one in volumes)
        return Model(uri=found.uri, run_id=found.run_id, sha256=found.sha256, path=path)

    @property
    def rollout(self) -> str:
        """Return how the deployment that ECS works towards stands, in lower case; empty when there is none."""
        primary = self.state.primary if self.state is not None else None
        return primary.rollout.lower().replace("_", " ") if primary is not None else ""

    def drift(self) -> list[str]:
        """List what is not as the ledger, the lock or service.yaml say, a line each."""
        if self.state is None:
            return [f"the service is gone: the ledger says that {short(self.believed.revision)} serves"] if self.believed else []
        return [*self._from_ledger(self.state), *self._from_itself(self.state), *self._from_lock(), *self._from_file(self.state)]

    def _from_ledger(self, state: ServiceState) -> list[str]:
        if self.believed is None:
            return [f"{short(state.revision)} is asked for, and the ledger knows of no deployment that ended well"]
        if self.believed.revision != state.revision:
            return [f"{short(state.revision)} is asked for, the ledger says {short(self.believed.revision)}"]
        return []

    def _from_itself(self, state: ServiceState) -> list[str]:
        """Compare what runs with what ECS was asked for."""
        found, primary = [], state.primary
        if primary is None or not primary.complete:
            reason = f": {primary.reason}" if primary is not None and primary.reason else ""
            found.append(f"its deployment is {self.rollout or 'not there'}{reason}")
        elif state.running < state.desired and self.service.autoscaling is None:
            found.append(f"{state.running} of {state.desired} tasks run")
        asked = str(self.container.get("image", "")).partition("@")[2]
        found += [f"{digest} runs, {short(state.revision)} asks for {asked}" for digest in self.digests if asked and digest != asked]
        return found

    def _from_lock(self) -> list[str]:
        if self.image is None:
            return []
        running = self.digests or (str(self.container.get("image", "")).partition("@")[2],)
        return [
            f"image: {digest or 'one without a digest'} runs, the lock has {self.image.digest}"
            for digest in running
            if digest != self.image.digest
        ]

    def _from_file(self, state: ServiceState) -> list[str]:
        """Compare the settings with service.yaml, as if it were deployed with the image and the model that run."""
        model = self.model
        found = []
        if (model is None) != (self.service.model is None):
            has = "is deployed with a model, service.yaml names none" if model else "is deployed without the model that service.yaml names"
            found.append(f"model: {short(state.revision)} {has}")
        asked = {pair["name"]: pair["valueFrom"] for pair in self.container.get("secrets", [])}
        secrets = {name: _kept(reference, asked.get(name, "")) for name, reference in self.service.secrets.items()}
        image = str(self.container.get("image", ""))
        wanted = rendering.task_definition(self.service, image, model=model, secrets=secrets, region=self.region)
        found += [f"service.yaml: {change}" for change in difference.changes(self.definition, wanted)]
        parameters = rendering.service_parameters(self.service, exists=True)
        return found + [f"service.yaml: {change}" for change in difference.service_changes(state.document, parameters)]


def _kept(reference: str, asked: str) -> str:
    """Return what is deployed where it means the secret of service.yaml, else that secret: nobody is asked for its ARN."""
    name, _, key = reference.partition("#")
    parts = asked.split(":")
    if len(parts) < _ARN_PARTS:
        return reference
    deployed = parts[_ARN_PARTS - 1]  # six characters of Secrets Manager's own stand behind the name
    same = name in {":".join(parts[:_ARN_PARTS]), deployed, deployed.rpartition("-")[0]}
    return asked if same and "".join(parts[_ARN_PARTS : _ARN_PARTS + 1]) == key else reference
