"""Images: whether the registry still has, by digest, what the lock, the release in force and the running services refer to."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from trainshed.errors import Interrupted, TrainshedError
from trainshed.images import references as image
from trainshed.local.services import REGISTRY
from trainshed.results import Result
from trainshed.stages.context import Context
from trainshed.stages.standing import telling
from trainshed.stages.survey import LOOKUPS
from trainshed.tools import process

KIND = "images"
_COLUMNS = ("images of", "there", "elsewhere", "drift")


def results(context: Context, referring: Mapping[str, Mapping[str, str]], *, stopped: bool) -> list[Result]:
    """Tell how the images stand that each of those who refer to some does: who → component → reference."""
    wanted = {who: dict(references) for who, references in referring.items() if references}
    if not wanted:
        return [telling.absent(KIND, KIND, "nothing refers to any")]
    if stopped:
        return [telling.not_running(KIND, KIND, REGISTRY, {"of": sorted(wanted)})]
    own = {reference for references in wanted.values() for reference in references.values() if _here(context, reference)}
    there = _looked_up(context, own)
    found = [telling.asked(KIND, f"images of {who}", partial(_result, who, wanted[who], there)) for who in wanted]
    context.console.table(f"images of {context.config.environment.name}", _COLUMNS, [_row(result) for result in found])
    return found


def _here(context: Context, reference: str) -> bool:
    """Tell whether a reference is to this environment's registry: others are asked by their own environments."""
    registry = context.config.environment.registry
    return registry is None or reference.startswith(f"{registry.url}/")


def _looked_up(context: Context, references: set[str]) -> dict[str, bool | TrainshedError]:
    """Ask for each image once, side by side; where the registry does not answer, that stands in the place of the answer."""

    def ask(reference: str) -> bool | TrainshedError:
        try:
            return context.registry.digest(reference) is not None
        except Interrupted:
            raise
        except TrainshedError as error:
            return error

    with ThreadPoolExecutor(LOOKUPS, initializer=process.abandonable) as pool:
        return dict(zip(references, pool.map(ask, references), strict=True))


def _result(who: str, references: Mapping[str, str], there: Mapping[str, bool | TrainshedError]) -> Result:
    own = {name: there[reference] for name, reference in sorted(references.items()) if reference in there}
    error = next((each for each in own.values() if isinstance(each, TrainshedError)), None)
    if error is not None:
        raise error
    gone = [name for name, known in own.items() if not known]
    drift = [f"image {name} {image.parse(references[name]).digest} is gone from the registry" for name in gone]
    details: dict[str, Any] = {"of": who, "there": len(own) - len(gone), "elsewhere": len(references) - len(own), "drift": drift}
    step = "`trainshed images` makes again what the tree needs; what serves without its image cannot start another task."
    return telling.compared(KIND, f"images of {who}", "all are there", details, step)


def _row(result: Result) -> tuple[str, ...]:
    told = result.details
    return (
        str(told.get("of") or result.name.removeprefix("images of ")),
        *(str(told.get(key, "")) for key in ("there", "elsewhere")),
        telling.state(result),
    )
