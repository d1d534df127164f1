"""Kubeflow Pipelines' REST API (v2beta1), read strictly: JSON with non-empty ids, or an error that says what happened.

The generated client of the SDK follows the redirect of an expired login to an HTML page and returns empty objects; this one does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from trainshed.errors import RemoteError, TrainshedError, UsageError
from trainshed.keys import Auth
from trainshed.tools.http import Http, Response
from trainshed.tools.kubeflow_auth import Login, login_for
from trainshed.tools.kubeflow_records import (
    PACKAGE_LIMIT,
    PIPELINE_NAME_LIMIT,
    VERSION_NAME_LIMIT,
    Artifact,
    Conflict,
    NotFound,
    Pipeline,
    Run,
    Version,
    pipeline_of,
    run_of,
    text_of,
    version_of,
)

_API = "/apis/v2beta1"
_PAGE = 100
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOGIN_WANTED = _REDIRECTS | {401}
_LOGIN = "Log in anew: renew the credentials that environments.<name>.kubeflow.auth names."


class KubeflowClient:
    """A client of one Kubeflow Pipelines API.

    Args:
        host: its address, such as ``https://kubeflow.example.org/pipeline``.
        namespace: of a multi-user Kubeflow; empty otherwise.
        auth: how to log in; tokens and cookies are read anew for each request.
        timeout: seconds for one request.

    Every method raises `RemoteError` when the service cannot be reached, the login expired, or it answers what is not its API.
    """

    def __init__(self, host: str, *, namespace: str = "", auth: Auth | None = None, timeout: float = 30.0) -> None:
        self.host, self.namespace = host.rstrip("/"), namespace
        self._http = Http(timeout=timeout)
        # A run must not be started without its id being known, nor left running, because SIGTERM arrives in between.
        self._surely = Http(timeout=timeout, retries=0, interruptible=False)
        self._login: Login = login_for(auth or Auth(), self.host, self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._surely.close()

    def healthz(self) -> dict[str, Any]:
        """Return the health document, such as ``{"multi_user": false}``."""
        return self._get("/healthz")

    def pipeline_by_name(self, name: str) -> Pipeline | None:
        """Return the pipeline of a name in this client's namespace; None when there is none."""
        try:
            found = pipeline_of(self._get(f"/pipelines/names/{quote(name, safe='')}", {"namespace": self.namespace}))
        except NotFound:
            return None
        # An empty namespace matches any, so the answer may be another's pipeline.
        return found if found.namespace == self.namespace or not self.namespace else None

    def create_pipeline(self, name: str, *, description: str = "") -> Pipeline:
        """Create a pipeline without a version, so that its first version can have a name of its own."""
        _bounded(name, PIPELINE_NAME_LIMIT, "pipeline")
        body = {"display_name": name, "name": name, "description": description, "namespace": self.namespace}
        return pipeline_of(self._post("/pipelines", body, what=f"pipeline '{name}'"))

    def versions(self, pipeline_id: str) -> Iterator[Version]:
        """Yield all versions, the newest first, page by page."""
        path = f"/pipelines/{quote(pipeline_id, safe='')}/versions"
        yield from map(version_of, self._pages(path, "pipeline_versions", {"sort_by": "created_at desc"}))

    def version(self, pipeline_id: str, version_id: str) -> Version:
        """Return one version with its specification."""
        return version_of(self._get(f"/pipelines/{quote(pipeline_id, safe='')}/versions/{quote(version_id, safe='')}"))

    def upload_version(self, pipeline_id: str, name: str, text: str, *, description: str = "") -> Version:
        """Add a version from the text of a compiled pipeline.

        Raises:
            Conflict: the pipeline has a version of that name.
            UsageError: the name or the file is too long.
        """
        _bounded(name, VERSION_NAME_LIMIT, "version")
        content = text.encode()
        if len(content) > PACKAGE_LIMIT:
            raise UsageError(f"version '{name}': {len(content)} bytes are more than Kubeflow takes ({PACKAGE_LIMIT})")
        query = {"name": name, "pipelineid": pipeline_id, "description": description}
        fields = {"uploadfile": ("pipeline.yaml", content, "application/x-yaml")}
        answer = self._request("POST", "/pipelines/upload_version", query, fields=fields, what=f"version '{name}'", idempotent=False)
        return version_of(answer)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of a name; it is created when missing."""
        found = self._experiment(name)
        if found is not None:
            return found
        body = {"display_name": name, "namespace": self.namespace}
        try:
            return text_of(self._post("/experiments", body, what=f"experiment '{name}'"), "experiment_id")
        except Conflict:  # another launch created it meanwhile
            found = self._experiment(name)
            if found is None:
                raise
            return found

    def _experiment(self, name: str) -> str | None:
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})
        listed = self._pages("/experiments", "experiments", {"filter": wanted, "namespace": self.namespace})
        return next((text_of(entry, "experiment_id") for entry in listed if entry.get("display_name") == name), None)

    def create_run(  # noqa: PLR0913 - what a run is made of
        self,
        version: Version,
        parameters: Mapping[str, Any],
        *,
        name: str,
        experiment: str,
        pipeline_root: str = "",
        service_account: str = "",
    ) -> Run:
        """Start a run of a version; ``experiment`` is an id, see `experiment`."""
        body = {
            "display_name": name,
            "experiment_id": experiment,
            "pipeline_version_reference": {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.id},
            "runtime_config": {"parameters": dict(parameters), **({"pipeline_root": pipeline_root} if pipeline_root else {})},
            **({"service_account": service_account} if service_account else {}),
        }
        return run_of(self._request("POST", "/runs", body=body, what=f"run '{name}'", idempotent=False, surely=True))

    def run(self, run_id: str) -> Run:
        """Return a run as it stands."""
        return run_of(self._get(f"/runs/{quote(run_id, safe='')}"))

    def runs(self, *, experiment: str = "") -> Iterator[Run]:
        """Yield runs, the newest first, page by page."""
        query = {"sort_by": "created_at desc", "namespace": self.namespace, "experiment_id": experiment}
        yield from map(run_of, self._pages("/runs", "runs", query))

    def artifacts(self, run_id: str) -> dict[str, Artifact]:
        """Return the artifacts of a run by ``task.output``; empty where the server does not tell them."""
        return {f"{task.name}.{name}": artifact for task in self.run(run_id).tasks for name, artifact in task.artifacts.items()}

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run; one that is finished already is left as it is."""
        self._request("POST", f"/runs/{quote(run_id, safe='')}:terminate", what=f"run {run_id}", surely=True)

    def task_log(self, run_id: str, task: str) -> str | None:
        """Return what a task printed; None where the server does not tell (only the embedded Kubeflow does)."""
        path = f"{self.host}{_API}/runs/{quote(run_id, safe='')}/tasks/{quote(task, safe='')}/log"
        answer = self._http.request("GET", path, headers=self._login.headers())
        return answer.text if answer.ok and "text/plain" in _kind(answer) else None

    def _pages(self, path: str, key: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._get(path, {**query, "page_size": str(_PAGE), "page_token": token})
            yield from page.get(key) or ()
            previous, token = token, page.get("next_page_token") or ""
            if not token or token == previous:
                return

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._request("GET", path, query)

    def _post(self, path: str, body: Any, *, what: str) -> dict[str, Any]:  # noqa: ANN401 - any JSON document
        return self._request("POST", path, body=body, what=what, idempotent=False)

    def _request(  # noqa: PLR0913 - one door, so it has all the handles
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,  # noqa: ANN401 - any JSON document
        fields: Mapping[str, Any] | None = None,
        what: str = "",
        idempotent: bool = True,
        surely: bool = False,
    ) -> dict[str, Any]:
        asked = {name: value for name, value in (query or {}).items() if value}
        url = f"{self.host}{_API}{path}" + (f"?{urlencode(asked)}" if asked else "")
        http = self._surely if surely else self._http

        def ask() -> Response:
            headers = {"Accept": "application/json", **self._login.headers()}
            return http.request(method, url, headers=headers, json=body, fields=fields, idempotent=idempotent)

        answer = ask()
        if answer.status in _LOGIN_WANTED and self._login.renew():
            answer = ask()
        return _document(answer, self.host, what or path.partition("?")[0])


def _document(answer: Response, host: str, what: str) -> dict[str, Any]:
    """Return the JSON document of a good answer, or raise what the status means."""
    if answer.status in _REDIRECTS:
        raise RemoteError(f"{host}: session expired (redirected to a login page)", next_step=_LOGIN)
    if answer.status in {401, 403}:
        raise RemoteError(f"{host}: {what}: not permitted (HTTP {answer.status}): {_said(answer)}", next_step=_LOGIN)
    if answer.status >= 400:  # noqa: PLR2004
        raise _refusal(answer, host, what)
    if "json" not in _kind(answer):
        message = f"{host}: session expired, or not Kubeflow Pipelines (answered {_kind(answer) or 'without content type'}, not JSON)"
        raise RemoteError(message, next_step=_LOGIN)
    document = answer.json()
    if not isinstance(document, dict):
        raise RemoteError(f"{host}: {what}: expected a JSON object")
    return document


def _refusal(answer: Response, host: str, what: str) -> TrainshedError:
    said = _said(answer)
    if answer.status == 404:  # noqa: PLR2004
        return NotFound(f"{host}: {what}: not found: {said}")
    if answer.status == 409 or (answer.status in {400, 500} and "already exist" in said.lower()):  # noqa: PLR2004
        return Conflict(f"{host}: {what} already exists: {said}")  # servers before 2.2 answer 500
    if answer.status == 400:  # noqa: PLR2004
        return UsageError(f"{host}: {what}: refused: {said}", next_step="Mend what the server names.")
    return RemoteError(f"{host}: {what}: HTTP {answer.status}: {said}", next_step="Try again; ask who runs this Kubeflow if it stays.")


def _said(answer: Response) -> str:
    """Return the message of either error shape; upload endpoints have one of their own."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return answer.text[:200].strip() or "no message"
    if not isinstance(document, dict):
        return "no message"
    return str(document.get("error_details") or document.get("error_message") or document.get("message") or "no message")


def _kind(answer: Response) -> str:
    return answer.headers.get("content-type", "")


def _bounded(name: str, limit: int, what: str) -> None:
    if not name or len(name) > limit:
        raise UsageError(f"{what} name '{name}': expected 1 to {limit} characters", next_step="Choose a shorter name.")
