"""Proving that a revision serves as it should: the digests that run are read back, and the golden requests are answered as they must be."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from trainshed.errors import Interrupted, RemoteError, TrainshedError, UsageError
from trainshed.services import golden
from trainshed.services.golden import Golden
from trainshed.services.spec import Service
from trainshed.stages.deploying.watching import Watch
from trainshed.tools import process
from trainshed.tools.ecs import Ecs
from trainshed.tools.http import Http

_GOLDEN_SECONDS = 30.0


def wrong_images(watch: Watch, digests: Mapping[str, str]) -> list[str]:
    """Read back which images run, by container; list those that are not the wanted ones.

    A task that began a moment ago may not have its image's digest yet: asked again for as long as answers of ECS may be old.
    """
    ends = time.monotonic() + watch.ecs.settling
    while True:
        wrong, unnamed = _wrong_tasks(watch, digests)
        if wrong or not unnamed or time.monotonic() >= ends:
            return [*wrong, *unnamed, *_wrong_resolved(watch, digests)]
        process.pause(watch.ecs.poll)


def wrong_answers(ecs: Ecs, service: Service, requests: Iterable[Golden]) -> list[str]:
    """Send the golden requests; list what is wrong with the answers."""
    requests, found = tuple(requests), list[str]()
    if not requests:
        return []
    address = service.address or ecs.address(service.name)
    if not address:
        return [f"golden predictions: {service.name} has no address to ask"]
    with Http(timeout=_GOLDEN_SECONDS) as http:
        for request in requests:
            try:
                answer = http.request(request.method, address + request.path, json=request.body, idempotent=True)
                document = answer.json() if answer.status == request.status else None
            except Interrupted:
                raise
            except TrainshedError as error:
                found.append(f"golden prediction {request.name}: {error.message}")
                continue
            found += [f"golden prediction {text}" for text in golden.compare(request, answer.status, document)]
    return found


def pinned(definition: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests, by container, that a task definition pins its images to."""
    images = {one["name"]: str(one.get("image", "")).partition("@")[2] for one in definition.get("containerDefinitions", [])}
    return {name: digest for name, digest in images.items() if digest}


def _wrong_tasks(watch: Watch, digests: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """List what runs another image, and what ECS does not name the image of."""
    found = watch.ecs.patiently(lambda: watch.ecs.tasks(watch.service.name))
    tasks = [task for task in found if task.revision == watch.revision and task.status == "RUNNING"]
    running = [(task, container) for task in tasks for container in task.containers if container.name in digests]
    if not running:
        wanted = watch.state is None or watch.state.desired > 0
        return [], ["no task of the revision runs whose image could be read back"] if wanted else []
    wrong = [(task, one) for task, one in running if one.digest and one.digest != digests[one.name]]
    unnamed = [task for task, one in running if not one.digest]
    return (
        [f"task {task.id} runs {one.digest}, not {digests[one.name]}" for task, one in wrong],
        [f"task {task.id} runs an image that ECS does not name" for task in unnamed],
    )


def _wrong_resolved(watch: Watch, digests: Mapping[str, str]) -> list[str]:
    """Compare what ECS resolved for the service's revision; who may not ask, or an ECS that does not tell, leaves it to the tasks."""
    state = watch.state
    if state is None:
        return []
    try:
        resolved = watch.ecs.patiently(lambda: watch.ecs.resolved(state, watch.revision))
    except RemoteError:
        raise
    except UsageError as error:
        watch.keep(error.message)
        return []
    return [
        f"ECS resolved {name} to {digest}, not {digests[name]}" for name, digest in resolved.items() if digests.get(name, digest) != digest
    ]
