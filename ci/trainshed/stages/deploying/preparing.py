"""What a deploy will do, found out before anything is touched: files read, the service looked at, all verified, the difference in words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainshed.errors import UsageError, problems
from trainshed.pipelines.lock import LockedImage
from trainshed.services import difference, golden, rendering, spec, unit
from trainshed.services.golden import Golden
from trainshed.services.rendering import Model
from trainshed.services.spec import Service
from trainshed.stages import models
from trainshed.stages.context import Context
from trainshed.stages.deploying import records, scaling, verification
from trainshed.stages.deploying.records import Known, Story
from trainshed.stages.deploying.returning import Before
from trainshed.stages.deploying.scaling import Found
from trainshed.tools.ecs import ServiceState


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What a release hands to its deploys: its name and its key, and the models that it decided on, by component."""

    release: str
    release_id: str
    models: Mapping[str, Model] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What shall run, checked before anything is touched, and how it differs from what runs. ``history`` is the ledger's, newest first."""

    component: str
    service: Service
    image: LockedImage
    model: Model | None
    golden: tuple[Golden, ...]
    golden_file: bytes
    definition: Mapping[str, Any]
    parameters: Mapping[str, Any]
    running: ServiceState | None
    history: Sequence[Known]
    scaling: Found
    definition_changes: tuple[str, ...]
    service_changes: tuple[str, ...]
    notes: tuple[str, ...]
    handed: Handed | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """Return all that differs, a line each."""
        return self.definition_changes + self.service_changes + self.scaling.changes

    @property
    def holds(self) -> bool:
        """Tell whether the revision that is wanted serves already, and was proven to."""
        running = self.running
        if running is None or self.definition_changes or self.service_changes:
            return False
        believed = next((known.revision for known in self.history if known.good), "")  # who knows another one may have an old answer
        return running.primary is not None and running.primary.complete and running.revision == believed

    @property
    def cause(self) -> str:
        """Say in a few words what is new; the changes themselves are in the result's details."""
        places = [change.partition(": ")[0] for change in self.changes]
        image = [place for place in places if place.endswith(".image")]
        of_the_model = (".MODEL_", f".mountPoints.{rendering.VOLUME}.", f"volumes.{rendering.VOLUME}.")
        model = [place for place in places if any(part in place for part in of_the_model)]
        others = [place for place in places if place not in {*image, *model}]
        told = ", ".join([*["new image"] * bool(image), *["new model"] * bool(model), *others])
        return told or "its last rollout was not followed to a good end"

    @property
    def golden_digest(self) -> str:
        """Return the digest of the golden requests, empty for none."""
        return f"sha256:{hashlib.sha256(self.golden_file).hexdigest()}" if self.golden_file else ""

    @property
    def previous(self) -> str | None:
        """Return the revision to go back to: the one that served until now, else the last that is known to be good.

        Where only the service's own settings change, it is the same revision, with the settings of before.
        """
        running = self.running
        if running is None:
            return None
        own = running.revision if not self.definition_changes and not self.service_changes else ""
        bad = {known.revision for known in self.history if known.state in {records.BAD, records.ROLLED_BACK}}
        settled = [one.revision for one in running.deployments if one.complete and one.revision not in bad]
        return next((found for found in [*settled, *(known.revision for known in self.history if known.good)] if found != own), None)

    @property
    def before(self) -> Before:
        """Return what the service goes back to where the deploy fails."""
        document = self.running.document if self.running is not None else {}
        settings = difference.former(document, self.parameters) if self.service_changes else {}
        return Before(revision=self.previous, settings=settings)

    def story(self, revision: str) -> Story:
        """Return what the ledger keeps of the revision."""
        return Story(
            component=self.component,
            service=self.service.name,
            revision=revision,
            image=self.image.reference,
            digest=self.image.digest,
            model=model_document(self.model),
            unit=unit.unit_of(self.definition).document(),
            golden=self.golden_digest,
            previous=self.previous,
            settings=self.before.settings,
            release=self.handed.release if self.handed is not None else "",
            release_id=self.handed.release_id if self.handed is not None else "",
        )


def read(context: Context, component: str) -> Service:
    """Read a component's ``service.yaml`` for the environment in force."""
    file = context.config.project.components / component / spec.FILE_NAME
    return spec.load(file, environment=context.config.environment.name, known=context.config.environments)


def require_sound(context: Context, names: Sequence[str]) -> None:
    """Read what describes the services.

    Raises:
        UsageError: with all problems of all their files at once.
    """
    wrong: list[UsageError] = []
    for name in names:
        try:
            service = read(context, name)
            if service.golden is not None:
                golden.load(service.golden)
        except UsageError as error:
            wrong.append(error)
    if wrong:
        raise problems([error.message for error in wrong], next_step=wrong[0].next_step)


def prepared(  # noqa: PLR0913 - what is deployed
    context: Context, component: str, image: LockedImage, *, from_run: str | None, commit: str | None, handed: Handed | None = None
) -> Wanted:
    """Look at the service, verify all that can be verified, then say what differs."""
    ecs, service = context.prediction, read(context, component)
    requests = golden.load(service.golden) if service.golden is not None else ()
    running = ecs.service(service.name)
    if handed is not None:
        model = handed.models.get(component)
    else:
        model = models.model_of(context, service.model, from_run) if service.model is not None else None
    verified = verification.verify(context, service, image, model=model)
    definition = rendering.task_definition(service, image.reference, model=model, secrets=verified.secrets, region=ecs.region)
    tags = rendering.tags(unit=unit.unit_of(definition).key, commit=commit, build_url=context.build_url)
    history = records.history(context, service.name)
    found = scaling.look(ecs, service)
    parameters = _parameters(service, running, found, history)
    now = ecs.task_definition(running.revision) if running is not None else None
    return Wanted(
        component=component,
        service=service,
        image=image,
        model=model,
        golden=requests,
        golden_file=service.golden.read_bytes() if service.golden is not None else b"",
        definition={**definition, **({"tags": tags} if tags else {})},
        parameters=parameters,
        running=running,
        history=history,
        scaling=found,
        definition_changes=tuple(difference.changes(now, definition)),
        service_changes=tuple(difference.service_changes(running.document, parameters)) if running is not None else (),
        notes=(*verified.notes, *found.notes),
        handed=handed,
    )


def model_document(model: Model | None) -> dict[str, str] | None:
    """Return the model as the ledger and the report tell it."""
    return {"uri": model.uri, "run_id": model.run_id, "sha256": model.sha256} if model is not None else None


def _parameters(service: Service, running: ServiceState | None, found: Found, history: Sequence[Known]) -> dict[str, Any]:
    parameters = rendering.service_parameters(service, exists=running is not None)
    if running is None:
        return parameters
    if found.owns:
        parameters.pop("desiredCount", None)
    stopped_by_us = any(known.revision == running.revision and known.state == records.BAD for known in history)
    if running.desired == 0 and stopped_by_us and service.first_count:
        parameters["desiredCount"] = service.first_count  # autoscaling starts nothing from 0
    return parameters
