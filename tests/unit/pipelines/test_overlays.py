from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.support.nested_pipeline import IMAGES, compiled
from tests.unit.pipelines.test_paths import leaf, pipeline, task
from trainshed.errors import UsageError
from trainshed.pipelines import documents, overlays
from trainshed.pipelines.documents import Document
from trainshed.pipelines.overlays import InForce
from trainshed.pipelines.settings import Overlay
from trainshed.pipelines.stamp import stamp, stamped
from trainshed.pipelines.verify import verify

TEXT = compiled()
READ = json.dumps(documents.load(TEXT, place="x"))  # quicker to read again than YAML
TRAIN = "inner.deepest.train"


@pytest.fixture(autouse=True)
def _no_kfp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out kfp's own schema, which takes half a second to import; tests/integration asks it."""
    monkeypatch.setattr(overlays, "schema_problems", lambda _settings: [])


@pytest.fixture
def given() -> list[Document]:
    read: list[Document] = json.loads(READ)
    return read


def told(text: str) -> tuple[Overlay, ...]:
    """Read overlays as the settings file has them: environment, then path."""
    tables = tomllib.loads(text)
    return tuple(Overlay(environment=name, path=path, settings=told) for name, paths in tables.items() for path, told in paths.items())


def made(given: list[Document], text: str, environment: str = "dev") -> list[Document]:
    return overlays.applied(given, told(text), environment=environment, place="p.toml").documents


def resources(found: list[Document], label: str = "exec-train") -> Any:
    return documents.containers(found)[label].get("resources")


