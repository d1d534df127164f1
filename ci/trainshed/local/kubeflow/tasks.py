"""One task of a run: inputs, container, outputs, with the library parts of ``kfp.local`` and none of its dispatcher.

`kfp.local`'s own dispatcher loses the artifacts of container components, takes a container that vanished for a success, keeps the
image's ENTRYPOINT, makes no folders for outputs, and gives two iterations of a loop one folder
(https://github.com/kubeflow/pipelines/issues/13332). Its walk over the graph is sound and is used as it is: `Tasks.execute` stands where
the walk expects ``execute_single_task``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.local import executor_input_utils, executor_output_utils, importer_handler, io, placeholder_utils
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.status import Status

from trainshed.local.kubeflow.containers import Containers, ImageMissing, Job
from trainshed.local.kubeflow.runs import file_name, log_of, read_status, settled, write_status
from trainshed.local.kubeflow.store import now

Untyped = Any
"""A protobuf message, or an object of kfp: neither has types."""

_BETWEEN = "\0between command and arguments\0"
_OUT_OF_MEMORY = 137
_METRICS_LIMIT = 1024 * 1024
_PATH = "\0path of the task"
_ITERATION = re.compile(r"(.+)-iteration-(\d+)")


class TaskFailed(Exception):
    """A task failed; the text says how."""


class Board:
    """The states of all tasks, written down at each change."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._status, self._frozen = read_status(folder), False
        self._bodies: dict[str, list[dict[str, Any]]] = {}
        self._iterations: set[str] = set()

    def begin(self, name: str) -> None:
        """Mark a task as running; the first one of an iteration brings the others along."""
        with self._lock:
            self._unfold(name.split("."))
            if name not in {each["name"] for each in self._status["tasks"]}:
                self._status["tasks"].append({"name": name, "state": "PENDING"})
            self._set(name, state="RUNNING", started=now())

    def end(self, name: str, *, error: str = "", **facts: Untyped) -> None:
        """Mark a task as ended: FAILED when there is an error."""
        with self._lock:
            self._set(name, state="FAILED" if error else "SUCCEEDED", ended=now(), error=error, **facts)

    def state(self, state: str) -> None:
        """Set the state of the run."""
        with self._lock:
            self._status["state"] = state
            self._write()

    def freeze(self) -> None:
        """Take no more changes, but the last one: what ends from now on ends because the run was terminated."""
        with self._lock:
            self._frozen = True

    def settle(self, state: str, error: str) -> bool:
        """Write the final state; False, and nothing written, when another thread froze the board to do that."""
        with self._lock:
            if self._frozen:
                return False
            self._status = settled(self._status, state, error)
            self._write()
            return True

    def settle_frozen(self, state: str, error: str) -> None:
        """Write the final state of a frozen board."""
        with self._lock:
            write_status(self._folder, settled(self._status, state, error))

    @property
    def failures(self) -> str:
        """Return which tasks failed, and how."""
        return "; ".join(f"task {task['name']}: {task['error']}" for task in self._status["tasks"] if task["state"] == "FAILED")

    def _unfold(self, parts: list[str]) -> None:
        """Put the tasks of an iteration in the place of the loop, from the outermost loop inwards."""
        tasks = self._status["tasks"]
        for end in range(1, len(parts)):
            loop, iteration = ".".join(parts[:end]), ".".join(parts[: end + 1])
            for each in [task for task in tasks if task["name"] == loop and "body" in task]:
                self._bodies[loop] = each["body"]
                tasks.remove(each)
            if loop in self._bodies and iteration not in self._iterations:
                self._iterations.add(iteration)
                tasks += [{**each, "name": f"{iteration}.{each['name']}".removesuffix(".")} for each in self._bodies[loop]]

    def _set(self, name: str, **facts: Untyped) -> None:
        if self._frozen:
            return
        for task in self._status["tasks"]:
            if task["name"] == name:
                task.update(facts)
        self._write()

    def _write(self) -> None:
        if not self._frozen:
            write_status(self._folder, self._status)


