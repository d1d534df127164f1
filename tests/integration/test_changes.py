"""What a change makes the main job do again, and what it leaves alone: on real images, a real registry and the embedded Kubeflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.support.sample_project import Sample, docker
from trainshed.ledger.store import Ledger
from trainshed.settings import Tier

CHECKED = {"base", "prepare", "learn", "answer"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, docker_host: str, small_base: str) -> Iterator[Sample]:
    made = Sample(tmp_path_factory.mktemp("changes") / "project", docker_host, base=small_base)
    made.green("run")
    yield made
    made.down()


@pytest.fixture
def settled(sample: Sample) -> Sample:
    """Return the project with everything done, whatever the test before it did."""
    sample.green("run")
    return sample


def test_a_second_run_does_nothing_again_and_makes_no_new_version(settled: Sample) -> None:
    versions = settled.versions()
    again = settled.green("run")
    assert set(again.statuses("build").values()) == {"cached"}
    assert set(again.statuses("scan").values()) == {"cached"}
    assert set(again.statuses("test").values()) <= {"cached", "skipped"}
    assert again.statuses("upload") == {"sample_flow": "cached"}
    assert settled.versions() == versions


def test_a_plan_of_a_settled_tree_has_nothing_to_do(settled: Sample) -> None:
    plan = settled.green("plan")
    assert set(plan.statuses("plan").values()) == {"cached"}
    assert plan.document["waves"] == [["base"], ["answer", "learn", "prepare"]]
    assert plan.document["plan_digest"] == json.loads(settled.lock.read_text())["plan_digest"]


def test_one_byte_rebuilds_exactly_that_component_and_uploads_one_version(settled: Sample) -> None:
    before, versions = settled.locked(), settled.versions()
    settled.append("components/learn/src/main.py", "#")
    plan = settled.green("plan")
    assert plan.causes("plan")["learn"] == "changed: src/main.py"
    assert plan.result("plan", "learn")["reaches"] == ["pipeline sample_flow"]
    assert plan.result("plan", "learn")["cost"]["unknown"] == {"sample_flow": "no past run to judge by"}
    done = settled.green("run")
    assert [name for name, status in done.statuses("build").items() if status == "done"] == ["learn"]
    assert [name for name, status in done.statuses("scan").items() if status == "done"] == ["learn"]
    assert [name for name, status in done.statuses("test").items() if status == "done"] == ["learn"]
    after = settled.locked()
    assert {name for name in CHECKED if before[name] != after[name]} == {"learn"}
    assert settled.versions() == versions + 1
    assert after["learn"] in (settled.root / "build" / "pipelines" / "sample_flow.yaml").read_text()


def test_a_plan_says_which_cached_steps_a_change_costs_and_how_long_they_took(settled: Sample) -> None:
    tasks = {name: {"seconds": 3600.0, "cached": False, "state": "SUCCEEDED"} for name in ("prepare", "learn")}
    with Ledger.open(f"sqlite:///{settled.root / '.trainshed' / 'ledger.sqlite'}", tier=Tier.LAPTOP) as ledger:
        ledger.record_event("run", "local", "sample_flow", "run-1", {"state": "SUCCEEDED", "tasks": tasks})
    settled.append("components/prepare/src/main.py", "#")
    plan = settled.green("plan")
    cost = plan.result("plan", "prepare")["cost"]
    assert (cost["steps"], cost["seconds"], cost["pipelines"]) == (2, 7200.0, ["sample_flow"])
    assert plan.document["cost"] == cost
    assert "prepare moves: 2 steps of 1 pipeline, about 2 h" in plan.told
    assert plan.result("plan", "learn")["cost"] is None


def test_a_change_in_a_base_reaches_exactly_its_descendants(settled: Sample) -> None:
    settled.write("components/alone/Dockerfile", f"FROM {settled.base}\nCOPY alone.txt /\nUSER 65534:65534\n")
    settled.write("components/alone/alone.txt", "on nobody's base\n")
    settled.green("images")
    settled.append("components/base/base.txt", "more ground\n")
    plan = settled.green("plan")
    assert plan.causes("plan")["base"] == "changed: base.txt"
    assert plan.causes("plan")["learn"] == "base moves: base"
    assert plan.statuses("plan")["alone"] == "cached"
    done = settled.green("images")
    assert done.statuses("build") == {"base": "done", "prepare": "done", "learn": "done", "answer": "done", "alone": "cached"}
    shutil.rmtree(settled.root / "components" / "alone")


def test_a_change_in_a_test_file_runs_that_test_alone(settled: Sample) -> None:
    before = settled.locked()
    settled.append("components/prepare/tests/check.py", "# looked at again\n")
    plan = settled.green("plan")
    actions = {action["check"]: action for action in plan.result("plan", "prepare")["actions"]}
    assert (actions["build"]["needed"], actions["scan"]["needed"], actions["test"]["needed"]) == (False, False, True)
    assert actions["test"]["cause"] == "the tests or their settings changed"
    done = settled.green("images")
    assert [(result["stage"], result["name"]) for result in done.document["results"] if result["status"] == "done"] == [("test", "prepare")]
    assert settled.locked() == before


@pytest.mark.parametrize("path", ["components/learn/README.md", "components/learn/component.yaml", "README.md"])
def test_what_no_image_holds_moves_no_image(settled: Sample, path: str) -> None:
    settled.write(path, (settled.root / path).read_text() + "# more\n" if (settled.root / path).exists() else "# new\n")
    done = settled.green("images")
    assert set(done.statuses("build").values()) == {"cached"}
    assert "done" not in {result["status"] for result in done.document["results"]}


def test_a_component_that_goes_and_comes_back_is_found_again(settled: Sample) -> None:
    away = settled.root / "away"
    shutil.move(settled.root / "components" / "answer", away)
    assert "answer" not in settled.green("images").statuses("build")
    shutil.move(away, settled.root / "components" / "answer")
    back = settled.green("images")
    assert (back.statuses("build")["answer"], back.statuses("test")["answer"]) == ("cached", "cached")


def test_a_lost_ledger_costs_checks_and_no_image(settled: Sample) -> None:
    before = settled.locked()
    for file in (settled.root / ".trainshed").glob("ledger.sqlite*"):
        file.unlink()
    done = settled.green("images")
    assert set(done.statuses("build").values()) == {"cached"}
    assert set(done.statuses("scan").values()) == {"done"}
    assert done.statuses("test")["learn"] == "done"
    assert settled.locked() == before


def test_an_image_that_the_registry_lost_is_made_again(settled: Sample) -> None:
    revisions = settled.root / ".trainshed" / "registry"
    found = [path for path in revisions.rglob("sample/learn/_manifests") if path.is_dir()]
    assert found, "where does the embedded registry keep its images?"
    for path in found:
        shutil.rmtree(path)
    plan = settled.green("plan")
    assert plan.causes("plan")["learn"] == "the registry has no image of these inputs"
    done = settled.green("images")
    assert done.statuses("build") == {"base": "cached", "prepare": "cached", "learn": "done", "answer": "cached"}


def test_two_commands_at_once_build_an_input_once(settled: Sample) -> None:
    settled.append("components/prepare/src/main.py", "# both want this\n")
    first, second = settled.start("--json", "images"), settled.start("--json", "images")
    outs = [child.communicate(timeout=300) for child in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    documents = [json.loads(out) for out, _told in outs]
    built = [
        result["status"]
        for document in documents
        for result in document["results"]
        if (result["stage"], result["name"]) == ("build", "prepare")
    ]
    assert sorted(built) == ["cached", "done"]
    assert (
        len(
            {
                result["digest"]
                for document in documents
                for result in document["results"]
                if result["name"] == "prepare" and result["stage"] == "build"
            }
        )
        == 1
    )


def test_only_the_named_pipelines_components_are_made(settled: Sample) -> None:
    done = settled.green("run", "sample_flow")
    assert set(done.statuses("build")) == {"base", "prepare", "learn"}
    assert set(settled.locked()) == {"base", "prepare", "learn"}


def test_a_stale_lock_is_refused_and_nothing_is_stamped(settled: Sample) -> None:
    stamped = (settled.root / "build" / "pipelines" / "sample_flow.yaml").read_bytes()
    original = (settled.root / "components/learn/src/main.py").read_text()
    settled.append("components/learn/src/main.py", "# not built yet\n")
    done = settled.run("stamp")
    assert done.code == 2
    assert "stale" in done.told
    assert (settled.root / "build" / "pipelines" / "sample_flow.yaml").read_bytes() == stamped
    settled.write("components/learn/src/main.py", original)


def test_an_edited_lock_is_refused(settled: Sample) -> None:
    text = settled.lock.read_text()
    settled.lock.write_text(text.replace('"dirty": true', '"dirty": false', 1))
    done = settled.run("stamp")
    settled.lock.write_text(text)
    assert done.code == 2
    assert "edited" in done.told


def test_an_old_image_of_the_engine_is_not_trusted_for_a_file_of_the_same_size_and_time(settled: Sample) -> None:
    file = settled.root / "components/learn/src/main.py"
    import os

    settled.append("components/learn/src/main.py", "# one\n")
    settled.green("build", "learn")
    status = file.stat()
    file.write_text(file.read_text().replace("# one\n", "# two\n"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    (settled.root / ".trainshed" / "hashes.json").unlink(missing_ok=True)
    done = settled.green("build", "learn")
    reference = done.result("build", "learn")["reference"]
    said = docker(settled.engine, "run", "--rm", reference, "cat", "/app/main.py")
    assert said.endswith("# two\n")
