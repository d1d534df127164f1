"""``trainshed registry ensure``: the components' repositories in ECR, made and brought to what is promised of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainshed.console import counted
from trainshed.errors import Interrupted, NothingSelected, TrainshedError, UsageError, WorkFailed
from trainshed.images import components
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import accounts
from trainshed.stages.context import Context
from trainshed.stages.registry import keeping, mirrors, promises
from trainshed.stages.registry.keeping import Unkept
from trainshed.stages.registry.promises import Wanted
from trainshed.stages.registry.referring import referred
from trainshed.tools import referrers
from trainshed.tools.aws import Refused
from trainshed.tools.ecr_repositories import Repositories, Repository

STAGE = "registry-ensure"
_EXISTS = "RepositoryAlreadyExistsException"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What one repository is, what it shall be, and what is needed of it."""

    component: str
    address: str
    repository: Repository | None
    wanted: Wanted
    needed: frozenset[str]
    unkept: Unkept

    @property
    def name(self) -> str:
        return self.address.partition("/")[2]

    @property
    def broken(self) -> dict[str, str]:
        return promises.broken(self.repository, self.wanted) if self.repository is not None else {}

    @property
    def changes(self) -> list[str]:
        if self.repository is None:
            return [f"create {self.name}: scan on push, immutable tags, KMS, lifecycle policy" + ", policy" * bool(self.wanted.policy)]
        kept = [f"keep {counted(self.unkept.digests, 'image')} that somebody refers to"] if self.unkept.digests else []
        return [*kept, *self.broken.values()]


def ensure(context: Context, names: Sequence[str] = (), *, dry_run: bool = False) -> Report:
    """Make the repositories of the named components, or of all, and mend what of the promise does not hold.

    Args:
        context: the command's room.
        names: components; with none the rules of the pull-through cache are made as well.
        dry_run: show the difference, change nothing.

    Raises:
        NothingSelected: there is no component.
        UsageError: the registry is not ECR, the account is another one, a name is unknown, or it may not be told what is needed.
    """
    repositories = _repositories(context)
    known = components.discover(context.config.project.components)
    if not known:
        message = f"{context.config.project.components}: there is no component"
        raise NothingSelected(message, next_step="Add one with `trainshed init --component NAME`.")
    chosen = components.select(known, names)
    needed = referred(context)
    for note in needed.notes:
        context.console.warning(note)
    key = repositories.key_of(context.config.environment.ecr.kms_key)
    addresses = {name: f"{context.repository_prefix}/{name}" for name in chosen}
    found = repositories.describe(address.partition("/")[2] for address in addresses.values())
    results = []
    for name, address in addresses.items():
        started = time.monotonic()

        def plan(name: str = name, address: str = address) -> _Plan:
            digests, repository = needed.digests.get(address, frozenset()), found.get(address.partition("/")[2])
            return _Plan(
                component=name,
                address=address,
                repository=repository,
                wanted=promises.wanted(context.config, name, kms_key=key),
                needed=digests,
                unkept=keeping.unkept(context, address, digests) if repository is not None else Unkept(digests=(), gone=()),
            )

        results.append(replace(_tried(context, repositories, name, plan, dry_run=dry_run), seconds=time.monotonic() - started))
        context.console.end(results[-1])
    if not names:
        for result in mirrors.ensure(context, repositories, stage=STAGE, dry_run=dry_run):
            results.append(result)
            context.console.end(result)
    return Report(stage=STAGE, results=tuple(results), extra={"notes": list(needed.notes)})


def _repositories(context: Context) -> Repositories:
    config, ecr = context.config, context.ecr
    if ecr is None:
        message = f"{config.file}: environments.{config.environment.name}.registry is not ECR: there is nothing to make there"
        raise UsageError(message, next_step='Name an environment whose registry is ECR, or say which it is: ecr = "ACCOUNT/REGION".')
    if config.environment.aws.account:
        accounts.asking(context)
    return Repositories(ecr.aws, ecr.account)


def _tried(context: Context, repositories: Repositories, name: str, plan: Callable[[], _Plan], *, dry_run: bool) -> Result:
    try:
        return _ensured(context, repositories, plan(), dry_run=dry_run)
    except Interrupted:
        raise
    except TrainshedError as error:
        return failed(name, STAGE, error)


