"""What may be released: images that main built, and that production's own rules let in.

Nothing is built, and nothing of the build is changed: what is scanned or tested anew here writes below ``<work-dir>/release``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from trainshed.errors import Interrupted, RemoteError, TrainshedError, WorkFailed
from trainshed.findings.model import from_document
from trainshed.findings.policy import covers, judge
from trainshed.images import references
from trainshed.pipelines.lock import Lock
from trainshed.results import Report, Result, Status, failed
from trainshed.scheduling import scheduler
from trainshed.scheduling.scheduler import Node
from trainshed.stages import budgets, locking, lookup, trust
from trainshed.stages.context import Context
from trainshed.stages.lookup import Found
from trainshed.stages.releasing.room import Room
from trainshed.stages.survey import Pin, survey, unapproved
from trainshed.stages.work import BUILD_VERSION, Work, aborted, failed_case
from trainshed.tools import process

STAGE = "release-admission"
_IMAGE, _BASES, _SCAN, _TEST = "image", "bases", "scan", "test"
_NEW = "Have the main build run again for this commit: it pushes and locks what it made itself."
_WAS_MOVED = "it was moved"
_MOVED = "Ask who moved it; have the tag taken away, then have the main build run again. `trainshed audit` tells whether tags can be moved."


def require(room: Room, lock: Lock, components: Sequence[str]) -> Report:
    """Hold components of a lock to production's rules: the images are those that were locked, and every check is green for production.

    A green verdict that holds for production's policy is taken; one that is missing, stale or of another policy is made anew, of the
    image in the build's registry. May be asked again at any time.

    Args:
        room: the two rooms of the release.
        lock: what `locked.lock` returned, or a release that goes on has in its plan.
        components: those whose images are promoted.

    Returns:
        A report of the stage ``release-admission``: of each component whether its image is there (``release-image``), its bases are
        approved (``release-bases``), and the checks (``release-scan``, ``release-test``); ``extra["warnings"]`` are those of waivers
        and scans. It is red where anything is refused.

    Raises:
        UsageError: the lock has no such component; production's ``scan.sources`` cannot answer for the build's registry.
        RemoteError: nothing was refused, but somebody who had to be asked did not answer: a registry, a scanner's database, ECR.
        Interrupted: SIGTERM or SIGINT.
    """
    for name in components:
        lock.image(name, place="the lock of the release")
    with closing(_judging(room)) as context:
        report = _Admission(context, room, lock, components).report()
    if process.stopping.is_set():
        raise Interrupted("interrupted while the release was admitted", next_step="Release again: nothing was promoted by this.")
    bad = [result for result in report.results if result.status is Status.FAILED]
    if bad and all(result.exit_code == RemoteError.exit_code for result in bad):
        raise RemoteError("\n".join(f"{result.stage} {result.name}: {result.message}" for result in bad))
    return report


def _judging(room: Room) -> Context:
    """Open the build's environment under production's policy; what is written goes below the release's folder."""
    own = room.here.config
    # Approval is told with all else, so it does not end the survey.
    taken = replace(room.there.config, environment=own.environment, mirrors=own.mirrors, approved_bases=())
    return Context(config=taken, console=room.here.console, tier=room.here.tier, keeps=room.here.keeps)