def on_its_path(execute_task: Callable[..., Untyped], names: Collection[str]) -> Callable[..., Untyped]:
    """Return kfp's ``execute_task``, changed so that a task knows its path: ``inner.train``, ``for-loop-1.0.train``.

    kfp hands on the name within the task's own pipeline only, so two tasks of one name would be one. The path goes along in a store of
    inputs and outputs that is put around the task; iterations of a loop are told by their name, which no task of the pipeline has.

    Args:
        execute_task: what is changed.
        names: of all tasks in the specification.
    """

    def execute(*, task_name: str, io_store: Untyped, **more: Untyped) -> Untyped:
        iteration = None if task_name in names else _ITERATION.fullmatch(task_name)
        above, own = io_store.get_parent_input(_PATH), ".".join(iteration.groups()) if iteration else task_name
        return execute_task(task_name=task_name, io_store=beginning(f"{above}.{own}".removeprefix("."), io_store), **more)

    return execute


def beginning(path: str = "", parent: Untyped = None) -> Untyped:
    """Return the store of inputs and outputs around a task, or around the whole pipeline."""
    store = io.IOStore(parent=parent)
    store.put_parent_input(_PATH, path)
    return store


class Tasks:
    """Executes the tasks of one run. Artifacts lie in ``folder/artifacts/<path of the task>/<output>``."""

    def __init__(self, folder: Path, containers: Containers, board: Board) -> None:
        self._folder, self._containers, self._board = folder, containers, board

    def execute(  # noqa: PLR0913 - the signature of kfp.local's execute_single_task, by which its walk calls this
        self,
        task_name: str,  # noqa: ARG002 - the path has it
        task_spec: Untyped,
        pipeline_resource_name: str,
        components: dict[str, Any],
        executors: dict[str, Any],
        io_store: Untyped,
        pipeline_root: str,
        runner: Untyped,  # noqa: ARG002 - a runner of kfp.local, which is not used
        unique_pipeline_id: str,
        fail_stack: list[str],  # noqa: ARG002 - filled by the walk
    ) -> tuple[dict[str, Any], Status]:
        """Run one task and return its outputs; a failure is written on the board, not raised."""
        name = io_store.get_parent_input(_PATH)
        self._board.begin(name)
        component = components[task_spec.component_ref.name]
        executor = executors[component.executor_label]
        place = {"pipeline_resource_name": pipeline_resource_name, "pipeline_root": pipeline_root, "unique_pipeline_id": unique_pipeline_id}
        try:
            arguments = _present(OrchestratorUtils.make_task_arguments(task_inputs_spec=task_spec.inputs, io_store=io_store))
            if executor.WhichOneof("spec") == "importer":
                outputs = _import(task_spec.component_ref.name, component, executor, arguments, place)
            else:
                outputs = self._retried(name, task_spec, component, executor.container, arguments, place)
        except (TaskFailed, ImageMissing, ValueError, KeyError, OSError) as error:
            _note(log_of(self._folder, name), f"{error}")
            self._board.end(name, error=str(error))
            return {}, Status.FAILURE
        self._board.end(name, **_told(outputs))
        return outputs, Status.SUCCESS

    def _retried(  # noqa: PLR0913 - what a task is made of
        self,
        name: str,
        task_spec: Untyped,
        component: Untyped,
        container: Untyped,
        arguments: dict[str, Any],
        place: dict[str, str],
    ) -> dict[str, Any]:
        policy = task_spec.retry_policy
        for attempt in range(policy.max_retry_count + 1):
            try:
                folder = file_name(name) if not attempt else f"{file_name(name)}-retry-{attempt}"
                return self._once(folder, name, component, container, arguments, place)
            except TaskFailed:
                if attempt == policy.max_retry_count:
                    raise
            factor = policy.backoff_factor or 2.0
            pause = min(policy.backoff_duration.seconds * factor**attempt, policy.backoff_max_duration.seconds or 3600)
            _note(log_of(self._folder, name), f"attempt {attempt + 1} failed; the next in {pause:g} s")
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _once(  # noqa: PLR0913 - what an attempt is made of
        self,
        attempt: str,
        name: str,
        component: Untyped,
        container: Untyped,
        arguments: dict[str, Any],
        place: dict[str, str],
    ) -> dict[str, Any]:
        root = self._folder / "artifacts" / attempt
        asked = executor_input_utils.construct_executor_input(
            component_spec=component, arguments=arguments, task_root=str(root), block_input_artifact=False
        )
        for parameter in [key for key, value in asked.inputs.parameter_values.items() if value.WhichOneof("kind") is None]:
            del asked.inputs.parameter_values[parameter]
        shown = executor_input_utils.executor_input_to_dict(executor_input=asked, component_spec=component)
        whole = placeholder_utils.replace_placeholders(
            full_command=[*container.command, _BETWEEN, *container.args],
            executor_input_dict=shown,
            task_resource_name=name.rpartition(".")[2],
            **place,
        )
        border = whole.index(_BETWEEN)
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o777)  # an image's own user, not root, has to write here
        job = Job(
            task=name,
            image=container.image,
            command=whole[:border],
            arguments=whole[border + 1 :],
            environment={variable.name: variable.value for variable in container.env},
            readable=[self._folder / "artifacts", *_imported(asked, self._folder)],
            writable=[root],
            log=log_of(self._folder, name),
        )
        code = self._containers.run(job)
        if code:
            hint = " (killed; perhaps out of memory)" if code == _OUT_OF_MEMORY else ""
            raise TaskFailed(f"exit code {code}{hint}")
        _open(root)
        return _outputs(asked, component)


