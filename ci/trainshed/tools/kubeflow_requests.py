"""The one door to Kubeflow's REST API: every answer is JSON, or an error that says what happened and whether anything may be done.

No redirect is followed: one means that the login expired. What a login page, a proxy or a cut connection leaves is never taken for an
answer.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from trainshed.errors import Interrupted, RemoteError, TrainshedError, UsageError
from trainshed.tools import process
from trainshed.tools.http import TOO_MANY, Field, Http, NoAnswer, Response, backoff, retry_after
from trainshed.tools.kubeflow_auth import Login
from trainshed.tools.kubeflow_records import Conflict, Denied, MalformedAnswer, NotFound

API = "/apis/v2beta1"
_TRIES = 4
_LOOKS = 4
_MOST_SAID = 600
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOGIN_WANTED = _REDIRECTS | {401}
_SERVER_ERROR = 500
_LOGIN = "Log in anew: renew the credentials that environments.<name>.kubeflow.auth names; `trainshed login` tells who you are."
_RIGHTS = "Ask who runs this Kubeflow for the right in the namespace, or log in as somebody who has it."
_HOST = "Check kubeflow.host: behind a dashboard it ends with /pipeline."
_AGAIN = "Try again; ask who runs this Kubeflow if it stays."
_REFUSED_RIGHTS = re.compile(r"authoriz|authenticat|permission", re.IGNORECASE)

T = TypeVar("T")


class Fate(Enum):
    """What can have become of a request that got no clear answer."""

    UNDONE = "undone"
    """Nothing was done: the service was never reached."""
    ENDED = "ended"
    """Done or not, the service is no longer at it: even 429 may be a proxy's, about the repeat of a request that was done."""
    OPEN = "open"
    """Done or not, or the service may still be at it."""


_FATES = {408: Fate.OPEN, 409: Fate.ENDED, TOO_MANY: Fate.ENDED, 500: Fate.ENDED, 502: Fate.ENDED, 503: Fate.ENDED}


class Unclear(RemoteError):
    """No clear answer came.

    ``fate`` says what may have become of the request, ``status`` what the answer had (0: there was none), ``pause`` for how long the
    service asks to wait.
    """

    def __init__(self, message: str, fate: Fate, *, status: int = 0, pause: float = 0.0, next_step: str = _AGAIN) -> None:
        super().__init__(message, next_step=next_step)
        self.fate, self.status, self.pause = fate, status, pause


