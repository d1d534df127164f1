"""Kubeflow Pipelines' REST API (v2beta1), read strictly: JSON with non-empty ids, or an error that says what happened.

The generated client of the SDK follows the redirect of an expired login to an HTML page and returns empty objects; this one does not.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from trainshed.errors import RemoteError, UsageError
from trainshed.tools.http import Http, backoff
from trainshed.tools.kubeflow_auth import Login, login_for
from trainshed.tools.kubeflow_identity import Account, account
from trainshed.tools.kubeflow_records import (
    EXPERIMENT_NAME_LIMIT,
    PACKAGE_LIMIT,
    PIPELINE_NAME_LIMIT,
    TAG_LIMIT,
    VERSION_NAME_LIMIT,
    Artifact,
    MalformedAnswer,
    NotFound,
    Pipeline,
    RecurringRun,
    Run,
    Server,
    Trigger,
    Version,
    bounded,
    check_schedule,
    optional,
    page,
    pipeline_of,
    recurring_run_of,
    run_of,
    task_details_of,
    text_of,
    trigger_document,
    version_of,
)
from trainshed.tools.kubeflow_requests import Creation, Fate, Requests, Unclear, given, name_filter, segment
from trainshed.tools.kubeflow_tasks import tasks_of
from trainshed.values import Auth

_PAGE = 100
_TRIES = 3
_TAGS_SINCE = (2, 17)
_PAGES_WORDS = {"tag_name": "apiServerTagName", "multi_user": "apiServerMultiUser"}


class KubeflowClient:
    """A client of one Kubeflow Pipelines API.

    Args:
        host: its address, such as ``https://kubeflow.example.org/pipeline``.
        namespace: of a multi-user Kubeflow; empty otherwise.
        auth: how to log in; tokens and cookies are read anew for each request.
        timeout: seconds for one request.
        on_secret: is told every secret that is read, so that nothing shows it.
        pages: whether there are pages for people beside the API; the embedded Kubeflow has none.

    Every method raises `RemoteError` when the service cannot be reached, the login expired, or it answers what is not its API. What
    makes a thing makes it once: after a lost answer it looks for what may have been made before it tries again.
    """

    def __init__(  # noqa: PLR0913 - all but the host by keyword
        self,
        host: str,
        *,
        namespace: str = "",
        auth: Auth | None = None,
        timeout: float = 30.0,
        on_secret: Callable[[str], None] = lambda _: None,
        pages: bool = True,
    ) -> None:
        self._pages_for_people = pages
        self.host, self.namespace = host.rstrip("/"), namespace
        self._http = Http(timeout=timeout, busy={500})
        self.login: Login = login_for(auth or Auth(), self.host, self._http, on_secret=on_secret)
        self._requests = Requests(self.host, self._http, self.login, timeout)
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._requests.close()

    def healthz(self) -> dict[str, Any]:
        """Return the health document, such as ``{"multi_user": false}``."""
        return self._requests.get("/healthz")

    @cached_property
    def _server(self) -> Server:
        told = self.healthz()
        # Kubeflow's pages, where they stand in front, answer for the API, in words of their own.
        if told.get("apiServerReady") is False:
            raise Unclear(f"{self.host}: Kubeflow's pages answer, but the API behind them does not", Fate.UNDONE)
        known = {new: told.get(old, told.get(new)) for new, old in _PAGES_WORDS.items()}
        if all(value is None for value in (*known.values(), told.get("commit_sha"), told.get("pipeline_store"))):
            raise MalformedAnswer(f"{self.host}: not Kubeflow Pipelines: its health tells nothing", next_step="Check kubeflow.host.")
        version = _version_in(optional(known, "tag_name", str))
        return Server(version=".".join(map(str, version)), multi_user=optional(known, "multi_user", bool))

    def account(self) -> Account:
        """Return who the server says that we are; nobody where it does not say."""
        return account(self.host, self._http, self.login.headers())

    def server(self) -> Server:
        """Return what the service says of itself; asked once."""
        return self._server

    def require_ready(self, *, sdk: str = "") -> list[str]:
        """Make sure, before any work, that the service answers, knows the caller and takes the namespace; return warnings.

        Args:
            sdk: what compiled the pipeline, such as ``kfp-2.17.0``.

        Raises:
            UsageError: the namespace is missing, or one is set where there are none.
        """
        server = self.server()
        if server.multi_user and not self.namespace:
            raise UsageError(
                f"{self.host}: this Kubeflow has many users, so it wants a namespace",
                next_step="Set environments.<name>.kubeflow.namespace.",
            )
        if self.namespace and not server.multi_user:
            raise UsageError(
                f"{self.host}: this Kubeflow has one user and no namespaces, but the configuration names '{self.namespace}'",
                next_step="Remove environments.<name>.kubeflow.namespace.",
            )
        # The health is often told to anybody, so the first thing that needs a login is asked for now.
        page(self._requests.get("/experiments", {"namespace": self.namespace, "page_size": "1"}, what="the experiments"), "experiments")
        made, serves = _version_in(sdk), _version_in(server.version)
        if made and serves and serves[:2] < made[:2]:
            older = f"{self.host} is Kubeflow Pipelines {server.version}, older than the SDK that compiled the pipeline ({sdk})"
            return [f"{older}: it may refuse what is new there, or pass over it"]
        return []

    # pipelines and versions

    def pipeline_by_name(self, name: str) -> Pipeline | None:
        """Return the pipeline of a name in this client's namespace; None when there is none."""
        path = f"/pipelines/names/{segment(name)}"
        try:
            found = pipeline_of(self._requests.get(path, {"namespace": self.namespace}, what=f"pipeline '{name}'"))
        except NotFound:
            return None
        # An empty namespace matches any, so the answer may be another's pipeline.
        return found if found.namespace == self.namespace or not self.namespace else None

    def create_pipeline(self, name: str, *, description: str = "") -> Pipeline:
        """Create a pipeline without a version, so that its first version can have a name of its own.

        Raises:
            Conflict: there is one of that name, and it was not made by this call.
            UsageError: the name is too long.
        """
        bounded(name, PIPELINE_NAME_LIMIT, "pipeline")
        what = f"pipeline '{name}'"
        body = {"display_name": name, "name": name, "description": description, "namespace": self.namespace}
        return Creation(
            what=what,
            send=lambda: pipeline_of(self._requests.post("/pipelines", given(body), what=what)),
            find=lambda: self.pipeline_by_name(name),
            ours=lambda found, lost: _same(found.description, description, lost=lost),
            unique=True,
        ).make()

    def versions(self, pipeline_id: str, *, name: str = "", containing: str = "") -> Iterator[Version]:
        """Yield versions, the newest first, page by page.

        Args:
            pipeline_id: the pipeline's.
            name: only the one of this name.
            containing: only those with this in their name.
        """
        # The server compares without case, and takes "_" for any letter.
        path, wanted = f"/pipelines/{segment(pipeline_id)}/versions", name_filter(name=name, containing=containing)
        what = f"the versions of pipeline {pipeline_id}"
        for found in self._pages(path, "pipeline_versions", {"sort_by": "created_at desc", "filter": wanted}, what=what):
            version = version_of(found)
            if (not name or version.name == name) and containing in version.name:
                yield version

    def version(self, pipeline_id: str, version_id: str) -> Version:
        """Return one version with its specification."""
        path = f"/pipelines/{segment(pipeline_id)}/versions/{segment(version_id)}"
        return version_of(self._requests.get(path, what=f"version {version_id} of pipeline {pipeline_id}"))

    def upload_version(
        self, pipeline_id: str, name: str, text: str, *, description: str = "", tags: Mapping[str, str] | None = None
    ) -> Version:
        """Add a version from the text of a compiled pipeline.

        Args:
            pipeline_id: the pipeline's.
            name: unique in the pipeline.
            text: the compiled pipeline.
            description: tells a version that this call made from another of the same name.
            tags: kept by servers of 2.17 and newer; not sent to others.

        Raises:
            Conflict: the pipeline has a version of that name, and it was not made by this call.
            UsageError: the name, the file or a tag is too long.
        """
        bounded(name, VERSION_NAME_LIMIT, "version")
        content = text.encode()
        if len(content) > PACKAGE_LIMIT:
            raise UsageError(f"version '{name}': {len(content)} bytes are more than Kubeflow takes ({PACKAGE_LIMIT})")
        query = {"name": name, "pipelineid": pipeline_id, "description": description, "tags": self._tags(tags or {})}
        fields = {"uploadfile": ("pipeline.yaml", content, "application/x-yaml")}
        what, about = f"version '{name}'", f"pipeline {pipeline_id}"
        return Creation(
            what=what,
            send=lambda: version_of(self._requests.upload("/pipelines/upload_version", query, fields, what=what, about=about)),
            find=lambda: next(self.versions(pipeline_id, name=name), None),
            ours=lambda found, lost: _same(found.description, description, lost=lost),
            unique=True,
        ).make()

    def delete_version(self, pipeline_id: str, version_id: str) -> None:
        """Delete a version; its runs stay, and the server does not ask whether there are any. One that is gone is deleted."""
        path, what = f"/pipelines/{segment(pipeline_id)}/versions/{segment(version_id)}", f"version {version_id} of pipeline {pipeline_id}"
        self._requests.delete(path, what=what)

    def delete_pipeline(self, pipeline_id: str) -> None:
        """Delete a pipeline that has no version; one that is gone is deleted.

        Raises:
            UsageError: it has versions.
        """
        self._requests.delete(f"/pipelines/{segment(pipeline_id)}", what=f"pipeline {pipeline_id}")

    def _tags(self, tags: Mapping[str, str]) -> str:
        for key, value in tags.items():
            if not 0 < len(key) <= TAG_LIMIT or len(value) > TAG_LIMIT:
                raise UsageError(f"tag {key}={value}: expected at most {TAG_LIMIT} characters in name and value")
        known = tags and _version_in(self.server().version)
        return json.dumps(dict(tags), sort_keys=True) if known and known[:2] >= _TAGS_SINCE else ""

    # experiments and runs

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of a name; it is created when missing."""
        bounded(name, EXPERIMENT_NAME_LIMIT, "experiment")
        found = self._experiment(name)
        if found is not None:
            return found
        body, what = given({"display_name": name, "namespace": self.namespace}), f"experiment '{name}'"
        return Creation(
            what=what,
            send=lambda: text_of(self._requests.post("/experiments", body, what=what), "experiment_id"),
            find=lambda: self._experiment(name),
            ours=lambda _found, _lost: True,  # an experiment is but a name
            unique=True,
        ).make()

    def _experiment(self, name: str) -> str | None:
        query = {"filter": name_filter(name=name), "namespace": self.namespace}
        for found in self._pages("/experiments", "experiments", query, what="the experiments"):
            if optional(found, "display_name", str) == name:
                if optional(found, "storage_state", str) == "ARCHIVED":
                    raise UsageError(f"experiment '{name}' is archived", next_step="Restore it in Kubeflow, or name another.")
                return text_of(found, "experiment_id")
        return None

    def create_run(  # noqa: PLR0913 - what a run is made of
        self,
        version: Version,
        parameters: Mapping[str, Any],
        *,
        name: str,
        experiment: str,
        pipeline_root: str = "",
        service_account: str = "",
        description: str = "",
        specification: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run of a version; not given up when SIGTERM arrives in between.

        Args:
            version: what to run.
            parameters: of the pipeline.
            name: told nowhere else, for a run whose start got no answer is found by it.
            experiment: its id, see `experiment`.
            pipeline_root: where artifacts go; empty: where the server keeps them.
            service_account: of the run's pods.
            description: of the run.
            specification: run this IR instead of the version's own.
        """
        if not name:
            raise UsageError("a run needs a name")
        reference = {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.id}
        config = given({"parameters": dict(parameters), "pipeline_root": pipeline_root})
        body = {
            "display_name": name,
            "description": description,
            "experiment_id": experiment,
            "runtime_config": config,
            "service_account": service_account,
            **({"pipeline_version_reference": reference} if specification is None else {"pipeline_spec": dict(specification)}),
        }
        what, about = f"run '{name}'", f"version {version.id} of pipeline {version.pipeline_id}, experiment {experiment}"
        query = {"filter": name_filter(name=name), "experiment_id": experiment}
        return Creation(
            what=what,
            send=lambda: self._run(self._requests.post("/runs", given(body), what=what, about=about, surely=True)),
            find=lambda: next((run for run in self._runs(query, surely=True) if run.name == name), None),
            ours=lambda _found, _lost: True,  # its name is nobody else's
            unique=False,
            surely=True,
        ).make()

    def run(self, run_id: str, *, surely: bool = False) -> Run:
        """Return a run as it stands; its tasks without outputs, see `with_outputs`. ``surely``: even after SIGTERM."""
        return self._run(self._requests.get(f"/runs/{segment(run_id)}", what=f"run {run_id}", surely=surely))

    def runs(self, *, experiment: str = "", name: str = "") -> Iterator[Run]:
        """Yield runs, the newest first, page by page; only those of a name when asked."""
        found = self._runs({"namespace": self.namespace, "experiment_id": experiment, "filter": name_filter(name=name)})
        yield from (run for run in found if not name or run.name == name)

    def _runs(self, query: Mapping[str, str], *, surely: bool = False) -> Iterator[Run]:
        asked = {"sort_by": "created_at desc", **query}
        yield from map(self._run, self._pages("/runs", "runs", asked, what="the runs", surely=surely))

    def _run(self, document: Mapping[str, Any]) -> Run:
        return replace(run_of(document), tasks=tasks_of(task_details_of(document)))

    def with_outputs(self, run: Run) -> Run:
        """Return a run whose tasks have their parameters, artifacts and cache hits, from the metadata store.

        Raises:
            RemoteError: the store cannot be asked.
        """
        from trainshed.tools.kubeflow_metadata import MetadataStore, outputs

        return outputs(run, MetadataStore(self.host, self._http, self.login, self._timeout).executions(run.id))

    def artifacts(self, run_id: str) -> dict[str, Artifact]:
        """Return the artifacts of a run by ``task.output``."""
        return self.with_outputs(self.run(run_id)).artifacts

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run, even after SIGTERM; one that is finished already is left as it is.

        Raises:
            RemoteError: it is not known to end.
        """
        what, failed = f"run {run_id}", None
        for attempt in range(_TRIES):
            try:
                self._requests.post(f"/runs/{segment(run_id)}:terminate", {}, what=what, makes=False, surely=True)
            except UsageError:
                # So the server answers when the run is finished, or told to end already.
                run = self.run(run_id, surely=True)
                if run.state == "CANCELING" and failed is not None:
                    message = f"{failed.message}; it is marked as ending, but its workflow may not have been told"
                    raise RemoteError(message, next_step="Look whether it ends; if not, delete its workflow in the cluster.") from failed
                if run.finished or run.state == "CANCELING":
                    return
                raise
            except Unclear as error:
                # The server notes the end first and tells the workflow then, so its own failure may lie in between.
                failed = error if error.status == 500 else failed  # noqa: PLR2004
                if attempt == _TRIES - 1:
                    raise
                time.sleep(backoff(attempt))
            else:
                return

    def task_log(self, run_id: str, node: str) -> str | None:
        """Return what a task printed, by its node (see `Task`); None where the server has no log of it, or not yet."""
        path = f"/apis/v1alpha1/runs/{segment(run_id)}/nodes/{segment(node)}/log"
        # Kubeflow's pages pass this path on to nobody; they have one of their own.
        asked = given({"podname": node, "runid": run_id, "podnamespace": self.namespace})
        return self._requests.text(path, what=f"log of {node} in run {run_id}", elsewhere=f"/k8s/pod/logs?{urlencode(asked)}")

    def link(self, run_id: str) -> str:
        """Return where a person looks at a run; empty where there is no such page."""
        return f"{self.host}/#/runs/details/{run_id}" if self._pages_for_people else ""

    # recurring runs

    def recurring_runs(self, *, experiment: str = "") -> Iterator[RecurringRun]:
        """Yield recurring runs, the newest first, page by page."""
        yield from self._recurring_runs({"namespace": self.namespace, "experiment_id": experiment})

    def _recurring_runs(self, query: Mapping[str, str], *, surely: bool = False) -> Iterator[RecurringRun]:
        asked = {"sort_by": "created_at desc", **query}
        pages = self._pages("/recurringruns", "recurringRuns", asked, what="the recurring runs", surely=surely)
        yield from map(recurring_run_of, pages)

    def create_recurring_run(  # noqa: PLR0913 - what a recurring run is made of
        self,
        *,
        name: str,
        version: Version,
        trigger: Trigger,
        enabled: bool,
        experiment: str,
        parameters: Mapping[str, Any],
        description: str = "",
        pipeline_root: str = "",
        service_account: str = "",
        max_concurrency: int = 1,
        catch_up: bool = False,
    ) -> RecurringRun:
        """Create a recurring run; others of its name stay as they are.

        Raises:
            UsageError: the trigger is neither a cron expression nor a number of seconds, or the concurrency is out of bounds.
        """
        check_schedule(name, trigger, max_concurrency)
        body = {
            "display_name": name,
            "description": description,
            "experiment_id": experiment,
            "namespace": self.namespace,
            "pipeline_version_reference": given({"pipeline_id": version.pipeline_id, "pipeline_version_id": version.id}),
            "runtime_config": given({"parameters": dict(parameters), "pipeline_root": pipeline_root}),
            "service_account": service_account,
            "max_concurrency": str(max_concurrency),
            "trigger": trigger_document(trigger),
            "mode": "ENABLE" if enabled else "DISABLE",
            "no_catchup": not catch_up,
        }
        what, about = f"recurring run '{name}'", f"version {version.id} of pipeline {version.pipeline_id}, experiment {experiment}"
        before = {found.id for found in self._named(name, experiment, surely=False)}  # the server takes any number of one name
        return Creation(
            what=what,
            send=lambda: recurring_run_of(self._requests.post("/recurringruns", given(body), what=what, about=about, surely=True)),
            find=lambda: next((found for found in self._named(name, experiment, surely=True) if found.id not in before), None),
            ours=lambda found, lost: _same(found.description, description, lost=lost),
            unique=False,
            surely=True,
        ).make()

    def _named(self, name: str, experiment: str, *, surely: bool) -> Iterator[RecurringRun]:
        query = {"filter": name_filter(name=name), "experiment_id": experiment, "namespace": self.namespace}
        return (found for found in self._recurring_runs(query, surely=surely) if found.name == name)

    def enable_recurring_run(self, identifier: str) -> None:
        """Let a recurring run start runs."""
        self._switch(identifier, enabled=True)

    def disable_recurring_run(self, identifier: str) -> None:
        """Let a recurring run start no more runs."""
        self._switch(identifier, enabled=False)

    def _switch(self, identifier: str, *, enabled: bool) -> None:
        path, what = f"/recurringruns/{segment(identifier)}", f"recurring run {identifier}"
        self._requests.post(f"{path}:{'enable' if enabled else 'disable'}", {}, what=what, makes=False, repeat=True)
        # The answer is an empty document, which says nothing: anybody may give that.
        if recurring_run_of(self._requests.get(path, what=what)).enabled != enabled:
            message = f"{self.host}: {what} is {'disabled' if enabled else 'enabled'}, though Kubeflow took the opposite"
            raise RemoteError(message, next_step="Run `trainshed schedule` again; look at it in Kubeflow if it stays.")

    def delete_recurring_run(self, identifier: str) -> None:
        """Delete a recurring run; its runs stay."""
        self._requests.delete(f"/recurringruns/{segment(identifier)}", what=f"recurring run {identifier}")

    def _pages(self, path: str, key: str, query: Mapping[str, str], *, what: str, surely: bool = False) -> Iterator[dict[str, Any]]:
        token, seen = "", set[str]()
        while True:
            answer = self._requests.get(path, {**query, "page_size": str(_PAGE), "page_token": token}, what=what, surely=surely)
            yield from page(answer, key)
            token = optional(answer, "next_page_token", str)
            if not token:
                return
            if token in seen:  # the rest would be missing, without a word
                raise MalformedAnswer(f"{self.host}: {what}: the same page is named again as the next one")
            seen.add(token)


def _same(have: str, wanted: str, *, lost: bool) -> bool:
    """Tell whether a thing of the same name is what was asked for: by its description, and by nothing only where an answer was lost."""
    return have.strip() == wanted.strip() and (lost or bool(wanted.strip()))


def _version_in(text: str) -> tuple[int, ...]:
    """Return the version in a text such as ``kfp-2.17.0`` or ``v2.5.0-rc.1``; empty when there is none."""
    found = re.search(r"(?<!\d)(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()