def _present(arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is optional, has no default and was not given: a task sees no such input at all."""
    return {name: value for name, value in arguments.items() if value is not None}


def _open(root: Path) -> None:
    """Let every image's user read what this one's wrote, as an object store would."""
    for path in (root, *root.rglob("*")):
        with contextlib.suppress(OSError):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _import(name: str, component: Untyped, executor: Untyped, arguments: dict[str, Any], place: dict[str, str]) -> dict[str, Any]:
    outputs, status = importer_handler.run_importer(
        component_name=name, component_spec=component, executor_spec=executor, arguments=arguments, **place
    )
    if status is not Status.SUCCESS:
        raise TaskFailed("the import failed")
    return dict(outputs)


def _outputs(asked: Untyped, component: Untyped) -> dict[str, Any]:
    """Collect what a task gave, its own ``executor_output.json`` first; an artifact that it does not name is where it was asked for."""
    try:
        given = executor_output_utils.load_executor_output(asked.outputs.output_file)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise TaskFailed(f"executor_output.json cannot be read: {error}") from error
    for name, artifacts in asked.outputs.artifacts.items():
        if name not in given.artifacts:
            given.artifacts[name].CopyFrom(artifacts)
    for name, parameter in asked.outputs.parameters.items():
        if name not in given.parameter_values and not Path(parameter.output_file).is_file():
            raise TaskFailed(f"output parameter '{name}' was not written to {parameter.output_file}")
    found = executor_output_utils.get_outputs_from_executor_output(executor_output=given, executor_input=asked, component_spec=component)
    return dict(found)


def _imported(asked: Untyped, folder: Path) -> list[Path]:
    """Return input artifacts of this machine that no task of the run made: what importers name."""
    uris = [artifact.uri.removeprefix("file://") for each in asked.inputs.artifacts.values() for artifact in each.artifacts]
    paths = [Path(uri) for uri in uris if uri.startswith("/")]
    return [path for path in paths if path.exists() and not path.is_relative_to(folder)]


def _told(outputs: dict[str, Any]) -> dict[str, Any]:
    """Part outputs into parameters and artifacts, as JSON; of a list of artifacts each is told by its place."""
    told: dict[str, Any] = {"parameters": {}, "artifacts": {}}
    for name, value in outputs.items():
        several = value if isinstance(value, list) and value and hasattr(value[0], "uri") else [value]
        for place, one in enumerate(several):
            if hasattr(one, "uri"):
                told["artifacts"][name if len(several) == 1 else f"{name}-{place}"] = _artifact(one)
            else:
                told["parameters"][name] = value
    return json.loads(json.dumps(told, default=str))  # type: ignore[no-any-return]


def _artifact(one: Untyped) -> dict[str, Any]:
    uri = f"file://{one.uri}" if one.uri.startswith("/") else one.uri
    metadata = dict(one.metadata) or (_measured(Path(one.uri)) if one.schema_title == "system.Metrics" else {})
    return {"uri": uri, "type": one.schema_title, "metadata": metadata}


def _measured(file: Path) -> dict[str, Any]:
    """Return the numbers of metrics that a program wrote as a JSON object instead of as metadata."""
    try:
        found = json.loads(file.read_bytes()) if file.stat().st_size <= _METRICS_LIMIT else None
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, (int, float))} if isinstance(found, dict) else {}


def _note(log: Path, text: str) -> None:
    logging.getLogger(__name__).warning("%s: %s", log.stem, text)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"[trainshed] {text}\n")
