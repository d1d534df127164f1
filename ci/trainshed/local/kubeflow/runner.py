"""The child process of one run: ``python -m trainshed.local.kubeflow.runner FOLDER``.

A process of its own, because `kfp.local` replaces ``print`` and the root logger for everybody, and so that a run outlives the server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from trainshed import files, owner
from trainshed.local.kubeflow.containers import Containers
from trainshed.local.kubeflow.runs import FINAL, read_status
from trainshed.local.kubeflow.tasks import Board, Tasks, beginning, on_its_path


def main(folder: Path) -> int:
    """Run what ``folder/request.json`` asks for; the result is in ``folder/status.json``."""
    request = json.loads((folder / "request.json").read_bytes())
    (folder / "logs").mkdir(exist_ok=True)
    board = Board(folder)
    containers = Containers(request["engine"], run_id=request["run_id"], network=request["network"])
    end = _end_on_sigterm(containers, board)
    files.write_text(folder / "owner", owner.mark())
    if (folder / "terminate").exists():  # asked for while this process could not yet be found
        end()
    if read_status(folder)["state"] in FINAL:  # given up by a server that could not find this process
        return 1
    board.state("RUNNING")
    try:
        failed = walk(request["specification"], request["parameters"], Tasks(folder, containers, board), root=folder / "artifacts")
    except Exception as error:
        board.settle("FAILED", f"{type(error).__name__}: {error}")
        raise
    if not board.settle("FAILED" if failed else "SUCCEEDED", board.failures or "the pipeline failed"):
        threading.Event().wait()  # the thread that ends this run leaves the process
    return 1 if failed else 0


def walk(specification: dict[str, Any], parameters: dict[str, Any], tasks: Tasks, *, root: Path) -> bool:
    """Walk the graph with `kfp.local`'s orchestrator; return whether something failed."""
    from google.protobuf import json_format
    from kfp.local import placeholder_utils, status, utils
    from kfp.local.orchestrator import enhanced_dag_orchestrator, task_executor
    from kfp.pipeline_spec import pipeline_spec_pb2

    root.mkdir(parents=True, exist_ok=True)
    pipeline = json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True)
    executors = {name: utils.struct_to_executor_spec(each) for name, each in pipeline.deployment_spec["executors"].items()}
    names = {name for component in (pipeline.root, *pipeline.components.values()) for name in component.dag.tasks}
    single, any_task = task_executor.execute_single_task, enhanced_dag_orchestrator.execute_task
    task_executor.execute_single_task = tasks.execute
    enhanced_dag_orchestrator.execute_task = on_its_path(any_task, names)
    try:
        _, state = enhanced_dag_orchestrator.run_enhanced_dag(
            pipeline_resource_name=pipeline.pipeline_info.name,
            dag_component_spec=pipeline.root,
            executors=executors,
            components=dict(pipeline.components.items()),
            dag_arguments={**_absent(pipeline.root), **parameters},
            pipeline_root=str(root),
            runner=None,
            unique_pipeline_id=placeholder_utils.make_random_id(),
            fail_stack=[],
            parent_io_store=beginning(),
        )
    finally:
        task_executor.execute_single_task, enhanced_dag_orchestrator.execute_task = single, any_task
    return bool(state == status.Status.FAILURE)


def _absent(root: Any) -> dict[str, None]:  # noqa: ANN401 - a protobuf message, untyped
    """Return the optional parameters without a default: `kfp.local` fails on them when they are not given."""
    return {name: None for name, defined in root.input_definitions.parameters.items() if not defined.HasField("default_value")}


def _end_on_sigterm(containers: Containers, board: Board) -> Callable[[], None]:
    """Make SIGTERM end the containers, write the state and leave, wherever the walk stands; return what does that."""

    def end() -> None:
        board.freeze()
        containers.remove_all()
        board.settle_frozen("CANCELED", "the run was terminated")
        os._exit(143)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal calls
        threading.Thread(target=end).start()  # a handler must not take locks that the main thread may hold

    signal.signal(signal.SIGTERM, on_signal)
    return end


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