class _Admission:
    """The checks of one call."""

    def __init__(self, context: Context, room: Room, lock: Lock, components: Sequence[str]) -> None:
        self.context, self.lock, self.components = context, lock, tuple(components)
        self.there = room.there.config
        self.survey = survey(context, components, pins=locking.pins(lock))
        self.work = Work(context, self.survey)
        self._pinning = threading.Lock()
        self._pinned = False
        own = {name: lock.image(name, place="the lock of the release").digest for name in self.survey.selected}
        for name in self.survey.selected:
            self.work.found[name] = Found(digest=own[name], reference=lock.images[name].reference)
            self.work.inputs[name] = self.survey.inputs(name, own)

    def report(self) -> Report:
        """Do it all side by side."""
        outcomes = scheduler.run(
            list(self._nodes()),
            budgets={**budgets.scheduled(self.context, images=len(self.components)), _IMAGE: 16},
            aborted=aborted,
            stop=process.stopping,
            on_end=lambda _node, result: None if result.status in {Status.CACHED, Status.SKIPPED} else self.context.console.end(result),
        )
        self.survey.hashes.save()
        results = tuple(replace(failed_case(result), stage=f"release-{result.stage}") for result in outcomes.values())
        return Report(stage=STAGE, results=results, extra={"environment": self.there.environment.name, "warnings": self._warned()})

    def _nodes(self) -> Iterable[Node[Result]]:
        for name in self.components:
            if self.there.approved_bases:
                yield Node(key=f"{name}/{_BASES}", work=partial(self._bases, name), budget=_IMAGE)
            yield Node(key=f"{name}/{_IMAGE}", work=partial(_guarded, name, _IMAGE, partial(self._image, name)), budget=_IMAGE)
            for check, do in ((_SCAN, self._scan), (_TEST, self._test)):
                yield Node(key=f"{name}/{check}", work=partial(do, name), budget=check, needs=(f"{name}/{_IMAGE}",))

    def _warned(self) -> list[str]:
        place = self.context.config.waivers_place
        told = [*self.work.scan_warnings(), *(f"{place}: {warning}" for warning in self.work.waiver_warnings())]
        for warning in told:
            self.context.console.warning(warning)
        return told

    # --- the image ------------------------------------------------------------------------------------------------------------

    def _image(self, name: str) -> Result:
        """Prove that the image is the one that a run of this tier made of these inputs, and that it is there."""
        image = self.lock.images[name]
        wrong = [*self._other_image(name), *self._not_there(name), *self._not_built(name)]
        if wrong:
            raise WorkFailed("\n".join(wrong), next_step=_MOVED if any(each.endswith(_WAS_MOVED) for each in wrong) else _NEW)
        cause = "the image that was locked is in the registry"
        return Result(
            name=name, stage=_IMAGE, status=Status.CACHED, cause=cause, details={"digest": image.digest, "reference": image.reference}
        )

    def _other_image(self, name: str) -> Iterable[str]:
        image, inputs = self.lock.images[name], self.work.inputs[name].digest
        if inputs != image.input_digest:
            yield f"{name}: the lock says it was made of the inputs {image.input_digest}, and this tree's are {inputs}"
            return
        found = lookup.find(self.context, name, inputs)
        if found is not None:
            if found.digest != image.digest:
                yield f"{name}: the lock has {image.digest}, and in the registry the tag of its inputs names {found.digest}: {_WAS_MOVED}"
            elif found.reference != image.reference:
                yield f"{name}: the lock has {image.reference}, and the image of its inputs is {found.reference}"
            return
        less = lookup.below(self.context, name, inputs)
        repository = lookup.repository(self.context, name)
        if less is None:
            yield f"{name}: no image of its inputs is in {repository} any more; the lock has {image.digest}"
            return
        tier, digest = less
        yield f"{name}: in {repository} only {trust.RUNS[tier]} pushed an image of its inputs ({digest}), which is never released"

    def _not_there(self, name: str) -> Iterable[str]:
        image = self.lock.images[name]
        if self.context.registry.digest(image.reference) != image.digest:
            yield f"{name}: {image.reference} is not in its registry any more"

    def _not_built(self, name: str) -> Iterable[str]:
        """A digest that nobody trusted enough has ever built is no build of main, whatever a tag says."""
        digest = self.lock.images[name].digest
        if self.context.ledger.verdict(digest, "build", BUILD_VERSION) is None:
            yield f"{name}: the ledger knows no build of {digest} by {trust.RUNS[self.context.tier]}"

    # --- bases, scans and tests -----------------------------------------------------------------------------------------------

    def _bases(self, name: str) -> Result:
        taken = self.survey
        wrong = unapproved(self.there, taken.components, taken.graph, (name, *sorted(taken.graph.ancestors(name))))
        if not wrong:
            return Result(name=name, stage=_BASES, status=Status.CACHED, cause="its bases are approved")
        where = self.there.environment.name
        step = f"Build on one that {where} approves: {', '.join(self.there.approved_bases)}."
        return failed(name, _BASES, WorkFailed("\n".join(f"{each} for environment {where}" for each in wrong), next_step=step))

    def _scan(self, name: str) -> Result:
        result = self.work.scan(name)
        expired = self._expired(name) if result.status is Status.FAILED else []
        return replace(result, message="\n".join([result.message, *expired])) if expired else result

    def _expired(self, name: str) -> list[str]:
        """Say which waivers ran out that would have let the scan pass."""
        verdict, policy, today = self.work.verdicts[name].get(_SCAN), self.context.config.scan, datetime.now(UTC).date()
        if verdict is None:
            return []
        found, rules = map(from_document, verdict.findings), {"fail_on": policy.fail_on, "unfixed": policy.unfixed}
        judged = judge(found, **rules, waivers=self.work.waivers, today=today, component=name)
        over = [each for each in self.work.waivers if any(covers(each, finding, name) for finding in judged.expired)]
        place = self.context.config.waivers_place
        told = (f"{place}: the waiver for {each.id} in {name} by {each.owner} expired on {each.expires}" for each in over)
        return [f"{each}. Mend the finding, or have the owner answer for it anew." for each in told]

    def _test(self, name: str) -> Result:
        pinned = _guarded(name, _TEST, partial(self._pin, name))
        return self.work.test(name) if pinned.good else pinned

    def _pin(self, name: str) -> Result:
        """Have test stages stand on the bases that were locked: a base that has moved since is not what was built on."""
        with self._pinning:
            if not self._pinned and not self.work.standing(name, _TEST).green:
                known = locking.pins(self.lock)
                pins = {key: self._locked_pin(pin) if key in known else pin for key, pin in self.survey.pins.items()}
                self.work.survey, self._pinned = replace(self.survey, pins=pins), True
        return Result(name=name, stage=_TEST, status=Status.CACHED)

    def _locked_pin(self, pin: Pin) -> Pin:
        if self.context.config.environment.registry is None:
            copy = self.context.engine.image(pin.reference)
            if copy is not None and copy.id == pin.digest:
                return replace(pin, local=True)
        mirror = references.mirrored(pin.reference, self.context.config.mirrors)
        return replace(pin, pinned=references.pin(mirror or pin.reference, pin.digest))


def _guarded(name: str, stage: str, do: Callable[[], Result]) -> Result:
    """Turn an error into a failed result, so that all else that is wrong is told too."""
    try:
        return do()
    except Interrupted:
        raise
    except TrainshedError as error:
        return failed(name, stage, error)
