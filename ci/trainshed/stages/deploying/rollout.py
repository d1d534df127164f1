"""Following a deployment to its end: its own id, never whether the service looks stable, which it also does after a rollback."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from trainshed.errors import Interrupted, RemoteError, TrainshedError, UsageError, WorkFailed
from trainshed.stages.deploying.watching import Watch, last_events
from trainshed.tools import process
from trainshed.tools.ecs import ServiceDeployment, ServiceState, short

_COUNT_SECONDS = 900.0
_CLOCK_SECONDS = 60.0
_SLOWEST = 4
_GOING_ON = frozenset({"PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS", ""})
_BY_ECS = "ROLLBACK"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a deployment ended; ``problem`` is empty when it is done. One that is not ``certain`` may rest on an old answer of ECS.

    ``replaced`` tells that somebody else's deployment took over, which is not ours to wait for.
    """

    problem: str = ""
    certain: bool = True
    replaced: bool = False


def judge(  # noqa: PLR0911 - one line per way to end
    state: ServiceState | None, deployment: str, revision: str, *, owns_count: bool
) -> Verdict | None:
    """Tell how a deployment stands: None while it goes on.

    ``owns_count`` is False where autoscaling moves the count meanwhile.
    """
    if state is None:
        return Verdict(problem="the service was deleted meanwhile", certain=False)
    own, primary = state.deployment(deployment), state.primary
    if own is None:
        runs = primary.revision if primary is not None else "nothing"
        return Verdict(problem=f"ECS gave the deployment up: {short(runs)} runs instead", certain=False)
    if own.rollout == "FAILED":
        return Verdict(problem=own.reason or "the deployment failed")
    if primary is not own:
        runs = primary.revision if primary is not None else "nothing"
        return Verdict(problem=f"another deployment took its place: {short(runs)}", replaced=True)
    if not own.complete:
        return None
    if own.revision != revision:
        return Verdict(problem=f"{short(own.revision)} runs, not {short(revision)}")
    return None if owns_count and state.running < state.desired else Verdict()


def follow(watch: Watch) -> Verdict:
    """Follow a deployment to its end; what went wrong is told with the reasons of stopped tasks.

    Raises:
        WorkFailed: the deadline passed; the deployment goes on.
        RemoteError: ECS gave no answer for as long as the client is patient, or the credentials ran out; the deployment goes on.
        UsageError: ECS may no longer be asked; the deployment goes on.
        Interrupted: SIGINT or SIGTERM; the deployment goes on.
    """
    following = _Following(watch)
    try:
        while True:
            verdict = following.look()
            if verdict is not None:
                return verdict
            if watch.ends is not None and time.monotonic() > watch.ends:
                raise _too_late(watch, following.state)
            process.pause(watch.ecs.poll * 2.0 ** min(following.lost, _SLOWEST))
    except Interrupted:
        watch.note(f"ECS goes on with {short(watch.revision)}; {watch.again}")
        raise


class _Following:
    """What one look leaves for the next: how long ECS gave no answer, and since when it seems to have forgotten the deployment."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.state: ServiceState | None = None
        self.lost = 0
        self._lost_since = self._doubt_since = self._short_since = 0.0

    def look(self) -> Verdict | None:
        """Look once; None while the deployment goes on or there was no answer."""
        watch = self._watch
        try:
            self.state = watch.ecs.service(watch.service.name)
            watch.tell(self.state)
        except RemoteError as error:
            self._missed(error)
            return None
        except UsageError as error:
            raise _goes_on(watch, error) from error
        self.lost = 0
        verdict = judge(self.state, watch.deployment, watch.revision, owns_count=watch.service.autoscaling is None)
        if verdict is None:
            self._doubt_since = 0.0
            problem = self._early() or self._short()
            return Verdict(problem=problem + _reasons(watch)) if problem else None
        if verdict.problem and not verdict.certain and (verdict := self._settled(verdict)) is None:
            return None
        return replace(verdict, problem=verdict.problem + _reasons(watch)) if verdict.problem else verdict

    def _missed(self, error: RemoteError) -> None:
        now = time.monotonic()
        self._lost_since = now if not self.lost else self._lost_since
        self.lost += 1
        self._watch.keep(error.message)
        if error.permanent or now - self._lost_since >= self._watch.ecs.patience:
            raise _goes_on(self._watch, error) from error
        if self.lost == 1:
            self._watch.note("ECS gives no answer; asking on")

    def _settled(self, verdict: Verdict) -> Verdict | None:
        """Believe that a deployment is gone only when ECS keeps its end, or says so for a while: an answer may be an old one."""
        now = time.monotonic()
        self._doubt_since = self._doubt_since or now
        end = _end(self._watch)
        if end is not None and end.status not in _GOING_ON:
            return Verdict(problem=_told(end, verdict.problem), replaced=not end.status.startswith(_BY_ECS))
        return verdict if now - self._doubt_since >= self._watch.ecs.settling else None

    def _early(self) -> str:
        """End a deployment that will hardly come to a good end, where that is asked for."""
        watch = self._watch
        if not watch.service.deployment.fail_early or not watch.broken():
            return ""
        return "a task could not start, or ended: given up early, as deployment.fail-early asks"

    def _short(self) -> str:
        """End the wait for a count that a complete deployment does not reach."""
        state, watch = self.state, self._watch
        own = state.deployment(watch.deployment) if state is not None else None
        if state is None or own is None or not own.complete:
            self._short_since = 0.0
            return ""
        now = time.monotonic()
        self._short_since = self._short_since or now
        if now - self._short_since < _COUNT_SECONDS:
            return ""
        return f"the deployment is complete, but {state.running} of {state.desired} tasks run"


def _end(watch: Watch) -> ServiceDeployment | None:
    """Return what ECS keeps of a deployment that the service no longer lists; None when it may not be asked, or knows nothing."""
    if watch.created is None:
        return None
    try:
        known = watch.ecs.service_deployments(watch.service.name)
    except (RemoteError, UsageError) as error:
        watch.keep(error.message)
        return None
    since = watch.created.timestamp() - _CLOCK_SECONDS
    mine = (one for one in known if one.revision == watch.revision and one.created is not None and one.created.timestamp() >= since)
    return next(mine, None)


def _told(end: ServiceDeployment, otherwise: str) -> str:
    alarms = f" (alarms: {', '.join(end.alarms)})" if end.alarms else ""
    if end.status == "SUCCESSFUL":
        return f"the deployment was complete, and lost its place since: {otherwise}"
    return f"{otherwise}; its end: {end.status}{f', {end.reason}' if end.reason else ''}{alarms}"


def _reasons(watch: Watch) -> str:
    try:
        return watch.reasons()
    except RemoteError as error:
        return f"\nwhy tasks stopped is not known: {error.message}"


def _goes_on(watch: Watch, error: TrainshedError) -> TrainshedError:
    return unknown(watch, error, f"ECS goes on with the deployment of {short(watch.revision)}, whose end is not known")


def unknown(watch: Watch, error: TrainshedError, what: str) -> TrainshedError:
    """Say of an error on the way what is left behind, and how to go on with it."""
    message = f"{error.message}; {what}"
    step = " ".join(filter(None, (error.next_step, watch.again)))
    return (RemoteError if isinstance(error, RemoteError) else UsageError)(message, next_step=step)


def _too_late(watch: Watch, state: ServiceState | None) -> WorkFailed:
    name, revision = watch.service.name, short(watch.revision)
    return WorkFailed(
        f"{name}: the deadline passed before {revision} was rolled out; ECS goes on{_reasons(watch)}{last_events(state)}",
        next_step=f"Look at the service's events; {watch.again}",
    )