def platform(found: list[Document], label: str = "exec-train") -> Any:
    return found[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(label)


def wrong(given: list[Document], text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        made(given, text)
    assert caught.value.next_step == "Mend the overlay; docs/how-to/choose-machines-for-steps.md shows how."
    return caught.value.message.splitlines()


def test_without_overlays_nothing_but_the_lines_of_images_changes() -> None:
    before, after = TEXT.splitlines(), stamp(TEXT, IMAGES, place="x").splitlines()
    different = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert different
    assert all("component.invalid/" in old and "@sha256:" in new for old, new in different)


def test_cpu_and_memory_stand_in_the_fields_of_kfp_and_replace_what_the_template_has(given: list[Document]) -> None:
    assert resources(given) == {"cpuLimit": 1.0, "memoryLimit": 0.524288, "resourceCpuLimit": "1", "resourceMemoryLimit": "500Mi"}
    found = made(given, f'[dev."{TRAIN}"]\ncpu = {{ request = "500m", limit = 4 }}\nmemory = "8Gi"\n')
    assert resources(found) == {
        "cpuLimit": 4.0,
        "cpuRequest": 0.5,
        "memoryLimit": 8.589934592,
        "memoryRequest": 8.589934592,
        "resourceCpuLimit": "4",
        "resourceCpuRequest": "500m",
        "resourceMemoryLimit": "8Gi",
        "resourceMemoryRequest": "8Gi",
    }
    assert resources(given)["cpuLimit"] == 1.0


def test_a_task_that_is_not_meant_stays_as_it_is(given: list[Document]) -> None:
    found = made(given, f'[dev."{TRAIN}"]\ncpu = "4"\n')
    assert resources(found, "exec-train-3") == resources(given, "exec-train-3")
    assert found[1]["platforms"] == given[1]["platforms"]


def test_accelerators_are_set_changed_and_taken_away(given: list[Document]) -> None:
    text = f'["*"."{TRAIN}"]\naccelerator = {{ type = "nvidia.com/gpu", count = 2 }}\n[prod."{TRAIN}"]\naccelerator = {{ count = 8 }}\n'
    gpu = {"resourceType": "nvidia.com/gpu", "type": "nvidia.com/gpu"}
    assert resources(made(given, text))["accelerator"] == {**gpu, "count": "2", "resourceCount": "2"}
    prod = made(given, text, "prod")
    assert resources(prod)["accelerator"] == {**gpu, "count": "8", "resourceCount": "8"}
    assert resources(made(prod, f'[dev."{TRAIN}"]\naccelerator = {{ count = 0 }}\n')) == resources(given)
    assert resources(made(given, "[dev.look]\naccelerator = { count = 0 }\n"), "exec-look") is None
    assert wrong(given, "[dev.look]\naccelerator = { count = 1 }\n") == [
        "p.toml: look: accelerator: count needs a type, which the template does not have"
    ]


def test_an_accelerator_that_the_template_takes_from_a_parameter_keeps_its_parameter(given: list[Document]) -> None:
    documents.containers(given)["exec-look"]["resources"] = {
        "accelerator": {"resourceType": "{{$.inputs.parameters['t']}}", "resourceCount": "1"}
    }
    found = made(given, "[dev.look]\naccelerator = { count = 3 }\n")
    assert resources(found, "exec-look")["accelerator"] == {
        "count": "3",
        "resourceCount": "3",
        "resourceType": "{{$.inputs.parameters['t']}}",
    }


def test_settings_of_the_platform_stand_under_the_label_and_are_merged_key_by_key(given: list[Document]) -> None:
    found = made(
        given,
        f"""
        [dev."{TRAIN}"]
        instance-type = "g5.xlarge"
        node-selector = {{ pool = "gpu", workload = "gpu-training" }}
        tolerations = [{{ key = "gpu", operator = "Exists", effect = "NoSchedule" }}, {{ key = "spot", value = "yes" }}]
        pull-policy = "Always"
        labels = {{ team = "risk" }}
        annotations = {{ "example.org/note" = "any text: at all" }}
        """,
    )
    assert platform(found) == {
        "imagePullPolicy": "Always",
        "nodeSelector": {"labels": {"workload": "gpu-training", "pool": "gpu", "node.kubernetes.io/instance-type": "g5.xlarge"}},
        "podMetadata": {"labels": {"team": "risk"}, "annotations": {"example.org/note": "any text: at all"}},
        "secretAsEnv": platform(given)["secretAsEnv"],
        "tolerations": [{"effect": "NoSchedule", "key": "gpu", "operator": "Exists"}, {"key": "spot", "value": "yes"}],
    }
    again = made(found, f'[dev."{TRAIN}"]\ntolerations = [{{ key = "gpu", value = "a", effect = "NoSchedule" }}]\n')
    assert platform(again)["tolerations"] == [{"effect": "NoSchedule", "key": "gpu", "value": "a"}, {"key": "spot", "value": "yes"}]
    values = 'tolerations = [{ key = "gpu", value = "b", effect = "NoSchedule" }, { key = "gpu", value = "c", effect = "NoSchedule" }]'
    applied = overlays.applied(found, told(f'[dev."{TRAIN}"]\n{values}\n'), environment="dev", place="p.toml")
    assert platform(applied.documents)["tolerations"] == [
        {"effect": "NoSchedule", "key": "gpu", "value": "b"},
        {"effect": "NoSchedule", "key": "gpu", "value": "c"},
        {"key": "spot", "value": "yes"},
    ]
    (change,) = applied.changes
    assert str(change) == f"{TRAIN}: tolerations = gpu b NoSchedule, gpu c NoSchedule (the template has gpu Exists NoSchedule)"
    evicted = '[dev.look]\ntolerations = [{ key = "a", operator = "Exists", effect = "NoExecute", toleration-seconds = 60 }]\n'
    assert platform(made(given, evicted), "exec-look")["tolerations"][0]["tolerationSeconds"] == "60"


def test_a_secret_takes_the_place_of_whatever_sets_the_variable(given: list[Document]) -> None:
    container, own = documents.containers(given)["exec-train"], platform(given)
    container["env"] = [{"name": "A", "value": "plain"}, {"name": "B", "value": "stays"}]
    own["configMapAsEnv"] = [
        {"configMapName": "m", "keyToEnv": [{"configMapKey": "k", "envVar": "C"}, {"configMapKey": "k", "envVar": "D"}]}
    ]
    own["fieldPathAsEnv"] = [{"name": "E", "fieldPath": "metadata.name"}]
    secrets = '{ A = "s#a", C = "other#c", E = "s#e", TOKEN = "s#token" }'
    applied = overlays.applied(given, told(f'[dev."{TRAIN}"]\nsecrets = {secrets}\n'), environment="dev", place="p.toml")
    found = applied.documents
    assert documents.containers(found)["exec-train"]["env"] == [{"name": "B", "value": "stays"}]
    assert platform(found)["configMapAsEnv"] == [{"configMapName": "m", "keyToEnv": [{"configMapKey": "k", "envVar": "D"}]}]
    assert "fieldPathAsEnv" not in platform(found)
    assert platform(found)["secretAsEnv"] == [
        {
            "keyToEnv": [{"envVar": "A", "secretKey": "a"}, {"envVar": "E", "secretKey": "e"}, {"envVar": "TOKEN", "secretKey": "token"}],
            "optional": False,
            "secretName": "s",
            "secretNameParameter": {"runtimeValue": {"constant": "s"}},
        },
        {
            "keyToEnv": [{"envVar": "C", "secretKey": "c"}],
            "optional": False,
            "secretName": "other",
            "secretNameParameter": {"runtimeValue": {"constant": "other"}},
        },
    ]
    assert [str(change) for change in applied.changes] == [
        f"{TRAIN}: secrets.A = s#a (the template has a plain value)",
        f"{TRAIN}: secrets.C = other#c (the template has a config map)",
        f"{TRAIN}: secrets.E = s#e (the template has a field of the pod)",
        f"{TRAIN}: secrets.TOKEN = s#token (the template has another secret)",
    ]


def test_the_own_environment_counts_more_than_all_and_later_more_than_earlier(given: list[Document]) -> None:
    text = """
    [dev."**.train"]
    cpu = { limit = "5" }
    [dev."inner.**"]
    cpu = { request = "1" }
    [prod."**"]
    cpu = "64"
    ["*"."**"]
    cpu = { request = "3", limit = "3" }
    memory = "1Gi"
    """
    found = made(given, text)
    assert [resources(found)[name] for name in ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryLimit")] == ["1", "5", "1Gi"]
    assert [resources(found, "exec-words")[name] for name in ("resourceCpuRequest", "resourceCpuLimit")] == ["3", "3"]
    earlier = made(given, '[dev."inner.**"]\ncpu = "1"\n[dev."**.train"]\ncpu = "2"\n')
    later = made(given, '[dev."**.train"]\ncpu = "2"\n[dev."inner.**"]\ncpu = "1"\n')
    assert [resources(each)["resourceCpuLimit"] for each in (earlier, later)] == ["2", "1"]


def test_another_environment_gets_the_template_and_is_checked_all_the_same(given: list[Document]) -> None:
    assert made(given, f'[prod."{TRAIN}"]\ncpu = "4"\n', "dev") == given
    assert len(wrong(given, '[prod."inner.deepest.trian"]\ncpu = "4"\n')) == 1
    assert wrong(given, f'[prod."{TRAIN}"]\ncpu = {{ request = "3" }}\n') == [
        f"p.toml: for prod: {TRAIN}: cpu: the request 3 is more than the limit 1; set both"
    ]
    assert made(given, f'["*"."{TRAIN}"]\ncpu = {{ request = "3" }}\n[dev."{TRAIN}"]\ncpu = {{ limit = "4" }}\n', "dev")


def test_the_bytes_are_the_same_each_time_and_have_no_aliases() -> None:
    text = '[dev."**"]\ntolerations = [{ key = "a", operator = "Exists" }]\nsecrets = { A = "s#a" }\nlabels = { b = "c", a = "b" }\n'
    made = {stamp(TEXT, IMAGES, place="x", in_force=InForce(overlays=told(text), environment="dev")) for _ in range(2)}
    assert len(made) == 1
    assert "&id" not in made.pop()


def test_a_pipeline_of_one_document_gets_a_second_one_only_for_the_platform(given: list[Document]) -> None:
    assert len(made(given[:1], f'[dev."{TRAIN}"]\ncpu = "4"\n')) == 1
    found = made(given[:1], f'[dev."{TRAIN}"]\npull-policy = "Never"\n')
    assert found[1] == {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-train": {"imagePullPolicy": "Never"}}}}}}


def test_a_path_that_means_no_step_is_told_with_the_paths_there_are(given: list[Document]) -> None:
    (message,) = wrong(given, '[dev."inner.deepest.trian"]\ncpu = "4"\n')
    assert message.startswith(
        f"p.toml: overlays.dev.\"inner.deepest.trian\": no task has this path; perhaps you meant '{TRAIN}'; the tasks are clean, "
    )
    assert wrong(given, '[dev.importer]\ncpu = "4"\n') == [
        'p.toml: overlays.dev."importer": importer is an importer: it has no container, and Kubeflow chooses where it runs'
    ]
    assert wrong(given, '[dev.inner]\ncpu = "4"\n') == [
        'p.toml: overlays.dev."inner": inner holds tasks and runs nothing itself; write inner.** for all that it holds'
    ]
    assert wrong(given, '[dev."inner..x"]\ncpu = "4"\n') == ["p.toml: overlays.dev.\"inner..x\": 'inner..x' is no path of a task"]


def test_a_pattern_passes_over_importers_that_it_means_among_others(given: list[Document]) -> None:
    found = made(given, '[dev."*"]\ncpu = "4"\n')
    assert documents.executors(found)["exec-importer"] == documents.executors(given)["exec-importer"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "sets nothing"),
        ('cpus = "1"', "cpus: no such setting; perhaps you meant 'cpu'"),
        ('inner = { cpu = "1" }', 'the path of a nested step is quoted as a whole, such as "inner.train"'),
        ("cpu = true", 'cpu: expected an amount of CPU such as "500m", "2" or "1.5", not True'),
        ('cpu = "0"', "cpu: expected an amount of CPU"),
        ("cpu = { limits = 1 }", "cpu: no key 'limits'; perhaps you meant 'limit'; known: request, limit"),
        ("cpu = {}", "cpu: expected one of request, limit"),
        ('cpu = { request = "3", limit = "2500m" }', "the request 3 is more than the limit 2500m; set both"),
        ('cpu = { request = "3" }', "the request 3 is more than the limit 1; set both"),
        ('memory = "4K"', 'memory: expected an amount of memory, a whole number with its unit, such as "512Mi" or "4Gi", not \'4K\''),
        ("memory = 4", "memory: expected an amount of memory"),
        ('memory = "1.5Gi"', "memory: expected an amount of memory"),
        ('accelerator = "gpu"', "accelerator: expected a table, not 'gpu'"),
        ("accelerator = { count = -1 }", "accelerator: count: expected a whole number from 0 to 1024, not -1"),
        ('accelerator = { type = "a b" }', "accelerator: type: 'a b' is no name of a resource such as nvidia.com/gpu"),
        ('accelerator = { type = "gpu" }', "accelerator: type: 'gpu' is no name of a resource such as nvidia.com/gpu"),
        ('cpu = "\u0664"', "cpu: expected an amount of CPU"),
        ('memory = "\u0664Gi"', "memory: expected an amount of memory"),
        ('node-selector = { "" = "x" }', "node-selector.: no name of a Kubernetes label"),
        ('accelerator = { typ = "a" }', "accelerator: no key 'typ'; perhaps you meant 'type'"),
        ("tolerations = {}", "tolerations: expected a list of tables"),
        ("tolerations = [{}]", "tolerations: expected one of key, operator"),
        ('tolerations = [{ operator = "Exist" }]', "tolerations: expected one of Exists, Equal, not 'Exist'; perhaps you meant 'Exists'"),
        ('tolerations = [{ key = "a", operator = "Exists", value = "b" }]', "tolerations: operator Exists takes no value"),
        ('tolerations = [{ value = "b" }]', "tolerations: operator Equal needs a key"),
        (
            'tolerations = [{ key = "a", effect = "NoRun" }]',
            "tolerations: expected one of NoSchedule, PreferNoSchedule, NoExecute, not 'NoRun'",
        ),
        ('tolerations = [{ key = "a", toleration-seconds = 3 }]', "toleration-seconds has a meaning with effect NoExecute only"),
        ('tolerations = [{ key = "a", effect = "NoExecute", toleration-seconds = true }]', "expected a whole number of seconds, not True"),
        ('instance-type = ""', "instance-type: expected a text that is not empty"),
        ("instance-type = 3", "instance-type: expected a text, not 3"),
        ('node-selector = { pool = "a b" }', "node-selector.pool: 'a b' is no value of a Kubernetes label"),
        ('node-selector = { "a/b/c" = "x" }', "node-selector.a/b/c: no name of a Kubernetes label"),
        (f'labels = {{ a = "{"x" * 64}" }}', "is no value of a Kubernetes label"),
        ("annotations = { a = 1 }", "annotations.a: expected a text, not 1"),
        ('annotations = { "a b" = "x" }', "annotations.a b: no name of a Kubernetes label"),
        ('secrets = { "1A" = "s#k" }', "secrets.1A: no name of an environment variable"),
        ('secrets = { A = "Name#k" }', "secrets.A: expected the name of a Kubernetes secret and a key of it"),
        ('pull-policy = "always"', "pull-policy: expected one of Always, IfNotPresent, Never, not 'always'; perhaps you meant 'Always'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_before_a_pod_would_wait_for_ever(given: list[Document], settings: str, message: str) -> None:
    (told,) = wrong(given, f'[dev."{TRAIN}"]\n{settings}\n')
    assert message in told
    assert TRAIN in told


def test_a_secret_that_is_written_instead_of_its_name_is_not_repeated(given: list[Document]) -> None:
    assert "hunter2" not in wrong(given, '[dev.look]\nsecrets = { A = "hunter2 is the word" }\n')[0]


def test_all_problems_are_told_at_once(given: list[Document]) -> None:
    assert len(wrong(given, '[dev.trian]\ncpu = "1"\n[dev.look]\ncpus = 1\nlabels = { a = 1, b = 2 }\n')) == 4


def test_tasks_that_share_an_executor_are_set_alike_or_not_at_all() -> None:
    given = pipeline({"one": task("comp-a"), "two": task("comp-b")}, {"comp-a": leaf(), "comp-b": leaf()})
    assert wrong(given, '[dev.one]\ncpu = "1"\n') == [
        "p.toml: the tasks one, two share the executor exec-a: they can only be set alike, by a pattern that means all of them"
    ]
    assert wrong(given, '[prod.two]\ncpu = "1"\n')[0].startswith("p.toml: for prod: the tasks one, two share the executor exec-a")
    assert resources(made(given, '[dev."*"]\ncpu = "1"\n'), "exec-a")["resourceCpuLimit"] == "1"
    assert resources(made(given, '[dev.one]\ncpu = "1"\n[dev.two]\ncpu = "1"\n'), "exec-a")["resourceCpuLimit"] == "1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodeSelector": {"nodeSelectorJson": {"componentInputParameter": "x"}}}, "the template takes the node selector from a parameter"),
        ({"nodeSelector": []}, "the pipeline's nodeSelector is no mapping"),
        ({"tolerations": [3]}, "the pipeline's tolerations is no list of mappings"),
        ({"secretAsEnv": {}}, "the pipeline's secretAsEnv is no list of mappings"),
    ],
)
def test_what_cannot_be_merged_with_the_template_is_told(given: list[Document], settings: Document, message: str) -> None:
    given[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-look"] = settings
    text = '[dev.look]\nnode-selector = { a = "b" }\ntolerations = [{ key = "a" }]\nsecrets = { A = "s#a" }\n'
    (told,) = wrong(given, text)
    assert told.endswith(message)
    assert told.startswith("p.toml: look: ")


def test_what_the_schema_of_kfp_refuses_is_an_error(given: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "schema_problems", lambda settings: [f"no field {min(settings)}"])
    assert wrong(given, '[dev.look]\npull-policy = "Never"\n') == ["p.toml: look: kfp-kubernetes refuses it: no field imagePullPolicy"]


def test_the_stamp_tells_what_was_set_and_what_the_template_had() -> None:
    text = f'[dev."{TRAIN}"]\ncpu = {{ limit = 2 }}\nnode-selector = {{ workload = "training", pool = "gpu" }}\n'
    in_force = InForce(overlays=told(text), environment="dev", place="p.toml")
    assert [str(change) for change in stamped(TEXT, IMAGES, place="x", in_force=in_force).changes] == [
        f"{TRAIN}: cpu.limit = 2 (the template has 1)",
        f"{TRAIN}: node-selector.pool = gpu",
    ]


def test_verify_knows_the_overlays_and_finds_a_stamp_of_another_environment() -> None:
    overlaid = told(f'[dev."{TRAIN}"]\npull-policy = "Never"\n[prod.look]\ncpu = 2\n')
    dev, prod = (InForce(overlays=overlaid, environment=name, place="p.toml") for name in ("dev", "prod"))

    def problems(text: str, in_force: InForce) -> list[str]:
        return [str(each) for each in verify(text, IMAGES, template_text=TEXT, place="x", in_force=in_force).problems]

    made = stamp(TEXT, IMAGES, place="x", in_force=dev)
    assert problems(made, dev) == []
    told_of = "differs from the template stamped with this lock and the overlays of the environment"
    assert problems(made, prod) == [f"deploymentSpec.executors.exec-look.container.resources: {told_of} prod"]
    place = "platforms.kubernetes.deploymentSpec.executors.exec-train.imagePullPolicy"
    by_hand = made.replace("imagePullPolicy: Never", "imagePullPolicy: Always")
    assert problems(by_hand, dev) == [f"{place}: {told_of} dev"]
    assert problems(stamp(TEXT, IMAGES, place="x"), dev) == [f"{place}: {told_of} dev"]
    broken = InForce(overlays=told("[dev.gone]\ncpu = 1\n"), environment="dev", place="p.toml")
    assert "no task has this path" in problems(made, broken)[0]
