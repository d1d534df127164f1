"""``trainshed audit``: what the platform promises of buckets, repositories and roles, and whether it holds; read only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trainshed.console import counted
from trainshed.errors import NothingSelected, UsageError, problems, suggestion
from trainshed.images import components
from trainshed.results import Case, Report, Result, Status
from trainshed.services import spec
from trainshed.stages import accounts
from trainshed.stages.auditing import buckets, repositories, roles
from trainshed.stages.auditing.promise import Audited, Promise, State, unknown
from trainshed.stages.context import Context
from trainshed.tools.buckets import Buckets
from trainshed.tools.iam import Iam

STAGE = "audit"
_S3 = "s3://"


def audit(context: Context) -> Report:
    """Judge every promise of the environment, also after one that is broken; change nothing.

    The exit code is 1 when a promise is broken; when one is only not known, that of the error which hid it.

    Raises:
        NothingSelected: the environment has nothing at AWS.
        UsageError: the credentials are those of another account, or ``audit.sensitive`` names a bucket that is not audited.
    """
    stores, wanted = _buckets(context), _roles(context)
    if not stores and not wanted and context.ecr is None:
        message = f"environment {context.config.environment.name} names no bucket, repository or role of AWS: there is nothing to audit"
        step = "Choose another with --env, or name buckets and roles under audit; see docs/how-to/audit-the-platform.md."
        raise NothingSelected(message, next_step=step)
    account = accounts.asking(context).account
    results = [_result(audited) for audited in _audited(context, stores, wanted, account)]
    rows = [row for result in results for row in _rows(result)]
    context.console.table("audit", ("what", "promise", "verdict", "finding"), rows)
    for result in results:
        for told in result.details["promises"]:
            if told["next"]:
                context.console.line(f"{result.name}: {told['promise']}: {told['next']}")
    return Report(stage=STAGE, results=tuple(results), extra={"account": account, "promises": _counts(results)})


def _audited(context: Context, stores: Mapping[str, str], wanted: Sequence[str | Audited], account: str) -> Iterator[Audited]:
    client = Buckets(context.aws)
    secret = {_bucket(name) for name in context.config.environment.audit.sensitive}
    if stores:
        yield buckets.audit_account(client, account)
    for name, prefix in stores.items():
        yield buckets.audit(client, name, prefix=prefix, sensitive=name in secret)
    if context.ecr is not None:
        yield from repositories.audit(context, context.ecr, components.discover(context.config.project.components))
    for each in wanted:
        yield each if isinstance(each, Audited) else roles.audit(Iam(context.aws), each)


def _buckets(context: Context) -> dict[str, str]:
    """Return the buckets, each with the prefix below which the artifacts are: all of one that is named by itself."""
    environment = context.config.environment
    found: dict[str, str] = {}
    if environment.kubeflow.pipeline_root.startswith(_S3):
        name, _, prefix = environment.kubeflow.pipeline_root.removeprefix(_S3).partition("/")
        found[name] = f"{prefix}/" if prefix else ""
    found |= {_bucket(name): "" for name in environment.audit.buckets}
    place = f"{context.config.file}: environments.{environment.name}.audit.sensitive"
    strange = [name for name in environment.audit.sensitive if _bucket(name) not in found]
    if strange:
        told = [f"{place}: '{name}' is no audited bucket{suggestion(_bucket(name), found)}" for name in strange]
        raise problems(told, next_step="Name it under audit.buckets too, or mend it.")
    return found


def _bucket(name: str) -> str:
    """Return a bucket's name of an address, an ARN or the name itself."""
    return name.removeprefix(_S3).rpartition(":")[2].partition("/")[0]


def _roles(context: Context) -> list[str | Audited]:
    """Return the roles of the services, that of the environment, and those that are named.

    Of a service.yaml that cannot be read the roles are not known.
    """
    config = context.config
    found: list[str | Audited] = []
    if config.environment.prediction_service.cluster is not None:
        for name, component in components.discover(config.project.components).items():
            if not component.service:
                continue
            try:
                service = spec.load(config.project.components / name / spec.FILE_NAME, environment=config.environment.name)
            except UsageError as error:
                found.append(Audited(kind="service", name=name, promises=(unknown("its roles name actions and resources", error),)))
            else:
                found += [role for role in (service.execution_role, service.task_role) if role]
    own = config.environment.aws.role
    return list(dict.fromkeys([*found, *([own] if own else []), *config.environment.audit.roles]))


def _result(audited: Audited) -> Result:
    name = f"{audited.kind} {audited.name}"
    bad = [promise for promise in audited.promises if promise.state is not State.KEPT]
    broken = [promise for promise in bad if promise.state is State.BROKEN]
    return Result(
        name=name,
        stage=STAGE,
        status=Status.FAILED if bad else Status.DONE,
        cause="" if bad else f"{counted(audited.promises, 'promise')} kept",
        message="\n".join(f"{promise.what}: {promise.state}: {promise.told}" for promise in bad),
        details={"kind": audited.kind, "promises": [promise.document() for promise in audited.promises]},
        cases=tuple(_case(promise) for promise in audited.promises),
        exit_code=(broken or bad)[0].exit_code if bad else 0,
    )


def _case(promise: Promise) -> Case:
    return Case(name=promise.what, failure=f"{promise.state}: {promise.told}" if promise.state is not State.KEPT else "")


def _rows(result: Result) -> list[tuple[str, str, str, str]]:
    return [(result.name, told["promise"], told["state"], " ".join(told["found"].split())) for told in result.details["promises"]]


def _counts(results: Sequence[Result]) -> dict[str, int]:
    states = [told["state"] for result in results for told in result.details["promises"]]
    return {str(state): states.count(str(state)) for state in State}
