"""AWS through boto3: one door for all its services, with our own repeats, and errors that say who has to do what."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainshed.errors import RemoteError, TrainshedError, UsageError
from trainshed.tools import process

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.loaders import Loader

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
        "403",
    }
)
_SERVER_ERROR = 500
_ATTEMPTS = 5
_FIRST_PAUSE = 0.2
_LOOKING = ("batch_check_", "batch_get_", "describe_", "filter_", "get_", "head_", "list_", "simulate_")
_SESSION_SECONDS = 3600


class Refused(UsageError):
    """AWS refused a request. ``code`` is the name of AWS's error, ``said`` its own words; ``denied`` when a permission is missing."""

    def __init__(self, message: str, *, code: str, said: str, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.code, self.said = code, said

    @property
    def denied(self) -> bool:
        """Tell whether the caller may not do this."""
        return self.code in _DENIED


class CredentialsExpired(RemoteError):
    """The credentials ran out, and nobody renewed them: waiting does not help."""

    permanent = True


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who asks: the account, and the ARN of the user or of the assumed role."""

    account: str
    arn: str


@dataclass(kw_only=True)
class _Room:
    """What one set of credentials opened."""

    session: Session | None = None
    clients: dict[str, Any] = field(default_factory=dict)


class Aws:
    """AWS in one region, asked as one identity; thread-safe.

    Args:
        region: such as ``eu-west-1``.
        endpoints: other addresses by service (``ecs``, ``s3``…); that under ``*`` is for all services without one of their own.
        role: ARN of a role to assume first, empty for none.
        anonymous: send no credentials and ask no proxy: an embedded service.
        parent: who assumes the role; without one whoever runs this.
    """

    def __init__(
        self,
        *,
        region: str,
        endpoints: Mapping[str, str] | None = None,
        role: str = "",
        anonymous: bool = False,
        parent: Aws | None = None,
    ) -> None:
        self.region, self.role, self.anonymous, self._parent = region, role, anonymous, parent
        self.endpoints = dict(endpoints or {})
        self._room = _Room()
        self._lock = threading.RLock()

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - see the API
        """Ask one operation, by boto3's names: ``call("ecr", "describe_repositories", repositoryNames=[…])``.

        A throttled call is repeated, with pauses; a question also after an error of the server or the network. A change that may have
        been taken is not: whoever asked looks. Credentials that ran out are read anew, once.

        Raises:
            Refused: AWS refused it, by its `code`.
            UsageError: there are no credentials, or the request is malformed.
            RemoteError: too many requests, an error of AWS or of the network; the credentials ran out.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        looking, renewed = operation.startswith(_LOOKING), False
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            room = self._room
            try:
                client = self._client(service)
                answer: dict[str, Any] = process.interruptible(lambda: getattr(client, operation)(**parameters))  # noqa: B023 - called now
            except ClientError as error:
                if _code(error) in _EXPIRED and not renewed and not last:
                    renewed = True
                    self._renew(room)
                    continue
                if last or not (_code(error) in _THROTTLED or (looking and _status(error) >= _SERVER_ERROR)):
                    raise self._refused(service, operation, error) from error
            except BotoCoreError as error:
                if last or not (looking and _passing(error)):
                    raise self._broken(service, error) from error
            else:
                return answer
            process.pause(_FIRST_PAUSE * 2.0**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
        raise AssertionError("the last attempt returns or raises")

    def find(self, service: str, operation: str, /, *missing: str, **parameters: Any) -> dict[str, Any] | None:  # noqa: ANN401 - see the API
        """Ask as `call` does; None where AWS answers with one of the codes in ``missing``: there is no such thing."""
        try:
            return self.call(service, operation, **parameters)
        except Refused as refusal:
            if refusal.code in missing:
                return None
            raise

    def pages(self, service: str, operation: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - see the API
        """Ask an operation page by page, to the last one. Errors are those of `call`."""
        from botocore.exceptions import PaginationError
        from botocore.paginate import Paginator

        model = self._client(service).meta
        name = model.method_to_api_mapping[operation]
        rules = _models().load_service_model(service, "paginators-1", model.service_model.api_version)["pagination"][name]
        ask = functools.partial(self.call, service, operation)
        paginator: Any = Paginator(ask, rules, model.service_model.operation_model(name))  # type: ignore[arg-type] # a callable, whatever the stubs say
        try:
            yield from paginator.paginate(**parameters)
        except PaginationError as error:
            message = f"{self._place(service)}: {operation} gives the same page twice"
            raise RemoteError(message, next_step="Run it again; tell AWS if it stays so.") from error

    def identity(self) -> Identity:
        """Return who asks, by AWS's own word."""
        answer = self.call("sts", "get_caller_identity")
        return Identity(account=answer["Account"], arn=answer["Arn"])

    def assuming(self, role: str) -> Aws:
        """Return the same place, asked as another role (an ARN); that it may be assumed shows at the first call."""
        return Aws(region=self.region, endpoints=self.endpoints, role=role, parent=self)

    def elsewhere(self, region: str) -> Aws:
        """Return the same identity in another region."""
        if region == self.region:
            return self
        return Aws(region=region, endpoints=self.endpoints, role=self.role, anonymous=self.anonymous, parent=self._parent)

    def _client(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        with self._lock:
            known = self._room.clients.get(service)
            return known if known is not None else self._room.clients.setdefault(service, self._made(service))

    def _made(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        import botocore
        from botocore.config import Config

        settings: dict[str, Any] = {"signature_version": botocore.UNSIGNED, "proxies": {}} if self.anonymous else {}
        if service == "s3" and self.endpoints:
            settings["s3"] = {"addressing_style": "path"}  # an emulator has no name for each bucket
        # Repeats are ours: they end with SIGTERM, and a change is repeated only where AWS surely did not take it.
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60, **settings)
        address = self.endpoints.get(service) or self.endpoints.get("*")
        client: Any = self._session().client(service, endpoint_url=address, config=config)  # type: ignore[call-overload]
        if service == "s3control" and address:
            client.meta.events.register("before-sign.s3-control", _without_account)
        return client

    def _session(self) -> Session:
        if self._room.session is None:
            import boto3
            import botocore.session

            core = botocore.session.Session()
            core.register_component("data_loader", _models())
            if self.role:  # the one way to hand botocore credentials that renew themselves
                core._credentials = self._assumed()  # type: ignore[attr-defined] # noqa: SLF001
            self._room.session = boto3.session.Session(region_name=self.region, botocore_session=core)
        return self._room.session

    def _assumed(self) -> Any:  # noqa: ANN401 - botocore's own
        from botocore.credentials import DeferredRefreshableCredentials

        parent = self._parent or Aws(region=self.region, endpoints=self.endpoints)

        def fetch() -> dict[str, str]:
            asked = {"RoleArn": self.role, "RoleSessionName": "trainshed", "DurationSeconds": _SESSION_SECONDS}
            given = parent.call("sts", "assume_role", **asked)["Credentials"]
            return {
                "access_key": given["AccessKeyId"],
                "secret_key": given["SecretAccessKey"],
                "token": given["SessionToken"],
                "expiry_time": given["Expiration"].isoformat(),
            }

        return DeferredRefreshableCredentials(refresh_using=fetch, method="assume-role")

    def _renew(self, stale: _Room) -> None:
        """Forget what stale credentials opened, unless another thread did: who runs us may have renewed them meanwhile."""
        with self._lock:
            if self._room is stale:
                self._room = _Room()

    def _place(self, service: str) -> str:
        return f"AWS {service} in {self.region}"

    def _refused(self, service: str, operation: str, error: ClientError) -> TrainshedError:
        code, said = _code(error), error.response.get("Error", {}).get("Message", "")
        message = f"{self._place(service)}: {operation} was refused: {code}: {said}"
        if code in _EXPIRED:
            expired = f"{self._place(service)}: the credentials ran out: {said}"
            return CredentialsExpired(expired, next_step="Renew them, then run it again.")
        if code in _THROTTLED or _status(error) >= _SERVER_ERROR:
            return RemoteError(message, next_step="Wait a minute, then run it again.")
        step = "Check the credentials and what their role may do." if code in _DENIED else "Mend what the message names."
        return Refused(message, code=code, said=said, next_step=step)

    def _broken(self, service: str, error: BotoCoreError) -> TrainshedError:
        from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError

        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return UsageError(f"{self._place(service)}: {error}", next_step="Give AWS credentials: a role, a profile or variables.")
        if isinstance(error, ParamValidationError):
            return UsageError(f"{self._place(service)}: {error}", next_step="Mend what the message names.")
        where = self.endpoints.get(service) or self.endpoints.get("*") or self._place(service)
        return RemoteError(f"{where}: {error}", next_step="Check the network and the address, then run it again.")


@functools.cache
def _models() -> Loader:
    """Return what botocore knows of AWS, read once and not for every client: a tenth of a second each."""
    from botocore.loaders import create_loader

    return create_loader()


def _without_account(request: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
    """Take the account out of ``ACCOUNT.host``: an emulator has no name for each; the account is in a header as well."""
    parts = urlsplit(request.url)
    account = request.headers.get("x-amz-account-id", "")
    request.url = parts._replace(netloc=parts.netloc.removeprefix(f"{account}.")).geturl()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _passing(error: BotoCoreError) -> bool:
    """Tell whether the network, and not the request, is to blame."""
    from botocore.exceptions import HTTPClientError

    return isinstance(error, HTTPClientError)
