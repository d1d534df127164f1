from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp.local import executor_input_utils, executor_output_utils, importer_handler, io, placeholder_utils
from kfp.local.orchestrator import enhanced_dag_orchestrator, task_executor
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

from tests.support import kubeflow_flows as flows
from tests.support.kubeflow import OUTPUTS, specification, step
from tests.support.kubeflow_flows import compiled
from trainshed.local.kubeflow.containers import Containers, ImageMissing, Job
from trainshed.local.kubeflow.runner import walk
from trainshed.local.kubeflow.runs import log_of, read_status, task_states, write_status
from trainshed.local.kubeflow.tasks import Board, Tasks


class Host(Containers):
    """Runs a task's program on this machine, as a container would."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> int:
        self.jobs.append(job)
        if job.image == "missing":
            raise ImageMissing("image missing cannot be pulled")
        with job.log.open("ab") as log:
            command = [sys.executable, *job.command[1:], *job.arguments]
            return subprocess.run(command, stdout=log, stderr=log, check=False, env=dict(job.environment)).returncode


class Ran:
    def __init__(self, folder: Path, spec: dict[str, Any], **parameters: Any) -> None:
        self.folder, self.host = folder, Host()
        (folder / "logs").mkdir(parents=True)
        write_status(folder, {"state": "RUNNING", "error": "", "tasks": task_states(spec)})
        self.board = Board(folder)
        self.failed = walk(spec, parameters, Tasks(folder, self.host, self.board), root=folder / "artifacts")
        self.tasks = {task["name"]: task for task in read_status(folder)["tasks"]}

    def states(self) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks.items()}


def test_artifacts_and_parameters_of_container_components_reach_the_next_task(tmp_path: Path) -> None:
    ran = Ran(tmp_path / "run", compiled(flows.chain, tmp_path), word="hi")
    assert (ran.failed, ran.states()) == (False, {"say": "SUCCEEDED", "keep": "SUCCEEDED", "read": "SUCCEEDED"})
    model = tmp_path / "run" / "artifacts" / "keep" / "model"
    assert ran.tasks["keep"]["artifacts"] == {"model": {"uri": f"file://{model}", "type": "system.Model", "metadata": {}}}
    assert (ran.tasks["read"]["parameters"], model.read_text()) == ({"text": "hi!"}, "hi")
    assert log_of(tmp_path / "run", "say").read_text() == "saying hi\n"


def test_the_image_of_a_task_is_entered_by_its_command_and_sees_only_its_own_folder_writable(tmp_path: Path) -> None:
    ran = Ran(tmp_path / "run", specification("flow", {"a": step("pass", outputs={})}))
    job = ran.host.jobs[0]
    assert (list(job.command), list(job.arguments)) == (["python3", "-c", "pass"], [])
    assert list(job.readable) == [tmp_path / "run" / "artifacts"]
    assert list(job.writable) == [tmp_path / "run" / "artifacts" / "a"]
    assert (tmp_path / "run" / "artifacts" / "a").stat().st_mode & 0o777 == 0o777


def test_a_failing_task_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    steps = {"bad": step("print('about to fail'); raise SystemExit(3)"), "after": step("pass", needs=["bad"]), "other": step("pass")}
    ran = Ran(tmp_path / "run", specification("flow", steps))
    assert ran.failed
    assert ran.states() == {"bad": "FAILED", "after": "PENDING", "other": "SUCCEEDED"}
    assert (ran.tasks["bad"]["error"], ran.board.failures) == ("exit code 3", "task bad: exit code 3")
    assert log_of(tmp_path / "run", "bad").read_text() == "about to fail\n[trainshed] exit code 3\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (step("pass", image="missing"), "image missing cannot be pulled"),
        (step("import os; os.kill(os.getpid(), 9)"), "exit code -9"),
        (step("raise SystemExit(137)"), "perhaps out of memory"),
        (step("pass", outputs={"parameters": {"auc": {"parameterType": "NUMBER_DOUBLE"}}}), "output parameter 'auc' was not written"),
        (
            step("import sys; open(sys.argv[1], 'w').write('high')", outputs={"parameters": {"auc": {"parameterType": "NUMBER_DOUBLE"}}}),
            "Could not deserialize output 'auc'",
        ),
    ],
)
def test_what_went_wrong_is_told(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    ran = Ran(tmp_path / "run", specification("flow", {"a": broken}))
    assert ran.failed
    assert message in ran.tasks["a"]["error"]


def test_metadata_of_the_executor_output_and_metrics_in_a_file_are_both_told(tmp_path: Path) -> None:
    metrics = {"artifacts": {"metrics": {"artifactType": {"schemaTitle": "system.Metrics", "schemaVersion": "0.0.1"}}}}
    output = "{'artifacts': {'metrics': {'artifacts': [{'name': 'm', 'uri': sys.argv[1], 'metadata': {'auc': 0.9}}]}}}"
    told = f"import json, os, sys; json.dump({output}, open(os.path.dirname(sys.argv[1]) + '/executor_output.json', 'w'))"
    steps = {
        "file": step('import sys; open(sys.argv[1], \'w\').write(\'{"auc": 0.5, "note": "x"}\')', outputs=metrics),
        "told": step(told, outputs=metrics),
        "text": step("import sys; open(sys.argv[1], 'w').write('auc 0.5')", outputs=metrics),
        "list": step("import sys; open(sys.argv[1], 'w').write('[1]')", outputs=metrics),
    }
    ran = Ran(tmp_path / "run", specification("flow", steps))
    found = {name: task["artifacts"]["metrics"]["metadata"] for name, task in ran.tasks.items()}
    assert found == {"file": {"auc": 0.5}, "told": {"auc": 0.9}, "text": {}, "list": {}}


def test_an_executor_output_that_is_not_json_fails_the_task(tmp_path: Path) -> None:
    program = "import os, sys; open(os.path.dirname(sys.argv[1]) + '/executor_output.json', 'w').write('{')"
    ran = Ran(tmp_path / "run", specification("flow", {"a": step(program, outputs=OUTPUTS)}))
    assert "executor_output.json cannot be read" in ran.tasks["a"]["error"]


def test_outputs_that_only_their_writer_could_read_are_opened_to_the_next_image(tmp_path: Path) -> None:
    program = "import os, sys; os.mkdir(sys.argv[1], 0o700); os.close(os.open(sys.argv[1] + '/weights', os.O_CREAT, 0o600))"
    Ran(tmp_path / "run", specification("flow", {"a": step(program, outputs=OUTPUTS)}))
    folder = tmp_path / "run" / "artifacts" / "a" / "model"
    assert (folder.stat().st_mode & 0o005, (folder / "weights").stat().st_mode & 0o004) == (0o005, 0o004)


def test_a_task_is_retried_as_often_as_it_asks_in_a_fresh_folder(tmp_path: Path) -> None:
    spec = specification("flow", {"a": step("import sys; sys.exit(0 if 'retry-2' in sys.argv[1] else 1)", outputs=OUTPUTS)})
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"] = {"maxRetryCount": 2, "backoffDuration": "0s"}
    ran = Ran(tmp_path / "run", spec)
    assert (ran.states(), len(ran.host.jobs)) == ({"a": "SUCCEEDED"}, 3)
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"]["maxRetryCount"] = 1
    assert Ran(tmp_path / "again", spec).failed


def test_branches_and_loops_run_and_the_iterations_keep_apart(tmp_path: Path) -> None:
    ran = Ran(tmp_path / "run", compiled(flows.control, tmp_path), go=True)
    assert not ran.failed
    texts = {name: task["parameters"]["text"] for name, task in ran.tasks.items() if name.endswith(".read")}
    assert texts == {f"for-loop-4.{place}.read": f"{letter}!" for place, letter in enumerate("abc")}
    assert [name for name, state in ran.states().items() if state == "PENDING"] == ["condition-2.keep"]
    assert set(ran.tasks) == {*texts, "condition-1.say", "condition-2.keep", *(f"for-loop-4.{place}.keep-2" for place in range(3))}


def test_two_tasks_of_one_name_in_nested_pipelines_are_two(tmp_path: Path) -> None:
    spec = specification("flow", {"train": step("pass", outputs=OUTPUTS), "for-iteration-1": step("pass")})
    spec["components"]["comp-inner"] = {"dag": {"tasks": {"train": spec["root"]["dag"]["tasks"]["train"]}}}
    spec["components"]["comp-inner"]["dag"]["tasks"]["fail"] = {"componentRef": {"name": "comp-fail"}}
    spec["components"]["comp-fail"] = {"executorLabel": "exec-fail"}
    spec["deploymentSpec"]["executors"]["exec-fail"] = {"container": {"image": "x", "command": step("raise SystemExit(4)")["command"]}}
    spec["root"]["dag"]["tasks"]["inner"] = {"componentRef": {"name": "comp-inner"}}
    ran = Ran(tmp_path / "run", spec)
    good = dict.fromkeys(("train", "for-iteration-1", "inner.train"), "SUCCEEDED")
    assert ran.states() == {**good, "inner.fail": "FAILED"}
    assert ran.board.failures == "task inner.fail: exit code 4"
    assert {job.task for job in ran.host.jobs} == set(ran.states())
    assert ran.tasks["inner.train"]["artifacts"]["model"]["uri"].endswith("/artifacts/inner.train/model")


def test_an_optional_parameter_that_is_not_given_is_absent(tmp_path: Path) -> None:
    spec = specification("flow", {"a": step("pass")}, {"rows": {"parameterType": "NUMBER_INTEGER", "isOptional": True}})
    assert not Ran(tmp_path / "run", spec).failed
    spec = compiled(flows.hopeful, tmp_path)
    assert Ran(tmp_path / "none", spec).tasks["tell"]["parameters"] == {"text": "nothing"}
    assert Ran(tmp_path / "given", spec, word="something").tasks["tell"]["parameters"] == {"text": "something"}


def test_an_import_of_this_machine_is_shown_to_the_task_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("42")
    ran = Ran(tmp_path / "run", compiled(flows.importing(tmp_path / "weights"), tmp_path))
    assert ran.tasks["read"]["parameters"] == {"text": "42!"}
    assert tmp_path / "weights" in ran.host.jobs[0].readable


def test_a_frozen_board_keeps_what_it_had_and_is_settled_once(tmp_path: Path) -> None:
    write_status(tmp_path, {"state": "RUNNING", "error": "", "tasks": [{"name": "a", "state": "PENDING"}]})
    board = Board(tmp_path)
    board.state("RUNNING")
    board.begin("a")
    board.begin("b")
    board.freeze()
    board.end("a", error="killed")
    assert not board.settle("FAILED", "killed")
    board.settle_frozen("CANCELED", "terminated")
    assert {task["name"]: task["state"] for task in read_status(tmp_path)["tasks"]} == {"a": "CANCELED", "b": "CANCELED"}
    assert Board(tmp_path).settle("SUCCEEDED", "")


def test_the_parts_of_kfp_that_are_used_are_what_they_were() -> None:
    """Fail when kfp moves: what is used here is private to it, and pinned to one minor version for that reason."""
    parameters = {
        task_executor.execute_single_task: [
            *("task_name", "task_spec", "pipeline_resource_name", "components", "executors"),
            *("io_store", "pipeline_root", "runner", "unique_pipeline_id", "fail_stack"),
        ],
        enhanced_dag_orchestrator.run_enhanced_dag: [
            *("pipeline_resource_name", "dag_component_spec", "executors", "components", "dag_arguments"),
            *("pipeline_root", "runner", "unique_pipeline_id", "fail_stack", "parent_io_store"),
        ],
        enhanced_dag_orchestrator.execute_task: [
            *("task_name", "task_spec", "pipeline_resource_name", "components", "executors"),
            *("io_store", "pipeline_root", "runner", "unique_pipeline_id", "fail_stack"),
        ],
        OrchestratorUtils.make_task_arguments: ["task_inputs_spec", "io_store"],
        executor_input_utils.construct_executor_input: ["component_spec", "arguments", "task_root", "block_input_artifact"],
        executor_input_utils.executor_input_to_dict: ["executor_input", "component_spec"],
        executor_output_utils.load_executor_output: ["executor_output_path"],
        executor_output_utils.get_outputs_from_executor_output: ["executor_output", "executor_input", "component_spec"],
        importer_handler.run_importer: [
            *("pipeline_resource_name", "component_name", "component_spec", "executor_spec"),
            *("arguments", "pipeline_root", "unique_pipeline_id"),
        ],
        placeholder_utils.replace_placeholders: [
            *("full_command", "executor_input_dict", "pipeline_resource_name"),
            *("task_resource_name", "pipeline_root", "unique_pipeline_id"),
        ],
    }
    for function, names in parameters.items():
        assert list(inspect.signature(function).parameters) == names, function
    assert "task_executor.execute_single_task(" in inspect.getsource(enhanced_dag_orchestrator.execute_task)
    for caller in (enhanced_dag_orchestrator.run_enhanced_dag, enhanced_dag_orchestrator.ParallelExecutor):
        assert "execute_task" in inspect.getsource(caller)
    assert "-iteration-" in inspect.getsource(enhanced_dag_orchestrator._run_parallel_for_task)
    assert list(inspect.signature(Tasks.execute).parameters)[1:] == parameters[task_executor.execute_single_task]
    outer = io.IOStore()
    outer.put_parent_input("a", 1)
    assert io.IOStore(parent=outer).get_parent_input("a") == 1
    assert json.dumps(placeholder_utils.make_random_id())
