"""ECR: the side of AWS of a registry."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainshed.errors import RemoteError, UsageError
from trainshed.tools.aws import Aws, Refused
from trainshed.tools.credentials import Login

# A push takes the log-in at its start and needs it to its end. AWS itself refuses clocks that are more than a quarter of an hour off,
# so that a token that has this much left by our clock is good by theirs.
_MARGIN_SECONDS = 1200.0
_LEAST_SECONDS = 60.0
_PERMISSION = "ecr:GetAuthorizationToken"


class Ecr:
    """The repositories of one account in one region; thread-safe.

    Args:
        aws: the region, and as whom it is asked.
        account: whose registry it is; it may be another than that of whoever asks.
        on_secret: is told each password, to be masked in what is printed.
    """

    def __init__(self, aws: Aws, *, account: str, on_secret: Callable[[str], None] = lambda _: None) -> None:
        self.aws, self.account = aws, account
        self._on_secret = on_secret
        self._lock = threading.Lock()
        self._login: Login | None = None
        self._until = 0.0

    def login(self, host: str) -> Login:
        """Return the log-in for all repositories of the registry; asked for once, and anew some minutes before it ends.

        Args:
            host: the registry's name, for messages.

        Raises:
            UsageError: there are no credentials, or they may not ask for a token.
            RemoteError: AWS could not be asked.
        """
        with self._lock:
            if self._login is None or time.monotonic() >= self._until:
                given = self._asked(host)
                self._login = _login(given, host)
                self._on_secret(self._login.password)
                self._on_secret(str(given["authorizationToken"]))
                # One that has ended already when it comes (an emulator's) is used all the same: the registry alone can tell. It is
                # kept for a minute, so that a hundred threads do not ask a hundred times for what would be no better.
                self._until = time.monotonic() + max(_seconds_left(given) - _MARGIN_SECONDS, _LEAST_SECONDS)
            return self._login

    def _asked(self, host: str) -> Mapping[str, Any]:
        try:
            # Without an account: the token is good for every registry of the region that the identity may use, also for others' ones.
            data = self.aws.call("ecr", "get_authorization_token").get("authorizationData") or []
        except Refused as error:
            step = f"Allow {_PERMISSION} (on all resources) to whoever runs this." if error.denied else error.next_step
            raise UsageError(f"{host}: no token to log in with: {error.message}", next_step=step) from error
        except UsageError as error:
            raise UsageError(f"{host}: no token to log in with: {error.message}", next_step=error.next_step) from error
        except RemoteError as error:
            raise RemoteError(f"{host}: no token to log in with: {error.message}", next_step=error.next_step) from error
        if not data:
            raise RemoteError(f"{host}: AWS gave no token to log in with", next_step="Run again.")
        return dict(data[0])


def _login(given: Mapping[str, Any], host: str) -> Login:
    try:
        name, colon, password = base64.b64decode(str(given["authorizationToken"]), validate=True).decode().partition(":")
    except (KeyError, binascii.Error, UnicodeDecodeError):
        name = colon = password = ""
    if not (name and colon and password):
        raise RemoteError(f"{host}: AWS gave a token that is no log-in", next_step="Check aws.endpoint-url.")
    return Login(username=name, password=password)


def _seconds_left(given: Mapping[str, Any]) -> float:
    ends = given.get("expiresAt")
    return float(ends.timestamp() - time.time()) if ends is not None else 0.0
