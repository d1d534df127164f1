from __future__ import annotations

from dataclasses import replace

import pytest

from trainshed.pipelines.settings import Schedule
from trainshed.stages import recurring
from trainshed.stages.recurring import Declared, Mark
from trainshed.tools.kubeflow_records import RecurringRun, Trigger, Version

MARK = Mark(project="flows", environment="prod", pipeline="training", schedule="nightly")
DECLARED = Declared(
    mark=MARK,
    schedule=Schedule(name="nightly", environments=("prod",), cron="0 0 3 * * *", start="2026-01-31T03:00:00+01:00"),
    place="pipeline_templates/training.toml",
    version=Version(id="v1", pipeline_id="p", name="main-1"),
    source="of this tree",
    parameters={"rows": 5, "names": ["a"]},
    experiment="flows",
    labels={"team": "risk"},
)
KEPT = RecurringRun(
    id="r1",
    name=DECLARED.name,
    enabled=True,
    trigger=Trigger(cron="0 0 3 * * *", start="2026-01-31T02:00:00Z"),
    experiment_id="e1",
    pipeline_id="p",
    version_id="v1",
    description=DECLARED.description,
    service_account="pipeline-runner",  # the server's own, where none is asked for
    parameters={"rows": 5.0, "names": ["a"]},
)


def test_what_a_server_keeps_of_a_schedule_is_the_schedule() -> None:
    assert recurring.mark_of(KEPT) == MARK
    assert recurring.digest_of(KEPT) == DECLARED.digest
    assert recurring.differences(KEPT, DECLARED, experiment="e1") == []


@pytest.mark.parametrize(
    "description", ["", "Kept by Trainshed", "see trainshed: project=x environment=y pipeline=z schedule=s", "trainshed: project=x"]
)
def test_a_recurring_run_without_the_whole_mark_is_somebody_else_s(description: str) -> None:
    assert recurring.mark_of(replace(KEPT, description=description)) is None


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (replace(KEPT, enabled=False), "disabled → enabled"),
        (replace(KEPT, trigger=Trigger(every=60)), "cron none → 0 0 3 * * *"),
        (replace(KEPT, trigger=replace(KEPT.trigger, start="")), "start none → 2026-01-31T03:00:00+01:00"),
        (replace(KEPT, version_id="v0"), "version v0 → v1 of the same name"),
        (replace(KEPT, version_id="", description=""), "version the latest → main-1"),
        (replace(KEPT, catch_up=True), "catch-up yes → no"),
        (replace(KEPT, max_concurrency=3), "max-concurrency 3 → 1"),
        (replace(KEPT, parameters={"rows": 6, "names": ["a"]}), "parameter rows 6 → 5"),
        (replace(KEPT, parameters={"names": ["a"]}), "parameter rows its default → 5"),
        (replace(KEPT, parameters={**KEPT.parameters, "x": True}), "parameter x true → its default"),
        (replace(KEPT, experiment_id="e0"), "experiment e0 → flows"),
        (replace(KEPT, description=replace(DECLARED, labels={}).description), "labels, experiment, or what is left to Kubeflow"),
    ],
)
def test_a_difference_is_told_by_its_field(kept: RecurringRun, told: str) -> None:
    assert told in recurring.differences(kept, DECLARED, experiment="e1")


def test_a_declared_service_account_and_root_count() -> None:
    wanted = replace(DECLARED, service_account="runner", pipeline_root="s3://b/p")
    found = recurring.differences(KEPT, wanted, experiment=None)
    assert found == ["service-account pipeline-runner → runner", "pipeline-root none → s3://b/p"]


def test_only_being_enabled_leaves_the_digest_as_it_is() -> None:
    assert replace(DECLARED, schedule=replace(DECLARED.schedule, enabled=False)).digest == DECLARED.digest
    for other in (
        replace(DECLARED, schedule=replace(DECLARED.schedule, catch_up=True)),
        replace(DECLARED, experiment="other"),
        replace(DECLARED, version=replace(DECLARED.version, id="v2")),
        replace(DECLARED, parameters={"rows": 6}),
        replace(DECLARED, labels={}),
    ):
        assert other.digest != DECLARED.digest


def test_a_description_keeps_to_what_kubeflow_holds_of_it_and_the_mark_comes_first() -> None:
    assert DECLARED.description.splitlines()[-1] == "from: pipeline_templates/training.toml"
    assert "label team: risk" in DECLARED.description
    long = replace(DECLARED, mark=replace(MARK, project="p" * 63, schedule="s" * 63), labels={"note": "n" * 63, "a": "b"})
    assert long.fits
    assert len(long.description) <= 255
    kept = replace(KEPT, description=long.description)
    assert (recurring.mark_of(kept), recurring.digest_of(kept)) == (long.mark, long.digest)
    assert "label a: b" in long.description
    assert not replace(DECLARED, mark=replace(MARK, pipeline="x" * 200)).fits
