"""What is asked of the runs of one command: options, profiles and the environment's settings, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainshed import files, values
from trainshed.errors import UsageError, problems, suggestion
from trainshed.pipelines import caching, settings
from trainshed.pipelines import gates as gates_of
from trainshed.pipelines import parameters as parameters_of
from trainshed.pipelines.gates import Gate
from trainshed.pipelines.settings import Profile
from trainshed.pipelines.templates import Template
from trainshed.stages.context import Context
from trainshed.stages.references import References
from trainshed.tools.kubeflow_records import EXPERIMENT_NAME_LIMIT, Version


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks of every run. ``caching`` None leaves it to the profile, and else to the pipeline."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    gates: tuple[Gate, ...] = ()
    profile: str = ""
    experiment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    caching: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that can be started: everything about it is checked.

    ``source`` says why it is this version; ``specification`` is what runs instead of the version's own, None where that runs;
    ``commit`` and ``build_url`` are of what made the version, ``changed`` where its tree was not committed. ``known`` is false for a
    run that was taken up without a record of it or of its version: whatever it is, its model is nobody's to deploy. ``added`` are
    those of the gates that it was not started with: they are judged this once, and not kept.
    """

    name: str
    version: Version
    parameters: Mapping[str, Any]
    source: str
    gates: tuple[Gate, ...] = ()
    experiment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    caching: bool | None = None
    specification: Mapping[str, Any] | None = field(default=None, repr=False)
    commit: str = ""
    build_url: str = ""
    changed: bool = False
    known: bool = True
    added: tuple[Gate, ...] = ()


def read(  # noqa: PLR0913 - the options of the command
    *,
    parameters: Mapping[str, Any] | None = None,
    params_file: Path | None = None,
    profile: str | None = None,
    gates: Sequence[str] = (),
    experiment: str | None = None,
    labels: Mapping[str, str] | None = None,
    caching: bool | None = None,
    wait: bool | None = None,
) -> Asked:
    """Read the options that need nothing but themselves.

    Raises:
        UsageError: a wrong gate or label, gates on a run that nobody follows, or a file that holds no parameters.
    """
    wanted = read_gates(gates)
    require_followed(wanted, wait)
    _check_labels(labels or {})
    if experiment and len(experiment) > EXPERIMENT_NAME_LIMIT:
        message = f"experiment '{experiment}': its name is longer than {EXPERIMENT_NAME_LIMIT} characters"
        raise UsageError(message, next_step="Choose a shorter name.")
    from_file: dict[str, Any] = {}
    if params_file is not None:
        text = files.read_text(params_file, what="the file of parameters")
        from_file = parameters_of.read_file(text, place=str(params_file))
    return Asked(
        parameters={**from_file, **(parameters or {})},
        gates=wanted,
        profile=profile or "",
        experiment=experiment or "",
        labels=dict(labels or {}),
        caching=caching,
    )


def read_gates(expressions: Sequence[str]) -> tuple[Gate, ...]:
    """Read gates, one or more lines each; a blank line is none.

    Raises:
        UsageError: a wrong gate.
    """
    return tuple(gates_of.parse(line) for each in expressions for line in each.splitlines() if line.strip())


def require_followed(gates: Sequence[Gate], wait: bool | None) -> None:
    """Refuse gates that nobody would be there to judge."""
    if gates and wait is False:
        told = ", ".join(map(str, gates))
        raise UsageError(f"a gate is judged at the end of a run: {told}", next_step="Leave out --no-wait, or the gates.")


def profile_of(context: Context, template: Template, asked: Asked) -> Profile:
    """Return the profile that is asked for; an empty one when none is.

    Raises:
        UsageError: the pipeline has no such profile, or its settings are wrong.
    """
    if not asked.profile:
        return Profile(name="")
    project = context.config.project
    found = settings.load(project.pipelines, template, environments=context.config.environments)
    if asked.profile not in found.profiles:
        place = found.place or project.shown(project.pipelines / f"{template.name}.toml")
        message = f"{place}: no profile '{asked.profile}'{suggestion(asked.profile, found.profiles)}"
        raise UsageError(message, next_step=f"Known profiles: {', '.join(found.profiles) or 'none'}.")
    profile = found.profiles[asked.profile]
    read_gates(profile.gates)
    return profile


def prepare(context: Context, references: References, template: Template, profile: Profile, asked: Asked) -> Prepared:
    """Find the version of a pipeline, and check what is asked against it.

    Raises:
        UsageError: nothing was uploaded, or the parameters do not fit.
        RemoteError: Kubeflow or Jenkins cannot be asked.
    """
    kubeflow = context.config.environment.kubeflow
    found = references.reference(template.name)
    spec = found.version.spec
    given = {**profile.parameters, **asked.parameters}
    values = parameters_of.check(parameters_of.definitions(dict(spec.get("pipeline_spec", spec))), given, pipeline=template.name)
    cached = profile.caching if asked.caching is None else asked.caching
    gates = {str(gate): gate for gate in (*read_gates(profile.gates), *asked.gates)}
    return Prepared(
        name=template.name,
        version=found.version,
        parameters=values,
        source=found.source,
        gates=tuple(gates.values()),
        experiment=asked.experiment or profile.experiment or kubeflow.experiment or context.config.project.name,
        labels={**kubeflow.labels, **profile.labels, **asked.labels},
        caching=cached,
        specification=None if cached is None else caching.with_caching(spec, enabled=cached),
        commit=found.commit,
        build_url=found.build_url,
        changed=found.changed,
    )


def sdk_of(prepared: Prepared) -> str:
    """Return what compiled the pipeline, such as ``kfp-2.17.0``."""
    spec = prepared.version.spec
    return str(spec.get("pipeline_spec", spec).get("sdkVersion", ""))


def _check_labels(labels: Mapping[str, str]) -> None:
    wrong = [
        f"--label {name}={value}: expected at most 63 letters, digits, '.', '_' and '-' in name and value"
        for name, value in labels.items()
        if not values.LABEL.fullmatch(name) or (value and not values.LABEL.fullmatch(value))
    ]
    if wrong:
        raise problems(wrong, next_step="Write it as --label team=risk.")
