"""Rules of ECR's pull-through cache for the mirrors of foreign bases that lie in this registry."""

from __future__ import annotations

from collections.abc import Iterator

from trainshed.errors import Interrupted, TrainshedError, UsageError
from trainshed.results import Result, Status, failed
from trainshed.stages.context import Context
from trainshed.tools.ecr_repositories import PullThrough, Repositories

_OPEN = ("public.ecr.aws", "quay.io", "registry.k8s.io")
_UPSTREAM = {"docker.io": "registry-1.docker.io"}
_WHOLE = "ROOT"


def mirrored(context: Context) -> dict[str, str]:
    """Return the mirrors that lie in the environment's registry: host of the upstream → prefix of the rule."""
    registry = context.config.environment.registry
    own = registry.url.partition("/")[0] if registry is not None else ""
    places = {host: place.partition("/") for host, place in context.config.mirrors.items()}
    return {host: prefix or _WHOLE for host, (where, _, prefix) in places.items() if where == own}


def ensure(context: Context, repositories: Repositories, *, stage: str, dry_run: bool) -> Iterator[Result]:
    """Make the rules that are missing; yield a result for each mirror in this registry."""
    wanted = mirrored(context)
    if not wanted:
        return
    try:
        rules = repositories.pull_through_rules()
    except Interrupted:
        raise
    except TrainshedError as error:
        yield from (failed(f"mirror {host}", stage, error) for host in wanted)
        return
    for host, prefix in wanted.items():
        name = f"mirror {host}"
        try:
            yield _ensured(context, repositories, name, host, rules.get(prefix) or prefix, stage=stage, dry_run=dry_run)
        except Interrupted:
            raise
        except TrainshedError as error:
            yield failed(name, stage, error)


def _ensured(  # noqa: PLR0913 - what one rule is made of
    context: Context, repositories: Repositories, name: str, host: str, rule: PullThrough | str, *, stage: str, dry_run: bool
) -> Result:
    upstream = _UPSTREAM.get(host, host)
    if isinstance(rule, PullThrough):
        found = "/".join(part for part in (rule.upstream.removeprefix("https://"), rule.path) if part)
        if found != upstream:  # a mirror keeps the paths: a rule for a part of the upstream is none
            message = f"pull-through cache rule {rule.prefix}: is for {found}, not for {upstream}, and ECR cannot change that"
            raise UsageError(message, next_step="Delete the rule and run it again, or give bases.mirrors another prefix.")
        return Result(name=name, stage=stage, status=Status.CACHED, cause=f"rule {rule.prefix} is there")
    if host not in _OPEN:
        message = f"pull-through cache rule {rule}: {upstream} asks for a log-in, which ECR reads from a secret of Secrets Manager"
        step = (
            f"Keep the log-in as ecr-pullthroughcache/NAME, then run `aws ecr create-pull-through-cache-rule --ecr-repository-prefix {rule}"
            f" --upstream-registry-url {upstream} --credential-arn ARN`."
        )
        raise UsageError(message, next_step=step)
    change = f"rule {rule} for {upstream}"
    if dry_run:
        return Result(name=name, stage=stage, status=Status.SKIPPED, cause=f"dry run: {change}", details={"changes": [change]})
    context.console.start(name, stage, change)
    repositories.create_pull_through_rule(rule, upstream)
    return Result(name=name, stage=stage, status=Status.DONE, cause=change, details={"changes": [change]})