class Requests:
    """Requests to one Kubeflow.

    Args:
        host: its address, such as ``https://kubeflow.example.org/pipeline``.
        http: for what may be repeated.
        login: asked for the headers of each request.
        timeout: seconds for one request.
    """

    def __init__(self, host: str, http: Http, login: Login, timeout: float) -> None:
        self.host, self._http, self._login = host, http, login
        self._once = Http(timeout=timeout, retries=0)

    def close(self) -> None:
        """Close the connections."""
        self._once.close()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, what: str = "", surely: bool = False) -> dict[str, Any]:
        """Ask for a document; repeated where that may help. ``surely``: even after SIGTERM, then once."""
        return self._document(self._ask(self._once if surely else self._http, "GET", path, query, surely=surely), what or path)

    def post(  # noqa: PLR0913 - what a request is made of
        self,
        path: str,
        body: Any = None,  # noqa: ANN401 - any JSON document
        *,
        what: str,
        about: str = "",
        makes: bool = True,
        repeat: bool = False,
        surely: bool = False,
    ) -> dict[str, Any]:
        """Send a document once.

        Args:
            path: under the API.
            body: the document.
            what: the thing, for messages.
            about: the ids that the document names, for a refusal that does not tell which of them is unknown.
            makes: it makes a thing, so that a refusal may mean that there is one of its name.
            repeat: it may be sent again, for what it does twice is done once.
            surely: not given up when SIGTERM arrives: no run may start without its id being known, nor be left running.

        Raises:
            Unclear: it may have been done.
        """
        answer = self._ask(self._http if repeat else self._once, "POST", path, body=body, repeat=repeat, surely=surely)
        return self._document(answer, what, about, makes=makes)

    def delete(self, path: str, *, what: str) -> None:
        """Delete a thing; one that is gone already is deleted."""
        try:
            self._document(self._ask(self._http, "DELETE", path), what)
        except NotFound:
            return

    def upload(self, path: str, query: Mapping[str, str], fields: Mapping[str, Field], *, what: str, about: str = "") -> dict[str, Any]:
        """Send a form once.

        Raises:
            Unclear: it may have been done.
        """
        return self._document(self._ask(self._once, "POST", path, query, fields=fields), what, about, makes=True)

    def text(self, path: str, *, what: str, elsewhere: str = "") -> str | None:
        """Ask for a text; None where the service has none, which it says with 400, 404 or 500.

        Args:
            path: the whole path.
            what: the thing, for messages.
            elsewhere: the path to ask, with its query, where nobody knows the first.
        """
        answer = self._ask(self._once, "GET", path, whole=True)
        if elsewhere and answer.status == 404 and not _is_kubeflows(answer):  # noqa: PLR2004
            answer = self._ask(self._once, "GET", elsewhere, whole=True)
        if answer.status in {400, 404, _SERVER_ERROR}:
            return None
        if answer.ok and "text/plain" in _kind(answer):
            return answer.text
        self._document(answer, what)
        return None  # a document is no log

    def _ask(  # noqa: PLR0913 - one door, so it has all the handles
        self,
        http: Http,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,  # noqa: ANN401 - any JSON document
        fields: Mapping[str, Field] | None = None,
        repeat: bool = False,
        surely: bool = False,
        whole: bool = False,
    ) -> Response:
        asked = {name: value for name, value in (query or {}).items() if value}
        url = f"{self.host}{'' if whole else API}{path}" + (f"?{urlencode(asked)}" if asked else "")

        def ask() -> Response:
            headers = {"Accept": "application/json", **self._logged_in(self._login.headers)}
            try:
                safe = repeat or method != "POST"
                return http.request(method, url, headers=headers, json=body, fields=fields, idempotent=safe, surely=surely)
            except NoAnswer as error:
                raise Unclear(error.message, Fate.OPEN if error.sent else Fate.UNDONE) from error

        answer = ask()
        # Whoever asks for a login has not passed the request on, so it is safe to send again.
        return ask() if answer.status in _LOGIN_WANTED and self._logged_in(self._login.renew) else answer

    @staticmethod
    def _logged_in(step: Callable[[], T]) -> T:
        """Take a step of the login; where it gets no answer, the request itself was not sent."""
        try:
            return step()
        except NoAnswer as error:
            raise Unclear(error.message, Fate.UNDONE, next_step=error.next_step) from error

    def _document(self, answer: Response, what: str, about: str = "", *, makes: bool = False) -> dict[str, Any]:
        """Return the JSON document of a good answer, or raise what the status means."""
        if answer.status in _REDIRECTS:
            raise Denied(f"{self.host}: session expired (redirected to a login page)", next_step=_LOGIN)
        if not answer.ok:
            raise _refusal(answer, self.host, what, about, makes=makes)
        if "json" not in _kind(answer):
            kind = _kind(answer) or "without content type"
            raise Denied(f"{self.host}: session expired, or not Kubeflow Pipelines (answered {kind}, not JSON)", next_step=_LOGIN)
        try:
            document = answer.json()
        except RemoteError as error:
            raise Unclear(error.message, Fate.OPEN) from error
        if not isinstance(document, dict):
            raise Unclear(f"{self.host}: {what}: expected a JSON object", Fate.OPEN)
        return document


@dataclass(frozen=True, kw_only=True)
class Creation(Generic[T]):
    """One thing that is made once, whatever becomes of the answers.

    Args:
        what: the thing, for messages.
        send: asks for it.
        find: looks for it by its name.
        ours: tells whether what was found is what was asked for, not another of the same name; its second argument says whether
            an answer was lost, so that it may be.
        unique: the server has no two of one name, so that a late first one makes the second be refused.
        surely: neither given up nor left unknown when SIGTERM arrives.
    """

    what: str
    send: Callable[[], T]
    find: Callable[[], T | None]
    ours: Callable[[T, bool], bool]
    unique: bool
    surely: bool = False

    def make(self) -> T:
        """Make the thing.

        Raises:
            Conflict: another thing has the name.
            RemoteError: it is not known whether it was made; or it was not, and trying again did not help.
            Interrupted: SIGTERM arrived, and nothing was made.
        """
        if self.surely and process.stopping.is_set():
            raise Interrupted("interrupted")
        lost = False
        for attempt in range(_TRIES):
            try:
                return self.send()
            except Conflict as conflict:
                found = self._taken(conflict, lost=lost)
                if found is not None:
                    return found
                raise
            except (Unclear, MalformedAnswer) as error:
                lost = lost or _fate(error) is not Fate.UNDONE
                found = self._sought(error)
                if found is not None:
                    return found
                if attempt == _TRIES - 1:
                    raise
                process.pause(max(getattr(error, "pause", 0.0), backoff(attempt + 1)))  # nothing was made: SIGTERM may end it here
        raise AssertionError("the last try returns or raises")

    def _taken(self, conflict: Conflict, *, lost: bool) -> T | None:
        """Return what has the name already, when it is what was asked for."""
        try:
            found = self._look(conflict)
        except RemoteError:
            if lost:
                raise
            return None  # the refusal stands
        return found if found is not None and self.ours(found, lost) else None

    def _sought(self, error: Unclear | MalformedAnswer) -> T | None:
        """Return what a request made whose answer was lost; None where it is sure that nothing came of it, or may be asked for again."""
        fate = _fate(error)
        if fate is Fate.UNDONE:
            return None
        late = fate is Fate.OPEN and not self.unique
        for look in range(_LOOKS if late else 1):
            if look:
                time.sleep(backoff(look + 1))
            found = self._look(error)
            if found is not None and not self.ours(found, True):
                raise Conflict(f"{self.what} already exists: another has this name") from error
            if found is not None:
                return found
        if late:
            raise self._unknown(error) from error
        return None

    def _look(self, cause: TrainshedError) -> T | None:
        for attempt in range(_LOOKS):
            try:
                return self.find()
            except RemoteError as error:
                if attempt == _LOOKS - 1 or not isinstance(error, Unclear):
                    raise self._unknown(cause, f"; looking for it failed too: {error.message}") from error
                time.sleep(backoff(attempt + 1))
        raise AssertionError("the last look returns or raises")

    def _unknown(self, cause: TrainshedError, more: str = "") -> RemoteError:
        return RemoteError(
            f"{self.what}: it is not known whether it was made: {cause.message}{more}",
            next_step="Look for it in Kubeflow by this name before you make it again.",
        )


