"""A manifest of a release with something in each of its parts, and the lock that it promoted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.pipelines import DIGEST, OTHER_DIGEST
from trainshed.pipelines.lock import Lock, LockedImage
from trainshed.releases.manifest import Change, Image, Manifest, Pipeline, Run, Service, Waiver
from trainshed.releases.plan import UnitVersion

COMMIT = "1a2b3c4d5e6f" + "0" * 28
REGISTRY = "registry.example/prod"
OLD_DIGEST = "sha256:" + "c" * 64
RUN_ID = "8f14e45f-ceea-467f-9575-6a5f1b2c3d4e"
CHECKSUM = "d" * 64
ARN = "arn:aws:ecs:eu-central-1:123456789012:task-definition/predictor:17"


def reference(component: str, digest: str) -> str:
    return f"{REGISTRY}/tumours/{component}@{digest}"


def lock() -> Lock:
    images = {
        "predictor": LockedImage(
            reference=reference("predictor", DIGEST),
            digest=DIGEST,
            input_digest=OTHER_DIGEST,
            base={"base-python": OTHER_DIGEST, "docker.io/library/python:3.11": DIGEST},
            verdicts={"scan": {"green": True, "tier": "MAIN"}, "build": {"green": True}},
            origin={"environment": "staging", "build_url": "https://jenkins.example/job/tumours/main/41/"},
        ),
        "train": LockedImage(reference=reference("train", OTHER_DIGEST), digest=OTHER_DIGEST, input_digest=DIGEST),
    }
    return Lock(project="tumours", commit=COMMIT, dirty=False, plan_digest=OTHER_DIGEST, created="2026-11-21T08:00:00Z", images=images)


def change(text: str, *, kind: str = "feat", scope: str = "", breaking: str = "", commit: str = COMMIT) -> Change:
    return Change(commit=commit, type=kind, scope=scope, text=text, breaking=breaking)


def manifest(**changed: Any) -> Manifest:
    made = Manifest(
        release="1.4.0",
        versions=(UnitVersion(unit="", version="1.4.0", tag="v1.4.0", previous="v1.3.2", bump="minor"),),
        project="tumours",
        commit=COMMIT,
        branch="main",
        source="staging",
        target="prod",
        created="2026-11-22T10:30:00Z",
        by="https://jenkins.example/job/tumours/main/42/",
        build_url="https://jenkins.example/job/tumours/main/42/",
        lock_digest=DIGEST,
        lock=lock().document(),
        images={
            "predictor": Image(reference=reference("predictor", DIGEST), digest=DIGEST, input_digest=OTHER_DIGEST, before=OLD_DIGEST),
            "train": Image(reference=reference("train", OTHER_DIGEST), digest=OTHER_DIGEST, input_digest=DIGEST, before=OTHER_DIGEST),
        },
        pipelines={
            "training": Pipeline(
                pipeline="tumour-training", pipeline_id="p-1", version="1.4.0", version_id="v-9", content_digest="sha256:" + "e" * 64
            )
        },
        services={"predictor": service()},
        runs={RUN_ID: run()},
        waivers=[
            Waiver(
                id="CVE-2026-0001",
                owner="risk-models@example.org",
                reason="The parser is never given input from outside — nobody reaches it.",
                expires="2026-12-31",
                days=39,
                package="libxml2",
                components=["predictor"],
            )
        ],
        changes={"": [change("answer with the model's checksum", scope="predictor"), change("läuft schneller", kind="perf")]},
        previous={"release": "1.3.2", "tags": ["v1.3.2"], "manifest": "sha256:" + "f" * 64, "commit": "9" * 40},
    )
    return replace(made, **changed)


def service() -> Service:
    model = {"uri": "s3://models/tumours/8f14/model", "run_id": RUN_ID, "sha256": CHECKSUM}
    return Service(
        service="predictor",
        revision="predictor:17",
        arn=ARN,
        unit={"image": reference("predictor", DIGEST), "digest": DIGEST, "model": model, "configuration": "1" * 64},
        digest=DIGEST,
        model={"uri": model["uri"], "run_id": RUN_ID, "sha256": CHECKSUM},
        golden="sha256:" + "2" * 64,
        definition={"family": "predictor", "containerDefinitions": [{"name": "predictor", "image": reference("predictor", DIGEST)}]},
    )


def run() -> Run:
    return Run(
        pipeline="training",
        environment="prod",
        version="1.3.2",
        version_id="v-8",
        parameters={"seed": 7},
        metrics={"train.auc": 0.98765432, "train.loss": "nan"},
        artifacts={"train.model": {"uri": "s3://models/tumours/8f14/model", "type": "system.Model"}},
        gates=[{"gate": "auc >= 0.8", "passed": True, "value": 0.98765432, "message": "auc = 0.988, at least 0.8"}],
    )
