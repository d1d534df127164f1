"""The deployable unit: an image, a model with its checksum, and a configuration; what is deployed, proven and rolled back as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainshed.services import difference, rendering

_KEY_LENGTH = 16
_OF_THE_MODEL = (rendering.URI, rendering.RUN_ID, rendering.SHA256, rendering.PATH)


@dataclass(frozen=True, kw_only=True)
class UnitModel:
    """The model of a unit. ``sha256`` is empty in what was deployed before checksums were taken."""

    uri: str
    run_id: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """``image`` is the reference, ``digest`` its end; ``configuration`` the SHA-256 of the definition without image and model."""

    image: str
    digest: str
    model: UnitModel | None
    configuration: str

    def document(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return asdict(self)

    @property
    def key(self) -> str:
        """Return what tells units apart in short. Where the image lies and which run gave the same model again makes no other unit."""
        model = [self.model.uri, self.model.sha256] if self.model is not None else None
        return _digest([self.digest, model, self.configuration])[:_KEY_LENGTH]


def unit_of(definition: Mapping[str, Any]) -> Unit:
    """Read the unit of a task definition: of one that is asked for, or of one that ECS has registered."""
    containers = definition.get("containerDefinitions") or [{}]
    variables = {pair["name"]: pair.get("value", "") for pair in containers[0].get("environment") or []}
    image = str(containers[0].get("image", ""))
    model = None
    if variables.get(rendering.URI):
        names = {"uri": rendering.URI, "run_id": rendering.RUN_ID, "sha256": rendering.SHA256}
        model = UnitModel(**{field: variables.get(name, "") for field, name in names.items()})
    settings = {place: value for place, value in difference.flat(definition).items() if not _of_image_or_model(place)}
    return Unit(image=image, digest=image.partition("@")[2], model=model, configuration=_digest(settings))


def _of_image_or_model(place: str) -> bool:
    if not place.startswith("containerDefinitions."):
        return place.startswith(f"volumes.{rendering.VOLUME}.")
    below = place.split(".", 2)[2] if place.count(".") > 1 else ""
    return below == "image" or below.startswith((f"mountPoints.{rendering.VOLUME}.", *(f"environment.{name}." for name in _OF_THE_MODEL)))


def _digest(document: Any) -> str:  # noqa: ANN401 - any JSON document
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