def _fate(error: RemoteError) -> Fate:
    return error.fate if isinstance(error, Unclear) else Fate.OPEN


def _refusal(answer: Response, host: str, what: str, about: str, *, makes: bool) -> TrainshedError:
    """Return what a status of 400 and more means; servers before 2.2 answer 500 for a name that is taken."""
    said, status = _said(answer), answer.status
    shown = f"{host}: {what}" + (f" ({about})" if about else "")
    if makes and (status == 409 or (status in {400, 500} and "already exist" in answer.text.lower())):  # noqa: PLR2004
        return Conflict(f"{host}: {what} already exists: {said}", next_step="Choose another name, or look at it in Kubeflow.")
    if status == 404 and _is_kubeflows(answer):  # noqa: PLR2004
        return NotFound(f"{shown}: not found: {said}", next_step="Check the name or id in Kubeflow.")
    if status == 404:  # noqa: PLR2004 - of a proxy in front, while the service restarts or for good
        return Unclear(f"{shown}: no Kubeflow Pipelines there (HTTP 404): {said}", Fate.UNDONE, status=404, next_step=_HOST)
    if status in {401, 403} or (status == 400 and _REFUSED_RIGHTS.search(said)):  # noqa: PLR2004 - the upload endpoints say 400
        return Denied(f"{shown}: not permitted (HTTP {status}): {said}", next_step=_LOGIN if status == 401 else _RIGHTS)  # noqa: PLR2004
    fate = _FATES.get(status, Fate.OPEN if status >= _SERVER_ERROR else None)
    if fate is not None:
        return Unclear(f"{shown}: HTTP {status}: {said}", fate, status=status, pause=retry_after(answer.headers))
    next_step = f"Check that these exist in this Kubeflow: {about}." if about else "Mend what the server names."
    return UsageError(f"{shown}: refused: {said}", next_step=next_step)


def _said(answer: Response) -> str:
    """Return the message of either error shape; what is not JSON, such as a proxy's page, is shown as it begins."""
    document = _error_document(answer)
    told = next((str(document[key]) for key in ("error_message", "message", "error_details") if document.get(key)), "")
    if not told and "json" not in _kind(answer):
        told = re.sub(r"<[^>]*>", " ", answer.text[:_MOST_SAID])
    told = " ".join(told.split())
    return (told[:_MOST_SAID] + " …" if len(told) > _MOST_SAID else told) or "no message"


def _error_document(answer: Response) -> dict[str, Any]:
    """Return the API's own words about an error; the upload endpoints have a shape of their own. Empty when they are not the API's."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_kubeflows(answer: Response) -> bool:
    """Tell whether an error is told by the API itself, in either of its shapes, and not by a proxy that answers JSON too."""
    document = _error_document(answer)
    return isinstance(document.get("code"), int) or "error_message" in document


def _kind(answer: Response) -> str:
    return answer.headers.get("content-type", "")


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def name_filter(*, name: str = "", containing: str = "") -> str:
    """Return a filter by name as the API takes it; empty when nothing is asked for."""
    asked = [("EQUALS", name), ("IS_SUBSTRING", containing)]
    predicates = [{"operation": operation, "key": "display_name", "string_value": value} for operation, value in asked if value]
    return json.dumps({"predicates": predicates}) if predicates else ""


def given(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without its empty texts, which stand for what is not asked for."""
    return {key: value for key, value in document.items() if value != ""}