def _ensured(context: Context, repositories: Repositories, plan: _Plan, *, dry_run: bool) -> Result:
    changes = plan.changes
    gone = [f"{digest[:19]}… is referred to and not there any more" for digest in plan.unkept.gone]
    details = {"repository": plan.address, "changes": changes, "kept": len(plan.needed) - len(gone), "gone": list(plan.unkept.gone)}
    if not changes:
        cause = "; ".join(["all that is promised holds", *gone[:_SHOWN]])
        return Result(name=plan.component, stage=STAGE, status=Status.CACHED, cause=cause, details=details)
    told = changes[0] if len(changes) == 1 else counted(changes, "difference")
    if not dry_run:
        context.console.start(plan.component, STAGE, told)
    for change in changes if len(changes) > 1 else ():
        context.console.line(f"  {plan.component}: {change}")
    _require_possible(plan)
    if dry_run:
        return Result(name=plan.component, stage=STAGE, status=Status.SKIPPED, cause=f"dry run: {told}", details=details)
    if plan.repository is None:
        _created(repositories, plan)
    else:
        _mended(context, repositories, plan)
    return Result(name=plan.component, stage=STAGE, status=Status.DONE, cause="; ".join([told, *gone[:_SHOWN]]), details=details)


def _require_possible(plan: _Plan) -> None:
    """Refuse what no call can mend, before anything of the repository is changed."""
    repository, broken = plan.repository, plan.broken
    if repository is not None and repository.unread:
        names = ", ".join(repository.unread)
        message = f"{plan.address}: {names} may not be read, so it is not known what differs"
        raise UsageError(message, next_step="Allow ecr:GetLifecyclePolicy, ecr:GetRepositoryPolicy and ecr:ListTagsForResource.")
    if "encryption" in broken:
        message = f"{plan.address}: {broken['encryption']}, and ECR cannot change that after creation"
        step = "Set ecr.kms-key to the key that it has; or copy its images away, delete it, and run this again."
        raise UsageError(message, next_step=step)


def _created(repositories: Repositories, plan: _Plan) -> None:
    try:
        repositories.create(plan.name, kms_key=plan.wanted.kms_key, tags=plan.wanted.tags)
    except Refused as error:
        if error.code == _EXISTS:
            raise UsageError(f"{plan.address}: somebody made it meanwhile", next_step="Run it again.") from error
        raise
    if plan.wanted.policy is not None:
        repositories.put_policy(plan.name, plan.wanted.policy)
    repositories.put_lifecycle(plan.name, plan.wanted.lifecycle)  # it holds no image that could expire


def _mended(context: Context, repositories: Repositories, plan: _Plan) -> None:
    """Keep first what is needed; let something expire last."""
    assert plan.repository is not None  # noqa: S101 - told by the caller
    for digest in plan.unkept.digests:
        keeping.keep(context, plan.address, digest, anew=True)
    broken = plan.broken
    if "scan" in broken:
        repositories.scan_on_push(plan.name)
    if "immutable" in broken:
        repositories.make_immutable(plan.name)
    if "policy" in broken:
        repositories.put_policy(plan.name, plan.wanted.policy)
    if "labels" in broken:
        repositories.put_tags(plan.repository, plan.wanted.tags)
    if "lifecycle" in broken:
        _require_harmless(context, repositories, plan)
        repositories.put_lifecycle(plan.name, plan.wanted.lifecycle)


def _require_harmless(context: Context, repositories: Repositories, plan: _Plan) -> None:
    """Have ECR itself say what the policy would delete now; refuse it when that is needed."""
    expiring = repositories.expiring(plan.name, plan.wanted.lifecycle)
    if not expiring:
        return
    needed = set(plan.needed)
    for digest in plan.needed - set(plan.unkept.gone):
        needed.update(referrers.attached(context.registry, plan.address, digest))
    lost = sorted(needed & set(expiring))
    if lost:
        shown = ", ".join(f"{digest} (rule {expiring[digest]})" for digest in lost[:_SHOWN]) + ", …" * (len(lost) > _SHOWN)
        message = f"{plan.address}: the lifecycle policy would delete {counted(lost, 'image')} that somebody refers to: {shown}"
        raise WorkFailed(message, next_step="The policy was not put. Find out who took the keep- tags away, then run it again.")
